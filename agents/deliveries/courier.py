"""Brings copies to one destination: at most two at once, and only one to feel its way while the destination is away.

Each destination has its own courier with threads of its own, so one that hangs holds up neither the others nor the
agent. Of what is due, what was tried least goes first: a copy that its destination never takes does not block the rest.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from agents.deliveries.status import CalledOff, DeliveryFailure, SourceLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.deliveries.consignment import Copy
    from agents.deliveries.copy_book import CopyBook
    from agents.deliveries.destination import Destination
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.recording_sections import DeliverySettings
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
_AT_ONCE = 2
_LARGEST_EXPONENT = 32


class Courier:
    """The copies that wait for one destination."""

    def __init__(
        self,
        name: str,
        destination: Destination,
        book: CopyBook,
        *,
        settings: DeliverySettings,
        tasks: TaskGuard,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Makes one that does nothing until `start`.

        Args:
            name: The destination's name.
            destination: The destination.
            book: Where copies are looked up and their outcomes are noted.
            settings: Pauses.
            tasks: Owns what runs.
            clock: For pauses.
            jitter: Gives numbers from 0 to 1, so that many agents do not come back at the same instant.
        """
        self._name = name
        self._destination = destination
        self._book = book
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._jitter = jitter
        self._ready: list[tuple[int, int, Copy]] = []
        self._later: list[tuple[float, int, Copy]] = []
        self._numbers = itertools.count()
        self._running = 0
        self._failures = 0
        self._closed_until_s = 0.0
        self._woken = asyncio.Event()
        self._called_off = threading.Event()
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix=f"deliver-{name}")

    @property
    def is_away(self) -> bool:
        """Whether the destination did not take what it was last brought."""
        return self._failures > 0

    def start(self) -> None:
        """Begins to bring what is taken in."""
        self._tasks.spawn_eternal(self._run(), name=f"deliver to {self._name}")

    def take(self, copy: Copy) -> None:
        """Takes in a copy to be made."""
        self._make_ready(copy)
        self._woken.set()

    async def _run(self) -> None:
        try:
            while True:
                self._woken.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._dispatch()):
                        await self._woken.wait()
        finally:
            self._called_off.set()
            self._threads.shutdown(wait=False, cancel_futures=True)
            # Before the interpreter waits for threads that wait for these processes.
            self._destination.rest()

    def _dispatch(self) -> float | None:
        """Starts what may be started. Returns after how many seconds there may be more; None: not by time alone."""
        now_s = self._clock.monotonic_s()
        while self._later and self._later[0][0] <= now_s:
            self._make_ready(heapq.heappop(self._later)[2])
        if self._ready and now_s >= self._closed_until_s:
            while self._ready and self._running < (1 if self.is_away else _AT_ONCE):
                copy = heapq.heappop(self._ready)[2]
                self._running += 1
                self._tasks.spawn(self._carry(copy), name=f"deliver {copy.path} of {copy.session} to {self._name}")
        if self._running == 0 and not self._ready and not self._later:
            self._threads.submit(self._destination.rest)
        times_s = [self._later[0][0]] if self._later else []
        if self._ready and now_s < self._closed_until_s:
            times_s.append(self._closed_until_s)
        return max(0.0, min(times_s) - now_s) if times_s else None

    async def _carry(self, copy: Copy) -> None:
        parcel = self._book.parcel(copy)
        try:
            loop = asyncio.get_running_loop()
            location = await loop.run_in_executor(self._threads, self._destination.deliver, parcel, self._called_off)
        except CalledOff:
            return
        except SourceLost as lost:
            if self._book.parcel(copy) == parcel:
                await self._book.not_delivered(copy, str(lost), final=True)
            else:
                # It has been put into the spill folder meanwhile.
                self._make_ready(copy)
        except DeliveryFailure as failure:
            await self._failed(copy, str(failure), permanent=failure.permanent)
        except OSError as error:
            await self._failed(copy, f"Cannot read {copy.path}: {error.strerror}. Try to look at the agent's disk.")
        except Exception as error:  # noqa: BLE001 - what a store answers must not cost the agent its other work
            _LOG.exception("Cannot deliver %s of %s to %s", copy.path, copy.session, self._name)
            told = f"Cannot deliver {copy.path}: a mistake of the agent's ({type(error).__name__}); its log tells more."
            await self._failed(copy, told)
        else:
            self._failures = 0
            await self._book.delivered(copy, location)
        finally:
            self._running -= 1
            self._woken.set()

    async def _failed(self, copy: Copy, message: str, *, permanent: bool = False) -> None:
        self._failures += 1
        now_s = self._clock.monotonic_s()
        self._closed_until_s = now_s + self._pause_s(self._failures)
        if self._book.is_overdue(copy):
            await self._give_up(copy, message)
        else:
            longest_s = self._settings.longest_pause_s
            tries = self._book.try_count(copy) + 1
            pause_s = longest_s if permanent else self._pause_s(tries)
            heapq.heappush(self._later, (now_s + pause_s, next(self._numbers), copy))
            await self._book.not_delivered(copy, message, final=False)
        for overdue in self._take_out_overdue():
            await self._give_up(overdue, message, tried=False)

    async def _give_up(self, copy: Copy, message: str, *, tried: bool = True) -> None:
        told = f"{message} Given up after {self._settings.give_up_after_h:g} h; the artifact is kept."
        await self._book.not_delivered(copy, told, final=True, tried=tried)

    def _take_out_overdue(self) -> list[Copy]:
        overdue = {entry[2] for entry in (*self._ready, *self._later) if self._book.is_overdue(entry[2])}
        if overdue:
            self._ready = [entry for entry in self._ready if entry[2] not in overdue]
            self._later = [entry for entry in self._later if entry[2] not in overdue]
            heapq.heapify(self._ready)
            heapq.heapify(self._later)
        return sorted(overdue, key=lambda copy: (copy.session, copy.attempt, copy.path))

    def _make_ready(self, copy: Copy) -> None:
        heapq.heappush(self._ready, (self._book.try_count(copy), next(self._numbers), copy))

    def _pause_s(self, failures: int) -> float:
        settings = self._settings
        doubled_s = settings.first_pause_s * 2.0 ** min(failures - 1, _LARGEST_EXPONENT)
        return min(settings.longest_pause_s, doubled_s) * (0.75 + 0.25 * self._jitter())
