"""Has files held back where work in real time shares their device, and let go where it does not any more.

Speeds are worked out anew for a device whenever a session comes to it or leaves it, once for all changes of one turn of
the loop. A device with sessions of one kind only costs nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from balancer.domain.pacing import PacedSession, speed_limits
from balancer.domain.session import SessionState
from balancer.domain.session_events import Paced

if TYPE_CHECKING:
    from collections.abc import Sequence

    from balancer.domain.device import DeviceView
    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord
    from balancer.domain.session_events import SessionEvent
    from balancer.placer import Placer


class PacingDoor(Protocol):
    """What pacing needs of the engine."""

    def current(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as it is now. None: there is none."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent) -> object:
        """Takes an event."""
        ...


@dataclass(slots=True)
class _Here:
    """The sessions of a device."""

    live: set[SessionId] = field(default_factory=set)
    files: set[SessionId] = field(default_factory=set)


class SessionPacing:
    """Keeps the speeds of files in step with who shares their device."""

    def __init__(self, door: PacingDoor, placer: Placer) -> None:
        """Begins without sessions.

        Args:
            door: The engine.
            placer: Knows devices and what sessions take of them.
        """
        self._door = door
        self._placer = placer
        self._devices: dict[DeviceId, _Here] = {}
        self._dirty: set[DeviceId] = set()
        self._views: Sequence[DeviceView] = ()
        self._woken = False
        # Whatever else comes to be booked on a device, what others take of it above all.
        placer.ledger.listen(self._booked)

    def moved(self, before: SessionRecord | None, after: SessionRecord | None) -> None:
        """Notes that what a session has booked may have changed.

        Args:
            before: As it was. None: it is new.
            after: As it is. None: it is gone.
        """
        old = _place_of(before)
        new = _place_of(after)
        if old == new:
            return
        if old is not None and before is not None:
            self._change(old, before, present=False)
        if new is not None and after is not None:
            self._change(new, after, present=True)

    def tick(self) -> None:
        """Looks whether devices have changed, to be called once a second."""
        views = self._placer.views
        if views is not self._views:
            self._views = views
            self.look_again()

    def _booked(self, device_id: DeviceId) -> None:
        here = self._devices.get(device_id)
        if here is not None and here.live and here.files:
            self._mark(device_id)

    def look_again(self) -> None:
        """Works out every device's speeds anew, as when capacities or settings changed."""
        for device_id in self._devices:
            self._mark(device_id)

    def _change(self, device_id: DeviceId, record: SessionRecord, *, present: bool) -> None:
        here = self._devices.setdefault(device_id, _Here())
        kind = here.live if record.workload.real_time else here.files
        shared_before = bool(here.live and here.files)
        if present:
            kind.add(record.id)
        else:
            kind.discard(record.id)
        if shared_before or (here.live and here.files):
            self._mark(device_id)
        if not here.live and not here.files:
            del self._devices[device_id]

    def _mark(self, device_id: DeviceId) -> None:
        self._dirty.add(device_id)
        if not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._wake_up)

    def _wake_up(self) -> None:
        self._woken = False
        dirty, self._dirty = self._dirty, set()
        for device_id in dirty:
            self._pace(device_id)

    def _pace(self, device_id: DeviceId) -> None:
        here = self._devices.get(device_id)
        if here is None or not here.files:
            return
        bookable = self._placer.left_by_others(device_id)
        if here.live and not bookable:
            # Nothing is known of the device, as just after a start: whoever is held stays so until it is.
            return
        # Without live work there is no need to know what anybody takes.
        wanted = (*here.files, *here.live) if here.live else tuple(here.files)
        sessions = [one for session_id in wanted if (one := self._described(session_id)) is not None]
        for session_id, limit in speed_limits(sessions, bookable or {}).items():
            self._door.post(session_id, Paced(speed_limit=limit))

    def _described(self, session_id: SessionId) -> PacedSession | None:
        record = self._door.current(session_id)
        if record is None or record.reservation is None:
            return None
        if record.workload.real_time:
            amounts = record.reservation.device_amounts
        else:
            amounts = self._placer.amounts_in_real_time(record.workload, record.reservation.device_id)
        return PacedSession(
            session_id=session_id,
            real_time=record.workload.real_time,
            amounts=amounts,
            least_speed=record.workload.reserved_speed or self._placer.rules.settings.least_batch_speed,
        )


def _place_of(record: SessionRecord | None) -> DeviceId | None:
    if record is None or record.reservation is None:
        return None
    # Room is kept for work in real time already while it waits, for a file that is moved only once it is there.
    here = record.state is not SessionState.QUEUED or record.workload.real_time
    return record.reservation.device_id if here else None
