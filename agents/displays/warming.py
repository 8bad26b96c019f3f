"""The displays that nobody uses yet: being made, or ready with a browser, checked, replaced when they are dead.

A ready display is lent once and never comes back. When one is taken the next is made a little later, so that it does
not take processor time from the recording which begins, and without precedence, so that recordings which run lose no
picture over it. What cannot be made is tried again, ever more seldom.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.displays.display import DisplayUnavailable
from agents.displays.making import DisplayWish, MadeDisplay
from agents.displays.screens import screen_size
from agents.displays.x_client import XUnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.displays.making import DisplayMaker
    from agents.displays.spawning import DisplayProcesses
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
CHECK_EVERY = timedelta(seconds=10)
REFILL_PAUSE = timedelta(seconds=2)
SETTLED_AFTER = timedelta(seconds=3)
"""A browser has much to do just after its start, and a recording that begins meanwhile begins half as fast."""
FIRST_BACKOFF = timedelta(seconds=1)
LONGEST_BACKOFF = timedelta(seconds=60)
_ANSWER_WITHIN = timedelta(seconds=2)
_USUAL_WIDTH = 1280
_USUAL_HEIGHT = 720
"""Of recordings that do not ask for a size: a warm display that has it already need not be resized."""


@dataclass(slots=True, kw_only=True, eq=False)
class _Making:
    """A display that is being made."""

    wish: DisplayWish
    claimed: bool
    """Whether somebody waits for it."""
    task: asyncio.Task[MadeDisplay | DisplayUnavailable] | None = None
    display_id: str | None = None
    """None until it is known."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Ready:
    """A display that nobody uses yet."""

    made: MadeDisplay
    settled_s: float
    """Monotonic seconds from which on it counts as ready."""


class WarmDisplays:
    """Makes displays, for whoever waits and ahead of time. Every display is its maker's until it is taken."""

    def __init__(
        self, maker: DisplayMaker, *, count: int, tasks: TaskGuard, clock: Clock, on_changed: Callable[[], None]
    ) -> None:
        """Makes none yet.

        Args:
            maker: What makes them.
            count: How many stand ready, once `begin` was called.
            tasks: Owner of the tasks.
            clock: For pauses.
            on_changed: Called when `ready_count` or `fault` changed.
        """
        self._maker = maker
        self._count = count
        self._tasks = tasks
        self._clock = clock
        self._on_changed = on_changed
        self._ready: deque[_Ready] = deque()
        self._told_count = 0
        self._makings: list[_Making] = []
        self._processes: dict[str, DisplayProcesses] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._not_before_s = 0.0
        self._failures = 0
        self._closing = False
        self.fault: str | None = None
        """Why the last display could not be made. None: it could."""

    @property
    def ready_count(self) -> int:
        """Displays that stand ready, and have settled: younger ones are lent too when they are asked for."""
        now_s = self._clock.monotonic_s()
        return sum(one.settled_s <= now_s for one in self._ready)

    def processes_of(self, display_id: str) -> DisplayProcesses | None:
        """Gives the processes of a display that is being made. None: it is not."""
        return self._processes.get(display_id)

    def is_awaited(self, display_id: str) -> bool:
        """Tells whether somebody waits for a display that is being made."""
        return any(making.claimed and making.display_id == display_id for making in self._makings)

    def begin(self) -> None:
        """Has displays made ahead of time from now on; may be called again."""
        if self._keeping is None and self._count:
            self._keeping = self._tasks.spawn_eternal(self._keep(), name="warm displays")

    def wake(self) -> None:
        """Has it looked whether displays are to be made."""
        self._woken.set()

    async def take(self, wish: DisplayWish) -> MadeDisplay:
        """Gives a display that is ready, or will be soonest. It may have another size than the one wished.

        Args:
            wish: What it is to be like.

        Raises:
            DisplayUnavailable: When it cannot be made.
        """
        now_s = self._clock.monotonic_s()
        if self._not_before_s <= now_s:
            # Not put off further by each that comes, or many recordings in a row would never find one ready.
            self._not_before_s = now_s + REFILL_PAUSE.total_seconds()
        if wish.browser:
            while self._ready:
                made = self._ready.popleft().made
                self._on_changed()
                if made.stands():
                    made.processes.prefer()
                    return made
                await self.discard(made)
        fitting = (making for making in self._makings if not making.claimed and _serves(making.wish, wish))
        if (begun := next(fitting, None)) is not None:
            begun.claimed = True
            if begun.display_id is not None:
                self._processes[begun.display_id].prefer()
            with contextlib.suppress(DisplayUnavailable):  # Told already; it may have been late before it was wanted.
                return await self._await(begun)
        return await self._await(self._make(wish, claimed=True))

    async def discard(self, made: MadeDisplay) -> None:
        """Ends a display that is dead or not wanted, whatever becomes of the caller."""
        _LOG.warning("Display %s is ended before it was used", made.display.id)
        ending = self._end_soon(made)
        if ending is not None:
            await asyncio.shield(ending)

    async def close(self) -> None:
        """Ends the displays that nobody took, and makes no more."""
        self._closing = True
        if self._keeping is not None:
            self._keeping.cancel()
        makings = [making.task for making in self._makings if making.task is not None]
        for task in makings:
            task.cancel()
        if makings:
            await asyncio.wait(makings)
        while self._ready:
            await self._end(self._ready.popleft().made)

    async def _await(self, making: _Making) -> MadeDisplay:
        assert making.task is not None
        try:
            outcome = await asyncio.shield(making.task)
        except asyncio.CancelledError:
            # Who waited is gone. What is like a warm display becomes one if there is room.
            making.claimed = False
            if making.task.done():
                self._settle(making)
            elif not making.wish.browser:
                making.task.cancel()
            raise
        if isinstance(outcome, DisplayUnavailable):
            raise outcome
        return outcome

    def _make(self, wish: DisplayWish, *, claimed: bool) -> _Making:
        making = _Making(wish=wish, claimed=claimed)
        self._makings.append(making)
        making.task = self._tasks.spawn(self._made(making), name="make a display")
        making.task.add_done_callback(lambda _: self._finished(making))
        return making

    async def _made(self, making: _Making) -> MadeDisplay | DisplayUnavailable:
        def begun(display_id: str, processes: DisplayProcesses) -> None:
            making.display_id = display_id
            self._processes[display_id] = processes
            if making.claimed:
                processes.prefer()

        try:
            return await self._maker.make(making.wish, begun=begun)
        except DisplayUnavailable as unavailable:
            return unavailable
        except Exception as error:  # noqa: BLE001 - one display must not cost the agent all others
            _LOG.exception("Cannot make a display")
            told = f"Cannot make a display: a mistake of the agent's ({type(error).__name__}); its log tells more."
            return DisplayUnavailable("DISPLAY_FAILED", told)

    def _finished(self, making: _Making) -> None:
        self._makings.remove(making)
        if making.display_id is not None:
            del self._processes[making.display_id]
        assert making.task is not None
        if making.task.cancelled() or making.task.exception() is not None:
            return
        outcome = making.task.result()
        if isinstance(outcome, DisplayUnavailable):
            self._failed(outcome)
        else:
            self._failures, self.fault = 0, None
            soon_s = self._clock.monotonic_s() + REFILL_PAUSE.total_seconds()
            self._not_before_s = min(self._not_before_s, soon_s)
        if not making.claimed:
            self._settle(making)
        self.wake()
        self._on_changed()

    def _failed(self, unavailable: DisplayUnavailable) -> None:
        pause = min(FIRST_BACKOFF * 2 ** min(self._failures, 10), LONGEST_BACKOFF)
        self._failures += 1
        self.fault = str(unavailable)
        self._not_before_s = self._clock.monotonic_s() + pause.total_seconds()
        _LOG.error("%s (%s; warm displays are tried again in %s)", unavailable, unavailable.reason, pause)

    def _settle(self, making: _Making) -> None:
        """Finds a use for a display that was made and that nobody waits for."""
        assert making.task is not None
        if making.task.cancelled() or making.task.exception() is not None:
            return
        made = making.task.result()
        if isinstance(made, DisplayUnavailable):
            return
        wanted = self._keeping is not None and not self._closing and len(self._ready) < self._count
        if wanted and _serves(making.wish, self._usual()):
            settled_s = self._clock.monotonic_s() + SETTLED_AFTER.total_seconds()
            self._ready.append(_Ready(made=made, settled_s=settled_s))
        else:
            self._end_soon(made)

    async def _keep(self) -> None:
        while True:
            await self._check()
            pause_s = min(CHECK_EVERY.total_seconds(), self._tell_settled())
            if len(self._ready) < self._count and all(making.claimed for making in self._makings):
                wait_s = self._not_before_s - self._clock.monotonic_s()
                if wait_s <= 0:
                    self._make(self._usual(), claimed=False)
                else:
                    pause_s = min(pause_s, wait_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._woken.wait()
            self._woken.clear()

    def _tell_settled(self) -> float:
        """Tells when displays have settled. Gives seconds until the next one has."""
        count = self.ready_count
        if count != self._told_count:
            self._told_count = count
            self._on_changed()
        now_s = self._clock.monotonic_s()
        return min((one.settled_s - now_s for one in self._ready if one.settled_s > now_s), default=math.inf)

    async def _check(self) -> None:
        for one in tuple(self._ready):
            one.made.folder.bound_log()
            one.made.processes.reap()
            if not await _is_healthy(one.made) and one in self._ready:
                self._ready.remove(one)
                self._on_changed()
                await self.discard(one.made)

    def _end_soon(self, made: MadeDisplay) -> asyncio.Task[None] | None:
        """Ends a display in a task of its own. None: the agent ends, and the next one does that."""
        try:
            return self._tasks.spawn(self._end(made), name=f"end {made.display.id}")
        except RuntimeError:
            return None

    async def _end(self, made: MadeDisplay) -> None:
        await self._maker.ender.end(made.folder, user_id=made.display.user_id, processes=made.processes)

    def _usual(self) -> DisplayWish:
        width, height = self._maker.largest_width, self._maker.largest_height
        return DisplayWish(width=min(_USUAL_WIDTH, width), height=min(_USUAL_HEIGHT, height), browser=True, sound=True)


def _serves(made: DisplayWish, wish: DisplayWish) -> bool:
    """Tells whether a display made for one wish, its size aside, does for another."""
    return made.browser and wish.browser and (made.sound or not wish.sound)


async def _is_healthy(made: MadeDisplay) -> bool:
    if not made.stands():
        return False
    try:
        await screen_size(made.display, within=_ANSWER_WITHIN)
    except XUnreachableError:
        return False
    return True
