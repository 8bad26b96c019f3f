"""The displays of an agent: lent to recordings, one to each, ended after that, and found again by the next agent.

A display is never used twice: what one page left behind, in whatever place, is not for the next one to see.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.displays.ability import PoolAbility
from agents.displays.adoption import adopt_displays, end_orphans
from agents.displays.display import Display, DisplayUnavailable
from agents.displays.display_folder import DisplayFolder
from agents.displays.ending import DisplayEnder
from agents.displays.making import DisplayMaker, DisplayWish, MadeDisplay
from agents.displays.places import Places
from agents.displays.run_folders import RunFolders, RunFolderUnusableError, agent_name, default_run_dir
from agents.displays.screens import resize_screen
from agents.displays.sound_server import find_sound_fault
from agents.displays.spawning import BROWSER, CAPTURE_GATE, X_SERVER
from agents.displays.users import UserIds
from agents.displays.warming import WarmDisplays
from agents.displays.x_client import XUnreachableError
from gpu_balancer.runtime.ids import random_id
from gpu_balancer.runtime.recording_sections import parse_user_ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from agents.displays.backend import DisplayBackend
    from agents.displays.display import BrowserEndpoint
    from agents.displays.spawning import DisplayProcesses
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.recording_sections import RecordingSettings
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
_ROOT = 0
_TOO_LITTLE_BYTES = 32 << 20
"""A browser writes that much before it shows its first page."""
_ANSWER_WITHIN = timedelta(seconds=2)
_TEND_EVERY_S = 10.0
_TURNS_BETWEEN_SWEEPS = 6
_DISPLAY_ID = re.compile(r"[0-9a-z]{1,32}")


class DisplayPool:
    """Makes, keeps, lends and ends displays. All calls come from one event loop."""

    def __init__(
        self,
        root: Path,
        settings: RecordingSettings,
        *,
        backend: DisplayBackend,
        start_browser: Callable[[Display], Awaitable[BrowserEndpoint]] | None,
        tasks: TaskGuard,
        clock: Clock,
        on_changed: Callable[[], None],
    ) -> None:
        """Makes a pool that touches nothing before `start`.

        Args:
            root: Folder of the displays' folders, in the agent's state folder. No other agent has it.
            settings: Of recordings.
            backend: What makes X servers.
            start_browser: Starts a browser on a display by `spawn`, with the name `spawning.BROWSER`, and awaits that
                it can be driven; raises DisplayUnavailable. None: there is none, so displays with one cannot be had.
            tasks: Owner of the pool's tasks.
            clock: For pauses and bounds.
            on_changed: Called when `ability` gives something else.
        """
        is_root = os.geteuid() == _ROOT
        run_dir = default_run_dir() if settings.run_dir is None else Path(settings.run_dir)
        self._run = RunFolders(run_dir=run_dir, agent=agent_name(root))
        ids = parse_user_ids(settings.user_ids)
        users = UserIds(folder=self._run.users, ids=ids, agent=self._run.agent) if is_root else None
        self._root = root
        self._settings = settings
        self._tasks = tasks
        self._on_changed = on_changed
        self._ender = DisplayEnder(run=self._run, users=users, clock=clock)
        self._maker = DisplayMaker(
            root=root,
            largest_width=settings.largest_width,
            largest_height=settings.largest_height,
            backend=backend,
            start_browser=start_browser,
            ender=self._ender,
        )
        count = settings.displays if backend.display_limit is None else min(settings.displays, backend.display_limit)
        warm_count = settings.warm_displays if start_browser is not None else 0
        if backend.display_limit is not None:
            # One that stands ready would be in the way of one that is wished for.
            warm_count = 0
        self._places = Places(count)
        self._warm = WarmDisplays(self._maker, count=warm_count, tasks=tasks, clock=clock, on_changed=on_changed)
        self._lent: dict[str, MadeDisplay] = {}
        self._endings: dict[str, asyncio.Task[None]] = {}
        self._block: str | None = None
        self._folder_fault: str | None = None

    async def start(self, *, used: Collection[str]) -> None:
        """Takes over the displays in use and ends everything else that an earlier agent left.

        Args:
            used: Ids of the displays of live attempts.
        """
        try:
            await asyncio.to_thread(self._prepare)
        except (RunFolderUnusableError, OSError) as error:
            self._folder_fault = str(error)
            return
        for made in await adopt_displays(self._root, self._ender, used=used):
            made.processes.prefer()
            self._lent[made.display.id] = made
            self._places.adopt(made.display.id)
        self._tasks.spawn_eternal(self._tend(), name="tend displays")
        if self._settings.prewarm and self._find_fault() is None:
            self._warm.begin()
        self._on_changed()

    async def acquire(self, *, width: int, height: int, browser: bool, sound: bool, timeout: timedelta) -> Display:
        """Lends a display: a warm one when there is one, else a fresh one.

        Args:
            width: Pixels.
            height: Pixels.
            browser: Whether a browser with a blank page is to run on it.
            sound: Whether it must have sound. Without a sound server on the machine it has none all the same.
            timeout: For everything: a place, the making, the size.

        Returns:
            The display, to be given back by `release`.

        Raises:
            DisplayUnavailable: When it cannot be had, at once or within the timeout.
        """
        self._check(width, height)
        wish = DisplayWish(width=width, height=height, browser=browser, sound=sound)
        holder = random_id("request-")
        has_place = False
        if browser:
            self._warm.begin()
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self._places.take(holder)
                has_place = True
                made = await self._obtain(wish)
        except TimeoutError:
            self._places.give_back(holder)
            raise DisplayUnavailable("DISPLAY_TIMEOUT", self._late(timeout, has_place=has_place)) from None
        except BaseException:
            self._places.give_back(holder)
            raise
        self._lent[made.display.id] = made
        self._places.rename(holder, made.display.id)
        self._on_changed()
        return made.display

    def find(self, display_id: str) -> Display | None:
        """Gives a display that is lent, or was taken over. None: there is none of that id."""
        made = self._lent.get(display_id)
        return None if made is None else made.display

    def is_awaited(self, display_id: str) -> bool:
        """Tells whether somebody waits for a display that is being made."""
        return self._warm.is_awaited(display_id)

    def alive(self, display_id: str) -> bool:
        """Tells whether the screen of a lent display can be recorded, and its browser runs if it has one."""
        made = self._lent.get(display_id)
        if made is None or not self.screen_alive(display_id):
            return False
        return made.display.browser is None or made.processes.is_alive(BROWSER)

    def screen_alive(self, display_id: str) -> bool:
        """Tells whether the X server of a lent display runs, and the gate by which it is recorded."""
        made = self._lent.get(display_id)
        if made is None or not made.processes.is_alive(X_SERVER):
            return False
        return made.display.capture_name is None or made.processes.is_alive(CAPTURE_GATE)

    async def spawn(
        self,
        display: Display,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        as_agent: bool = False,
    ) -> int:
        """Starts a program on a display that is lent, or that `start_browser` was given.

        It runs as the display's user in its work folder, with its environment, writes to its log, outlives the agent,
        and ends with the display.

        Args:
            display: Which.
            argv: Absolute path of the program, and its arguments.
            name: What it is for; one word, unique on the display. The browser's own is `spawning.BROWSER`.
            environment: Variables on top of the display's.
            as_agent: As the agent's own user, for a program of ours that gives its rights up itself.

        Returns:
            Its process id.

        Raises:
            DisplayUnavailable: DISPLAY_FAILED: the display is gone, or the program cannot be started.
        """
        processes = self._processes_of(display.id)
        if processes is None:
            raise DisplayUnavailable("DISPLAY_FAILED", f"Cannot start {name}: its display is gone. Try another one.")
        try:
            return await processes.spawn(argv, name=name, environment=environment, as_agent=as_agent)
        except OSError as error:
            raise DisplayUnavailable(
                "DISPLAY_FAILED", f"Cannot start {name}: {error}. Try {argv[0]} by hand."
            ) from error

    def log_tail(self, display: Display) -> str:
        """Gives the last lines that the programs of a display wrote, in one line, for messages."""
        return DisplayFolder(path=self._root / display.id).log_tail()

    async def release(self, display_id: str) -> None:
        """Ends a display with everything on it. May be called again, and for one that is long gone.

        Args:
            display_id: Which.
        """
        if _DISPLAY_ID.fullmatch(display_id) is None:
            raise ValueError(f"Cannot release {display_id!r}: it is no display's id.")
        ending = self._endings.get(display_id)
        if ending is None:
            made = self._lent.pop(display_id, None)
            if made is None:
                return
            ending = self._endings[display_id] = self._tasks.spawn(self._end(made), name=f"end {display_id}")
        await asyncio.shield(ending)

    def set_blocked(self, message: str | None) -> None:
        """Has no display lent any more, or lent again. Those that are lent stay.

        Args:
            message: Why, and what to try. None: nothing is in the way any more.
        """
        self._block = message
        self._on_changed()

    def ability(self) -> PoolAbility:
        """Tells what the pool can do now."""
        fault = self._find_fault()
        sound_fault = find_sound_fault()
        return PoolAbility(
            available=fault is None,
            fault_message=fault or self._warm.fault or "",
            display_count=self._places.count,
            used_display_count=self._places.taken_count,
            ready_display_count=self._warm.ready_count,
            largest_width=self._settings.largest_width,
            largest_height=self._settings.largest_height,
            sound=sound_fault is None,
            sound_fault_message=sound_fault or "",
        )

    async def close(self) -> None:
        """Ends the displays that nobody uses. Those that are lent stay to the next agent."""
        await self._warm.close()
        if self._endings:
            await asyncio.wait(tuple(self._endings.values()))
        await asyncio.to_thread(self._run.tidy)

    def _prepare(self) -> None:
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run.prepare()

    def _find_fault(self) -> str | None:
        if not self._settings.enabled:
            return "Cannot record: recordings are switched off. Try enabled = true in [recordings]."
        return self._block or self._folder_fault or self._maker.find_fault()

    def _check(self, width: int, height: int) -> None:
        fault = self._find_fault()
        if fault is not None:
            raise DisplayUnavailable("RECORDING_UNAVAILABLE", fault)
        largest = self._settings.largest_width, self._settings.largest_height
        if not (1 <= width <= largest[0] and 1 <= height <= largest[1]):
            raise DisplayUnavailable(
                "DISPLAY_FAILED",
                f"Cannot make a display of {width}x{height} pixels: the largest is {largest[0]}x{largest[1]}. "
                "Try a smaller one, or another recordings.largest_width and largest_height.",
            )

    async def _obtain(self, wish: DisplayWish) -> MadeDisplay:
        """Gives a display of the size wished that answers; warm ones that do not are ended."""
        while True:
            made = await self._warm.take(wish)
            try:
                await resize_screen(made.display, wish.width, wish.height, within=_ANSWER_WITHIN)
                if (made.display.width, made.display.height) != (wish.width, wish.height):
                    await asyncio.to_thread(made.resized, wish.width, wish.height)
            except XUnreachableError:
                await self._warm.discard(made)
            except BaseException as error:
                await self._warm.discard(made)
                if isinstance(error, OSError):
                    raise DisplayUnavailable("DISPLAY_FAILED", f"Cannot note a display: {error}.") from error
                raise
            else:
                return made

    async def _tend(self) -> None:
        """Keeps logs bounded, no ended child waiting, and nothing running that belongs to no display."""
        turn = 0
        while True:
            await asyncio.sleep(_TEND_EVERY_S)
            turn += 1
            if turn % _TURNS_BETWEEN_SWEEPS == 0:
                try:
                    await end_orphans(self._root, self._ender, used=self._lent)
                except OSError as error:  # No descriptor left: there is another sweep.
                    _LOG.error("Cannot look for processes of no display: %s", error)
            for made in tuple(self._lent.values()):
                made.folder.bound_log()
                made.processes.reap()

    async def _end(self, made: MadeDisplay) -> None:
        display_id = made.display.id
        try:
            await self._ender.end(made.folder, user_id=made.display.user_id, processes=made.processes)
        finally:
            self._places.give_back(display_id)
            del self._endings[display_id]
            self._warm.wake()
            self._on_changed()

    def _processes_of(self, display_id: str) -> DisplayProcesses | None:
        made = self._lent.get(display_id)
        return self._warm.processes_of(display_id) if made is None else made.processes

    def _late(self, timeout: timedelta, *, has_place: bool) -> str:
        within = f"Cannot get a display within {timeout.total_seconds():g} s"
        if shutil.disk_usage(self._run.run_dir).free < _TOO_LITTLE_BYTES:
            return f"{within}: the disk of {self._run.run_dir} is full. Try freeing space there."
        if has_place:
            return f"{within}: making one takes longer. Try again, or a longer recordings.acquire_timeout_s."
        return f"{within}: all {self._places.count} are in use. Try later, or a larger recordings.displays."
