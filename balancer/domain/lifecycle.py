"""The life of a session as a pure, total function: `advance(record, event, now) -> (record, commands)`.

Every state × event cell is filled, because late and duplicate events are normal. Final states never change.
RUNNING means evidence: the agent reported the first encoded frame. A reservation is released only when the processes
are known to be gone, or known never to have been.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from balancer.domain.decision import Reservation
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import Condition, Failure, Progress, SessionRecord, SessionState

UNREACHABLE = "UNREACHABLE"
"""Type of the condition of a session whose agent does not answer. The balancer's own; agents never report it."""

_PLACED = frozenset({SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING})
"""States in which an attempt may live."""

_LOST = Failure(
    reason="ATTEMPT_LOST",
    message="Cannot go on: the session's processes are gone and their agent does not know it. Try the session again.",
)
_UNEXPLAINED = Failure(
    reason="UNEXPLAINED",
    message="Cannot tell why the session ended: its agent gave no reason. Try its log, and the agent's.",
)


class AttemptPhase(StrEnum):
    """Where an attempt stands on its agent."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A device took the session; its reservation is booked."""

    reservation: Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReported:
    """The agent told the whole truth about an attempt."""

    attempt: int
    phase: AttemptPhase
    outcome: AttemptOutcome | None = None
    failure: Failure | None = None
    progress: Progress | None = None
    conditions: tuple[Condition, ...] = ()
    ingest_url: str | None = None
    running_time: datetime | None = None
    end_time: datetime | None = None
    device_id: DeviceId | None = None
    """Whose agent told it; an attempt that moved on may live on another device. None: the session's device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchAccepted:
    """The agent took the attempt."""

    attempt: int
    ingest_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRefused:
    """The agent answered that it will not run the attempt; nothing was started."""

    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMissing:
    """The agent does not know the attempt although it was launched, and nothing of it runs."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """A client or the operator asked for the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSilent:
    """The agent of the session's device does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHeard:
    """The agent answers again."""


SessionEvent = (
    Placed
    | AttemptReported
    | LaunchAccepted
    | LaunchRefused
    | AttemptMissing
    | StopRequested
    | AgentSilent
    | AgentHeard
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOnAgent:
    """Start the attempt on its device's agent. Idempotent there."""

    session_id: SessionId
    device_id: DeviceId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOnAgent:
    """End the attempt on its device's agent. Idempotent there."""

    session_id: SessionId
    device_id: DeviceId
    attempt: int


Command = LaunchOnAgent | StopOnAgent


def advance(record: SessionRecord, event: SessionEvent, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    """Tells what an event makes of a session.

    Args:
        record: The session as it is.
        event: What happened. Late, repeated and contradictory events are welcome.
        now: Wall time, for ends and conditions that the event does not date itself.

    Returns:
        The session as it is then, and what is to be done once that is stored. The very same record when nothing
        changed; else its revision is higher by one.
    """
    match event:
        case Placed():
            # In the path of every admission, and always a change when it is one: copied once, not twice.
            return _on_placed(record, event)
        case AttemptReported():
            changed, commands = _on_reported(record, event, now)
        case LaunchAccepted():
            changed, commands = _on_accepted(record, event)
        case LaunchRefused():
            changed, commands = _on_refused(record, event, now)
        case AttemptMissing():
            changed, commands = _on_missing(record, event, now)
        case StopRequested():
            changed, commands = _on_stop(record, now)
        case AgentSilent():
            changed, commands = _on_silent(record, now), ()
        case AgentHeard():
            changed, commands = _on_heard(record), ()
        case _:
            assert_never(event)
    if changed is record or changed == record:
        return record, commands
    return replace(changed, revision=record.revision + 1), commands


def _on_placed(record: SessionRecord, event: Placed) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state is not SessionState.QUEUED:
        return record, ()
    device_id = event.reservation.device_id
    placed = replace(
        record,
        state=SessionState.STARTING,
        device_id=device_id,
        attempt=record.attempt + 1,
        reservation=event.reservation,
        revision=record.revision + 1,
    )
    return placed, (LaunchOnAgent(session_id=record.id, device_id=device_id, attempt=placed.attempt),)


def _on_reported(
    record: SessionRecord, event: AttemptReported, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in _PLACED or event.attempt != record.attempt:
        return record, _stop_stale(record, event)
    if event.phase is AttemptPhase.ENDED:
        return _ended(record, event, now), ()
    if event.phase is AttemptPhase.STARTING and record.running_time is not None:
        # Told before what is already known: whatever else it says is old, too.
        return record, ()
    changed = replace(
        record,
        progress=_further(record.progress, event.progress),
        conditions=_told_conditions(record, event.conditions),
        ingest_url=event.ingest_url or record.ingest_url,
    )
    if event.phase is AttemptPhase.RUNNING:
        state = SessionState.RUNNING if record.state is SessionState.STARTING else record.state
        running_time = record.running_time or event.running_time or now
        changed = replace(changed, state=state, running_time=running_time)
    return changed, ()


def _stop_stale(record: SessionRecord, event: AttemptReported) -> tuple[Command, ...]:
    """Ends an attempt that nothing is booked for any more: never two live attempts."""
    device_id = event.device_id or record.device_id
    if event.phase is AttemptPhase.ENDED or device_id is None:
        return ()
    return (StopOnAgent(session_id=record.id, device_id=device_id, attempt=event.attempt),)


def _ended(record: SessionRecord, event: AttemptReported, now: datetime) -> SessionRecord:
    told = replace(
        record,
        progress=_further(record.progress, event.progress),
        running_time=record.running_time or event.running_time,
    )
    end_time = event.end_time or now
    match event.outcome:
        case AttemptOutcome.COMPLETED:
            return _final(told, SessionState.SUCCEEDED, end_time)
        case AttemptOutcome.STOPPED:
            return _final(told, SessionState.CANCELLED, end_time)
        case AttemptOutcome.FAILED | None:
            return _final(told, SessionState.FAILED, end_time, event.failure or _UNEXPLAINED)
        case _:
            assert_never(event.outcome)


def _on_accepted(record: SessionRecord, event: LaunchAccepted) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in _PLACED or event.attempt != record.attempt:
        # An attempt accepted for nothing shows itself in the agent's events, and is stopped then.
        return record, ()
    news = event.ingest_url is not None and event.ingest_url != record.ingest_url
    changed = replace(record, ingest_url=event.ingest_url) if news else record
    # A stop may have overtaken its launch; said again, it cannot be lost.
    return changed, _stop(record) if record.state is SessionState.STOPPING else ()


def _on_refused(
    record: SessionRecord, event: LaunchRefused, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if event.attempt != record.attempt:
        return record, ()
    if record.state is SessionState.STARTING:
        return _final(record, SessionState.FAILED, now, event.failure), ()
    if record.state is SessionState.STOPPING and record.running_time is None:
        # Nothing was started, which is what was asked for.
        return _final(record, SessionState.CANCELLED, now), ()
    # Frames were reported: the refusal is of a repeated launch, or old.
    return record, ()


def _on_missing(
    record: SessionRecord, event: AttemptMissing, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in _PLACED or event.attempt != record.attempt:
        return record, ()
    if record.state is SessionState.STOPPING:
        return _final(record, SessionState.CANCELLED, now), ()
    return _final(record, SessionState.FAILED, now, _LOST), ()


def _on_stop(record: SessionRecord, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    match record.state:
        case SessionState.QUEUED:
            return _final(replace(record, stop_requested=True), SessionState.CANCELLED, now), ()
        case SessionState.STARTING | SessionState.RUNNING:
            return replace(record, state=SessionState.STOPPING, stop_requested=True), _stop(record)
        case SessionState.STOPPING:
            return record, _stop(record)
        case SessionState.SUCCEEDED | SessionState.FAILED | SessionState.CANCELLED:
            return record, ()
        case _:
            assert_never(record.state)


def _on_silent(record: SessionRecord, now: datetime) -> SessionRecord:
    if record.state not in _PLACED or any(condition.type == UNREACHABLE for condition in record.conditions):
        return record
    message = f"The agent of {record.device_id} does not answer; the session may well be running on."
    condition = Condition(type=UNREACHABLE, message=message, since_time=now)
    return replace(record, conditions=(*record.conditions, condition))


def _on_heard(record: SessionRecord) -> SessionRecord:
    left = tuple(condition for condition in record.conditions if condition.type != UNREACHABLE)
    return replace(record, conditions=left)


def _stop(record: SessionRecord) -> tuple[Command, ...]:
    # A placed session always has a device.
    if record.device_id is None:
        return ()
    return (StopOnAgent(session_id=record.id, device_id=record.device_id, attempt=record.attempt),)


def _final(
    record: SessionRecord, state: SessionState, end_time: datetime, failure: Failure | None = None
) -> SessionRecord:
    """Ends a session whose processes are known to be gone, or known never to have been."""
    return replace(
        record,
        state=state,
        reservation=None,
        conditions=(),
        failure=failure,
        ingest_url=None,
        end_time=end_time,
    )


def _further(known: Progress | None, told: Progress | None) -> Progress | None:
    """Gives the progress that is further on: within an attempt it never goes back, whatever comes late."""
    if told is None or (known is not None and (told.frames, told.out_time) < (known.frames, known.out_time)):
        return known
    return told


def _told_conditions(record: SessionRecord, told: tuple[Condition, ...]) -> tuple[Condition, ...]:
    """Puts the agent's conditions beside the balancer's own; one that goes on being true keeps its time."""
    since = {condition.type: condition.since_time for condition in record.conditions}
    own = tuple(condition for condition in record.conditions if condition.type == UNREACHABLE)
    return own + tuple(
        replace(condition, since_time=since.get(condition.type, condition.since_time))
        for condition in told
        if condition.type != UNREACHABLE
    )
