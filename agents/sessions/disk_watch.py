"""Keeps the disk of the agent's state from filling up under its sessions.

Little room: no session is begun that leaves its files there. Hardly any: the session that matters least is stopped
while its outputs can still be completed, and the next one only if the disk goes on filling. Ended sessions are not
touched: how long they are kept is the balancer's business, and copies of them may still be on their way.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.sessions.attempt import StopCause
from gpu_balancer.runtime.disk_room import DiskRoom, RoomBounds, RoomLevel, measure_room
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

    from agents.sessions.attempt import AttemptKey
    from agents.sessions.running import Runner
    from gpu_balancer.runtime.disk_reserve import DiskReserve

_LOG = logging.getLogger(__name__)
_LOOKED_EVERY_S = 1.0
_RETRY_AFTER = timedelta(seconds=30)
_FURTHER = 8
"""A further session is stopped when so much of the least room has gone since the last one ended: 1/8."""
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSession:
    """A session as far as it matters when there is no room for all."""

    key: AttemptKey
    runner: Runner
    urgent: bool
    """Whether it is LIVE."""
    begin_time: datetime
    leaves_files: bool
    """Whether it writes files to this disk."""
    stopping: bool


def least_important(sessions: Iterable[LiveSession]) -> LiveSession | None:
    """Chooses whom to stop first: BATCH before LIVE, then the one that has run for the shortest time.

    Returns:
        Whom. None: nobody whose end would help.
    """
    able = [one for one in sessions if one.leaves_files]
    # The attempt's name decides between equals, so that it is the same one at every look.
    return max(able, key=lambda one: (not one.urgent, one.begin_time, one.key), default=None)


class DiskWatch:
    """The watch over one disk."""

    def __init__(
        self,
        folder: Path,
        bounds: RoomBounds,
        *,
        reserve: DiskReserve,
        sessions: Callable[[], Iterable[LiveSession]],
        measure: Callable[[Path], DiskRoom] = measure_room,
    ) -> None:
        """Begins without a look.

        Args:
            folder: Tells which disk; exists.
            bounds: From when on there is little room.
            reserve: Room on it for what must be written in any case; taken whenever there is plenty.
            sessions: Lists the live sessions.
            measure: Measures it. Blocks.
        """
        self._folder = folder
        self._bounds = bounds
        self._reserve = reserve
        self._sessions = sessions
        self._measure = measure
        self._stopped: AttemptKey | None = None
        self._free_then: int | None = None

    async def watch(self) -> None:
        """Looks again and again. Never returns."""
        while True:
            try:
                await self.look()
            except OSError as error:
                _LOG.error("Cannot look at the disk of %s: %s", self._folder, error.strerror)
            await asyncio.sleep(_LOOKED_EVERY_S)

    async def look(self) -> None:
        """Does what is due.

        Raises:
            OSError: When the disk cannot be looked at.
        """
        room = await asyncio.to_thread(self._measure, self._folder)
        level = self._bounds.level(room)
        if level is RoomLevel.PLENTY:
            await asyncio.to_thread(self._reserve.take)
        live = tuple(self._sessions())
        going = any(one.key == self._stopped for one in live)
        if level is not RoomLevel.LEAST:
            self._free_then, self._stopped = None, self._stopped if going else None
        elif not going:
            await self._make_way(room, live)

    async def require_room(self, key: AttemptKey, *, leaves_files: bool) -> None:
        """Makes sure that a session may begin.

        Args:
            key: Which attempt.
            leaves_files: Whether it writes files to this disk, besides its log.

        Raises:
            RequestFailure: DISK_LOW.
        """
        try:
            room = await asyncio.to_thread(self._measure, self._folder)
        except OSError:
            return  # its folder will say what is wrong
        level = self._bounds.level(room)
        if level is RoomLevel.PLENTY or (level is RoomLevel.LOW and not leaves_files):
            return
        bounds = self._bounds.of(room)
        bound = bounds.low_bytes if leaves_files else bounds.least_bytes
        raise RequestFailure(
            reason=Reason.DISK_LOW,
            message=f"Cannot launch {key}: {room.free_bytes // _MIB:,} MiB are left on the agent's disk, below "
            f"{bound / _MIB:,.4g}. Try deleting sessions, an output elsewhere, or another [disk] low_mib.",
            retry_after=_RETRY_AFTER,
            metadata={"free_bytes": str(room.free_bytes), "low_bytes": str(bound)},
        )

    async def _make_way(self, room: DiskRoom, live: tuple[LiveSession, ...]) -> None:
        """Stops the session that matters least; a further one only if the end of the last was not enough."""
        if self._stopped is not None:
            self._stopped, self._free_then = None, room.free_bytes
        gone_too_far = self._bounds.of(room).least_bytes // _FURTHER
        if self._free_then is not None and self._free_then - room.free_bytes < gone_too_far:
            return
        chosen = least_important(one for one in live if not one.stopping)
        if chosen is None:
            return
        _LOG.warning("Stopping %s: %d MiB are left on the disk", chosen.key, room.free_bytes // _MIB)
        self._stopped = chosen.key
        await chosen.runner.stop(StopCause.DISK_LOW)
