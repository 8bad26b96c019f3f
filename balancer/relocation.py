"""Has the sessions of an agent that is not waited for any more go on elsewhere, where another device has room for them.

Who finds none stays where it is: it may well be running on, and would wait for nothing elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from balancer.domain.session_events import AgentLost

if TYPE_CHECKING:
    from datetime import timedelta

    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord
    from balancer.domain.session_events import SessionEvent
    from balancer.placer import Placer
    from balancer.session_queue import SessionQueue


class RelocationDoor(Protocol):
    """What relocation needs of the engine."""

    def live(self, device_id: DeviceId) -> tuple[SessionRecord, ...]:
        """Gives the device's sessions that have not ended."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent) -> object:
        """Takes an event."""
        ...


class Relocation:
    """Looks for other devices."""

    def __init__(self, door: RelocationDoor, placer: Placer, queue: SessionQueue) -> None:
        """Makes it.

        Args:
            door: The engine.
            placer: Tells whether a session fits anywhere.
            queue: Through which sessions come to their next device.
        """
        self._door = door
        self._placer = placer
        self._queue = queue

    def lose(self, device_id: DeviceId, silence: timedelta) -> None:
        """Has the sessions of a device go on elsewhere, if they may; to be called again while the silence lasts.

        Args:
            device_id: The device whose agent is lost.
            silence: For how long it has not been heard.
        """
        for record in self._door.live(device_id):
            # Who was to leave for another reason need not find room: it waits for that anyway. Nor who has ended.
            if record.requeue or record.settling is not None or self._fits_elsewhere(record):
                self._door.post(record.id, AgentLost(device_id=device_id, silence=silence))
                # At once, so that the next one is not promised the same room.
                self._queue.serve()

    def _fits_elsewhere(self, record: SessionRecord) -> bool:
        decision = self._placer.consider(record.workload, closed=self._queue.closed())
        if decision.device_id is not None:
            return True
        return self._queue.room_for(self._queue.waiting_of(record), decision) is not None
