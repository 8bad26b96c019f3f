"""Has sessions go on elsewhere without their ever being left without a place.

A session is moved only where there is room for it, and that room is booked from the moment its attempt is asked to end:
in the seconds until its processes are gone nobody slips in between. What it still has of the host counts as its own
meanwhile, because it gives that back before it takes it again.

What is kept is not stored: after a restart whoever is on the way asks for room once more.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from balancer.domain.decision import Refusal
from balancer.domain.ids import SessionId
from balancer.domain.requeueing import may_move
from balancer.domain.session import SessionState
from balancer.domain.session_events import MoveRequested

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from balancer.domain.decision import Decision, Reservation
    from balancer.domain.ids import DeviceId
    from balancer.domain.session import Failure, SessionRecord
    from balancer.domain.session_events import SessionEvent
    from balancer.placer import Placer

_LEFT = Refusal(rule="LEFT", message="The session leaves it.")


class MovingDoor(Protocol):
    """What is needed of the engine."""

    def current(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as it is now. None: there is none."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent) -> object:
        """Takes an event."""
        ...


class SessionMoves:
    """Keeps room for sessions that are on the way to another device."""

    def __init__(self, door: MovingDoor, placer: Placer, closed: Callable[[], Mapping[DeviceId, Refusal]]) -> None:
        """Begins with nobody on the way.

        Args:
            door: The engine.
            placer: Decides.
            closed: Gives the devices that are kept for sessions which wait.
        """
        self._door = door
        self._placer = placer
        self._closed = closed
        self._kept: dict[SessionId, Decision] = {}

    def begin(self, session_id: SessionId, failure: Failure) -> bool:
        """Has a session leave its device, if there is room for it on another one.

        Args:
            session_id: Which.
            failure: Why; the session's rule must let it restart for that reason, or its operator wants it.

        Returns:
            Whether it is on the way, with its room kept. It stays where it is if not.
        """
        if session_id in self._kept:
            return True
        record = self._door.current(session_id)
        if record is None or record.device_id is None or not may_move(record, failure):
            return False
        decision = self._decide(record, record.device_id)
        if decision.reservation is None:
            return False
        self._kept[session_id] = decision
        self._placer.ledger.book(_place_of(session_id), _beside(decision.reservation, record.reservation))
        self._door.post(session_id, MoveRequested(device_id=record.device_id, failure=failure))
        after = self._door.current(session_id)
        if after is None or after.moving is None:
            self._let_go(session_id)
            return False
        return True

    def arrive(self, before: SessionRecord, after: SessionRecord) -> tuple[SessionRecord, Decision | None]:
        """Gives a session that has left its device the room that was kept for it; to be called at each change.

        Returns:
            The session after the change, and the decision by which it has that room, where it just got it.
        """
        if after.id not in self._kept or (after.state is SessionState.STOPPING and after.moving is not None):
            return after, None
        decision = self._let_go(after.id)
        if before.state is SessionState.STOPPING and after.state is SessionState.QUEUED:
            return replace(after, reservation=decision.reservation), decision
        return after, None

    def _decide(self, record: SessionRecord, device_id: DeviceId) -> Decision:
        """Decides as if the session had left already."""
        ledger = self._placer.ledger
        own = ledger.release(record.id)
        try:
            return self._placer.consider(record.workload, closed={**self._closed(), device_id: _LEFT})
        finally:
            if own is not None:
                ledger.book(record.id, own)

    def _let_go(self, session_id: SessionId) -> Decision:
        self._placer.ledger.release(_place_of(session_id))
        return self._kept.pop(session_id)


def _place_of(session_id: SessionId) -> SessionId:
    """Names what is booked for a session's next attempt; no session is called so."""
    return SessionId(f"{session_id}/next")


def _beside(wanted: Reservation, present: Reservation | None) -> Reservation:
    """Gives what is to be booked of a reservation while the session still has another one, on the same host."""
    if present is None:
        return wanted
    host = {
        dimension: amount - present.host_amounts.get(dimension, 0)
        for dimension, amount in wanted.host_amounts.items()
        if amount > present.host_amounts.get(dimension, 0)
    }
    return replace(wanted, host_amounts=host, firm_host_amounts=None, capture_amounts=None)
