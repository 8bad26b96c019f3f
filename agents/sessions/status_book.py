"""The statuses of all attempts: the one door through which they are numbered, written down and told.

Numbering, writing and telling happen under one lock, so that numbers are told in the order in which they were given and
never before they are on the disk. A watcher that stores number 7 has therefore heard everything up to 7.
"""

from __future__ import annotations

import asyncio
import errno
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from agents.sessions.event_feed import EventFeed
from agents.sessions.records import dump_status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agents.sessions.attempt import AttemptKey, AttemptStatus
    from agents.sessions.event_numbers import EventNumbers
    from agents.sessions.folder import AttemptFolder
    from gpu_balancer.runtime.disk_reserve import DiskReserve

_LOG = logging.getLogger(__name__)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Attempt:
    """One attempt that the agent knows. Whoever changes its status does so between two awaits, then keeps or tells."""

    def __init__(self, folder: AttemptFolder, status: AttemptStatus) -> None:
        self.folder = folder
        self.status = status

    @property
    def key(self) -> AttemptKey:
        """Which attempt."""
        return self.status.key


class StatusBook:
    """What was told of each attempt, by number."""

    def __init__(self, numbers: EventNumbers, *, reserve: DiskReserve | None = None) -> None:
        """Makes an empty book.

        Args:
            numbers: The agent's counter.
            reserve: Room that is given up when there is none for a status. None: there is no such room.
        """
        self._reserve = reserve
        self._numbers = numbers
        self._told: dict[AttemptKey, AttemptStatus] = {}
        self._door = asyncio.Lock()
        self.feed = EventFeed(self._told)
        """Where watchers listen."""

    @property
    def last_number(self) -> int:
        """Number of the latest event."""
        return self._numbers.last

    @property
    def statuses(self) -> Mapping[AttemptKey, AttemptStatus]:
        """What was told last, of every attempt."""
        return self._told

    def enter(self, attempt: Attempt) -> None:
        """Enters an attempt with a status that was told before, by a predecessor."""
        self._numbers.at_least(attempt.status.event_number)
        self._told[attempt.key] = attempt.status

    async def keep(self, attempt: Attempt) -> None:
        """Writes a status down without telling it."""
        async with self._door:
            await self._write(attempt)

    async def publish(self, attempt: Attempt) -> None:
        """Numbers, writes down and tells a status."""
        async with self._door:
            number = await asyncio.to_thread(self._numbers.next)
            attempt.status = replace(attempt.status, event_number=number)
            self._told[attempt.key] = await self._write(attempt)
            self.feed.status_changed()

    def progressed(self, attempt: Attempt) -> None:
        """Tells progress, which is neither numbered nor written down."""
        if (told := self._told.get(attempt.key)) is not None:
            status = attempt.status
            self._told[attempt.key] = replace(told, progress=status.progress, recording_report=status.recording_report)
            self.feed.progress_made(attempt.key)

    async def write_down(self, write: Callable[[], None]) -> None:
        """Writes something that must not be lost for want of room: at the worst the agent's reserve is used for it.

        Args:
            write: Writes it. Blocks; may be called twice.

        Raises:
            OSError: When the disk refuses all the same.
        """
        try:
            await asyncio.to_thread(write)
        except OSError as error:
            if error.errno not in _FULL or self._reserve is None or not await asyncio.to_thread(self._reserve.give_up):
                raise
            _LOG.warning("The disk is full; the agent uses its reserve")
            await asyncio.to_thread(write)

    async def forget(self, keys: tuple[AttemptKey, ...]) -> None:
        """Strikes attempts out."""
        async with self._door:
            for key in keys:
                self._told.pop(key, None)

    async def _write(self, attempt: Attempt) -> AttemptStatus:
        status = attempt.status
        try:
            await self.write_down(partial(attempt.folder.write_status, dump_status(status)))
        except OSError as error:
            # A full disk must not silence the truth. A successor finds the way it ended in the exit file anyway.
            _LOG.error("Cannot write the status of %s: %s", status.key, error.strerror)
        return status
