"""Serves the sessions that wait for a device: whenever room may have come free, and once a second.

The rules are the domain's; here they meet the clock, the ledger and the engine. A session for which others are being
stopped has its room booked already, over what still runs there, so that nobody slips in between; it starts as soon as
what is booked fits.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from balancer.admission import told_refusals
from balancer.domain.preemption import Victim, make_room
from balancer.domain.queue import EndRate, Waiting, WaitingLine, estimated_wait
from balancer.domain.reachability import UNREACHABLE
from balancer.domain.session import Priority, QueueStanding, SessionState
from balancer.domain.session_events import Placed, Preempted, Ranked, RoomKept, RoomLost, WaitEnded

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from balancer.domain.decision import Decision, Refusal
    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.queue import QueueSettings
    from balancer.domain.session import SessionRecord
    from balancer.domain.session_events import SessionEvent
    from balancer.placer import Placer
    from gpu_balancer.runtime.clock import Clock

_LEAST_ROOM_WAIT = timedelta(seconds=30)
"""How long a session waits at least for others to be stopped: their agents may take most of it."""
_SEARCH_PAUSE_S = 0.5
_WAITS = "Waits for a device."
_RESTS = "Rests after it failed, until it may begin again."
_ESTIMATES = timedelta(seconds=5)
"""Estimates are told in multiples of this, so that they do not change with every look."""


class QueueDoor(Protocol):
    """What the queue needs of the engine."""

    def current(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as it is now. None: there is none."""
        ...

    def live(self) -> tuple[SessionRecord, ...]:
        """Gives the sessions that have not ended."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent, *, decision: Decision | None = None) -> object:
        """Takes an event, and the decision that led to it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueFigures:
    """What waits."""

    live_count: int
    batch_count: int
    max_sessions: int
    longest_wait: timedelta | None
    """None: nobody waits."""


class SessionQueue:
    """The sessions in QUEUED."""

    def __init__(self, door: QueueDoor, placer: Placer, clock: Clock, settings: QueueSettings) -> None:
        """Begins empty.

        Args:
            door: The engine.
            placer: Decides.
            clock: Tells how long sessions have waited.
            settings: What the operator tuned.
        """
        self._door = door
        self._placer = placer
        self._clock = clock
        self._line = WaitingLine(settings)
        self._rooms: dict[SessionId, Waiting] = {}
        """Sessions for which others are being stopped."""
        self._messages: dict[SessionId, str] = {}
        self._promised: set[SessionId] = set()
        """Sessions that are stopped as soon as it is durable for whom."""
        self._ends = EndRate()
        self._expected = 0
        self._search_s = 0.0
        """When it is next looked for whom to stop for those that wait."""
        self._woken = False

    # ------------------------------------------------------------------------------------------------- coming, going

    @property
    def settings(self) -> QueueSettings:
        """What the operator tuned."""
        return self._line.settings

    @settings.setter
    def settings(self, settings: QueueSettings) -> None:
        self._line.settings = settings

    @property
    def full(self) -> bool:
        """Whether no further session may begin to wait."""
        return len(self._line) + self._expected >= self.settings.max_sessions

    def expect(self, count: int) -> None:
        """Counts sessions that are about to wait, or are not any more."""
        self._expected += count

    def promise(self, victims: Collection[SessionId]) -> None:
        """Notes who is about to be stopped: their room comes free, whoever asks meanwhile."""
        self._promised.update(victims)

    def redeem(self, victims: Collection[SessionId]) -> None:
        """Notes that sessions have been stopped, or are not to be stopped after all."""
        self._promised.difference_update(victims)

    def longest_wait(self, asked: timedelta | None, *, for_room: bool) -> timedelta:
        """Gives how long a session may wait, for others to be stopped or for any room."""
        wait = min(asked or timedelta(), self.settings.longest_wait)
        return max(wait, _LEAST_ROOM_WAIT) if for_room else wait

    def closed(self) -> Mapping[DeviceId, Refusal]:
        """Gives the devices that take no session which does not wait, and why."""
        return self._line.closed_to(None)

    def room_for(self, waiting: Waiting, refused: Decision) -> Decision | None:
        """Finds whom to stop so that a session of LIVE work fits.

        Args:
            waiting: The session.
            refused: The decision by which every device refused it.

        Returns:
            The decision with its reservation, and whom to stop. None: nobody may be stopped, or it does not help.
        """
        if waiting.priority is not Priority.LIVE or not waiting.workload.real_time:
            return None
        victims = [victim for record in self._door.live() if (victim := self._victim(record)) is not None]
        if not victims:
            return None
        kept = self._line.closed_to(waiting.session_id)
        return make_room(
            refused,
            victims,
            self._placer.ledger,
            lambda device_id: device_id not in kept and self._placer.has_room(waiting.workload, device_id),
            lambda closed: self._placer.consider(waiting.workload, closed={**kept, **closed}),
        )

    def _victim(self, record: SessionRecord) -> Victim | None:
        """Describes a session that may be stopped for others, or that is being stopped anyway. None: it may not."""
        if record.device_id is None or record.settling is not None:
            return None
        if any(condition.type == UNREACHABLE for condition in record.conditions):
            return None
        if record.state is SessionState.STOPPING or record.id in self._promised:
            return Victim(session_id=record.id, device_id=record.device_id, done=timedelta(), ending=True)
        if not record.preemptible or record.state not in (SessionState.STARTING, SessionState.RUNNING):
            return None
        done = record.progress.out_time if record.progress else timedelta()
        return Victim(session_id=record.id, device_id=record.device_id, done=done)

    def enter(self, record: SessionRecord, decision: Decision | None = None) -> None:
        """Takes in a session that is queued; if it waits already, it does so anew.

        Args:
            record: The session.
            decision: Why it waits, where that is known.
        """
        self.leave(record.id)
        waiting = self.waiting_of(record)
        if record.reservation is not None:
            self._rooms[record.id] = waiting
        else:
            self._line.add(waiting)
        if waiting.ready_s is not None:
            rest_s = max(0.0, waiting.ready_s - self._clock.monotonic_s())
            asyncio.get_running_loop().call_later(rest_s, self.wake)
        if decision is not None:
            self._messages[record.id] = _message(decision)

    def waiting_of(self, record: SessionRecord) -> Waiting:
        """Describes a session to the line; a wall clock that was set back makes nobody wait in the future."""
        now, now_s = self._clock.now(), self._clock.monotonic_s()
        waited = max(timedelta(), now - (record.queued_time or now))
        deadline = record.queue_deadline
        rest = None if record.not_before_time is None else record.not_before_time - now
        return Waiting(
            session_id=record.id,
            workload=record.workload,
            priority=record.priority,
            # Times of creation differ and never go back, so whoever asked first comes first.
            asked_s=record.create_time.timestamp(),
            waiting_s=now_s - waited.total_seconds(),
            deadline_s=None if deadline is None else now_s + (deadline - now).total_seconds(),
            deadline=deadline,
            avoided=frozenset(record.avoided_device_ids),
            ready_s=None if rest is None else now_s + min(rest, record.restart.longest_backoff).total_seconds(),
        )

    def leave(self, session_id: SessionId) -> None:
        """Forgets a session that does not wait any more."""
        self._line.remove(session_id)
        self._rooms.pop(session_id, None)
        self._messages.pop(session_id, None)

    def note_end(self) -> None:
        """Notes that a session gave its room back."""
        self._ends.note(self._clock.monotonic_s())
        self.wake()

    def figures(self) -> QueueFigures:
        """Counts what waits."""
        waiting = [*self._rooms.values(), *self._line]
        now_s = self._clock.monotonic_s()
        live_count = sum(one.priority is Priority.LIVE for one in waiting)
        return QueueFigures(
            live_count=live_count,
            batch_count=len(waiting) - live_count,
            max_sessions=self.settings.max_sessions,
            longest_wait=timedelta(seconds=max(now_s - one.waiting_s for one in waiting)) if waiting else None,
        )

    # ------------------------------------------------------------------------------------------------------ serving

    def wake(self) -> None:
        """Serves the queue once what is going on now is over, however often it is asked meanwhile."""
        if not self._woken and (self._line or self._rooms):
            self._woken = True
            asyncio.get_running_loop().call_soon(self._wake_up)

    def _wake_up(self) -> None:
        self._woken = False
        self.serve()

    def tick(self) -> None:
        """Serves the queue, to be called once a second: devices come back, waits end, estimates change."""
        if self._line or self._rooms:
            self._end_waits()
            self.serve()
            self._tell_standings()

    def serve(self) -> None:
        """Places whom it can."""
        for waiting in tuple(self._rooms.values()):
            self._serve_room(waiting)
        if len(self._line):
            self._line.serve(self._clock.monotonic_s(), self._decide)

    def _serve_room(self, waiting: Waiting) -> None:
        record = self._door.current(waiting.session_id)
        if record is None or record.reservation is None:
            self._rooms.pop(waiting.session_id, None)
            return
        fits = self._placer.fits(record.workload, record.reservation)
        if fits is None or (not fits and not self._room_comes_on(record.reservation.device_id)):
            # Its device is gone, or nobody is being stopped there, as after a restart in the middle: it is asked anew.
            del self._rooms[waiting.session_id]
            self._door.post(waiting.session_id, RoomLost())
            self._line.add(waiting)
        elif fits:
            self.leave(waiting.session_id)
            self._placer.settle(record.id, record.workload, record.reservation.device_id)
            self._door.post(waiting.session_id, Placed(reservation=record.reservation))

    def _room_comes_on(self, device_id: DeviceId) -> bool:
        return any(
            record.state is SessionState.STOPPING and record.settling is None and record.device_id == device_id
            for record in self._door.live()
        )

    def _decide(self, waiting: Waiting, closed: Mapping[DeviceId, Refusal]) -> Decision:
        decision = self._placer.place(waiting.session_id, waiting.workload, closed=closed)
        if decision.reservation is not None:
            self._messages.pop(waiting.session_id, None)
            self._door.post(waiting.session_id, Placed(reservation=decision.reservation), decision=decision)
            return decision
        self._messages[waiting.session_id] = _message(decision)
        now_s = self._clock.monotonic_s()
        if now_s < self._search_s:
            return decision
        room = self.room_for(waiting, decision)
        if room is None and waiting.priority is Priority.LIVE:
            # A search goes over everybody who may be stopped: not for everybody who waits at every end of a session.
            self._search_s = now_s + _SEARCH_PAUSE_S
        if room is not None:
            self._line.remove(waiting.session_id)
            self._rooms[waiting.session_id] = waiting
            assert room.reservation is not None, "room is a reservation"
            self._door.post(waiting.session_id, RoomKept(reservation=room.reservation), decision=room)
            for victim in room.preempted:
                self._door.post(victim, Preempted())
            return room
        return decision

    def _end_waits(self) -> None:
        now_s = self._clock.monotonic_s()
        for waiting in (*self._rooms.values(), *self._line):
            record = self._door.current(waiting.session_id)
            if record is None or record.state is not SessionState.QUEUED:
                self.leave(waiting.session_id)
            elif waiting.deadline_s is not None and now_s >= waiting.deadline_s:
                self._door.post(waiting.session_id, WaitEnded(deadline=waiting.deadline))

    def _tell_standings(self) -> None:
        now_s = self._clock.monotonic_s()
        remaining = remaining_times(self._door.live())
        interval = self._ends.interval(now_s)
        for place, waiting in enumerate((*self._rooms.values(), *self._line.ordered(now_s)), start=1):
            estimate = None
            if not _rests(waiting, now_s):
                estimate = estimated_wait(place, remaining=remaining, end_interval=interval)
            standing = QueueStanding(
                position=place,
                estimated_wait=None if estimate is None else -(-estimate // _ESTIMATES) * _ESTIMATES,
                message=_RESTS if _rests(waiting, now_s) else self._messages.get(waiting.session_id, _WAITS),
            )
            self._door.post(waiting.session_id, Ranked(standing=standing))


def _rests(waiting: Waiting, now_s: float) -> bool:
    return waiting.ready_s is not None and waiting.ready_s > now_s


def remaining_times(records: Sequence[SessionRecord]) -> list[timedelta]:
    """Gives how long sessions still run whose end can be told."""
    times = []
    for record in records:
        progress = record.progress
        if progress is not None and progress.total_time is not None and progress.speed:
            left = max(timedelta(), progress.total_time - progress.out_time)
            times.append(left / progress.speed)
    return times


def _message(decision: Decision) -> str:
    if decision.device_id is not None and not decision.preempted:
        return f"Sessions are ending on {decision.device_id}; their room is kept for it."
    if decision.preempted:
        count = len(decision.preempted)
        return f"{count} session{'s are' if count > 1 else ' is'} being stopped on {decision.device_id} to make room."
    return f"No device has room{told_refusals(decision)}."
