"""Takes over what an earlier agent left: reads every attempt's folder and does what follows from it.

All folders are read at once, those of which something runs first, and the agent waits for them for a bounded time only.
A folder that the disk does not give in time is read on; until then its attempt counts as live, so that nobody takes it
for lost or launches it a second time, and what is asked of its session waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, assert_never

from agents.sessions.adoption import found_folders, read_attempt
from agents.sessions.attempt import AttemptStatus, StopCause
from agents.sessions.endings import conclude_damaged
from agents.sessions.folder_reconciliation import Outcome
from agents.sessions.output_discards import remove_artifacts
from agents.sessions.processes import end_processes
from agents.sessions.records import RecordUnreadableError
from agents.sessions.status_book import Attempt
from agents.sessions.watches import KILLED_WITHIN, end_unwatched, logging_of

if TYPE_CHECKING:
    from agents.sessions.adoption import FoundAttempt
    from agents.sessions.attempt import AttemptKey
    from agents.sessions.folder import AttemptFolder, SessionFolders
    from agents.sessions.records import AnyRecord
    from agents.sessions.running import Runner
    from agents.sessions.status_book import StatusBook
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
_READ_AT_ONCE = 8
_LONGEST_FACTOR = 10
"""How often the disk may take nearly as long as it may."""


class TakeoverDoor(Protocol):
    """What takes in the attempts that were found."""

    def enter(self, attempt: Attempt, record: AnyRecord | None) -> None:
        """Takes in an attempt. No record: it never came here, or its record is lost."""
        ...

    def watch(self, attempt: Attempt, record: AnyRecord) -> Runner:
        """Has an attempt watched that was taken in, and gives who does."""
        ...


class Takeover:
    """What an earlier agent left to this one."""

    def __init__(
        self, folders: SessionFolders, book: StatusBook, *, door: TakeoverDoor, tasks: TaskGuard, clock: Clock
    ) -> None:
        """Reads nothing yet.

        Args:
            folders: Where attempts live.
            book: Where their statuses are told.
            door: Takes them in.
            tasks: Owns what goes on in the background.
            clock: For times.
        """
        self._folders = folders
        self._book = book
        self._door = door
        self._tasks = tasks
        self._clock = clock
        self._reading: dict[AttemptKey, asyncio.Task[None]] = {}
        self._one_read = asyncio.Event()

    @property
    def unread(self) -> tuple[AttemptKey, ...]:
        """The attempts whose folders have not been read yet."""
        return tuple(self._reading)

    async def run(self, within: timedelta) -> None:
        """Takes over every attempt whose folder is found.

        Args:
            within: How long to wait when the disk gives none.
        """
        # Not the threads that everything else needs: a sick disk would hold them all.
        threads = ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="takeover")
        loop = asyncio.get_running_loop()
        for folder in await loop.run_in_executor(threads, found_folders, self._folders):
            reading = loop.run_in_executor(threads, read_attempt, folder)
            task = self._tasks.spawn(self._take_over(folder, reading), name=f"take over {folder.key}")
            self._reading[folder.key] = task
            task.add_done_callback(lambda _, key=folder.key: self._was_read(key))  # type: ignore[misc]
        threads.shutdown(wait=False)
        await self._all_read(within)
        for key in self._reading:
            _LOG.error("Cannot read the folder of %s yet: its disk is slow. It counts as live until then", key)
            self._book.enter(Attempt(self._folders.of(key), AttemptStatus(key=key)))

    async def _all_read(self, within: timedelta) -> None:
        """Waits for the folders, as long as one after the other comes: of ended sessions there may be thousands."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_FACTOR * within.total_seconds()):
                while self._reading:
                    self._one_read.clear()
                    async with asyncio.timeout(within.total_seconds()):
                        await self._one_read.wait()

    def _was_read(self, key: AttemptKey) -> None:
        del self._reading[key]
        self._one_read.set()

    async def read(self, session: str) -> None:
        """Returns once every attempt of a session that was found has been read."""
        if reading := [task for key, task in self._reading.items() if key.session == session]:
            await asyncio.wait(reading)

    async def _take_over(self, folder: AttemptFolder, reading: asyncio.Future[FoundAttempt]) -> None:
        with logging_of(folder.key):
            try:
                found = await reading
            except (RecordUnreadableError, OSError) as error:
                _LOG.error("Cannot adopt %s: %s Its folder is left as it is: %s", folder.key, error, folder.path)
                await self._book.forget((folder.key,))
                return
            attempt = Attempt(folder, found.status)
            late = folder.key in self._book.statuses
            self._door.enter(attempt, found.launch)
            self._book.enter(attempt)
            if late or found.status.event_number == 0:
                # Watchers may have heard larger numbers by now.
                await self._book.publish(attempt)
            if found.status.discard_outputs and not found.status.live:
                # A predecessor may have been killed before it came to it.
                await asyncio.to_thread(remove_artifacts, folder)
            await self._settle(attempt, found)

    async def _settle(self, attempt: Attempt, found: FoundAttempt) -> None:
        match found.outcome:
            case Outcome.KEEP | Outcome.LEAVE:
                pass
            case Outcome.KEEP_AND_END:
                self._tasks.spawn(self._end_strays(attempt.folder), name=f"end strays of {attempt.key}")
            case Outcome.END_DAMAGED:
                self._tasks.spawn(self._end_damaged(attempt), name=f"end {attempt.key}")
            case Outcome.END_STRAYS:
                self._tasks.spawn(self._end_strays(attempt.folder), name=f"end strays of {attempt.key}")
                await self._watch(attempt, found)
            case Outcome.WATCH | Outcome.END_UNWATCHED | Outcome.DIRECT | Outcome.CONCLUDE_EXIT | Outcome.CONCLUDE_LOST:
                await self._watch(attempt, found)
            case _:
                assert_never(found.outcome)

    async def _watch(self, attempt: Attempt, found: FoundAttempt) -> None:
        if found.launch is None:  # never: what has no record is ended, or has ended
            return
        runner = self._door.watch(attempt, found.launch)
        _LOG.info("Adopted: %s", found.outcome)
        if found.outcome is Outcome.END_UNWATCHED:
            # Nobody could write any more how it ends.
            await runner.stop(StopCause.SHIM_LOST)

    async def _end_strays(self, folder: AttemptFolder) -> None:
        """Kills what holds the lock of an attempt whose program has ended, however long that takes."""
        with logging_of(folder.key):
            _LOG.warning("Ending what still runs of %s, whose program has ended", folder.key)
            while not await end_processes(folder, within=KILLED_WITHIN, clock=self._clock):
                _LOG.error("Cannot end what runs of %s; trying again", folder.key)

    async def _end_damaged(self, attempt: Attempt) -> None:
        """Ends what runs of an attempt whose record is lost."""
        with logging_of(attempt.key):
            await end_unwatched(attempt, conclude_damaged, book=self._book, clock=self._clock)
            _LOG.error("Ended what ran of %s: its records are damaged", attempt.key)
