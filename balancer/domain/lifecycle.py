"""The life of a session as a pure, total function: `advance(record, event, now) -> (record, commands)`.

Every state × event cell is filled, because late and duplicate events are normal. Final states never change.
RUNNING means evidence: the agent reported the first encoded frame. A reservation is released only when the processes
are known to be gone, or known never to have been.

Two ways lead back to QUEUED: an attempt that was stopped for the sake of work in real time, and one that its device
could not begin. The next attempt begins anew.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import assert_never

from balancer.domain.attempt_reports import with_end, with_report
from balancer.domain.session import Condition, Failure, SessionRecord, SessionState
from balancer.domain.session_events import (
    AgentHeard,
    AgentSilent,
    Amended,
    AttemptMissing,
    AttemptOutcome,
    AttemptPhase,
    AttemptReported,
    Command,
    LaunchAccepted,
    LaunchOnAgent,
    LaunchRefused,
    Paced,
    PaceOnAgent,
    Placed,
    Preempted,
    Ranked,
    RoomKept,
    RoomLost,
    SessionEvent,
    StopForgotten,
    StopOnAgent,
    StopRequested,
    WaitEnded,
)

UNREACHABLE = "UNREACHABLE"
"""Type of the condition of a session whose agent does not answer. The balancer's own; agents never report it."""

RETRIES = 2
"""Further attempts of a session that devices could not begin."""

_RETRY_WAIT = timedelta(seconds=10)
"""How long such a session waits for another device, if its client would not have waited longer."""
_NO_DISK = "DISK_LOW"
"""An agent's refusal that holds for its own disk alone."""
_NOT_BEGUN = frozenset(
    {
        _NO_DISK,
        *("ENCODER_SESSION_LIMIT", "ENCODER_UNAVAILABLE", "DEVICE_LOST", "DEVICE_MEMORY", "FFMPEG_CRASHED"),
        *("DISPLAY_TIMEOUT", "DISPLAY_FAILED", "BROWSER_FAILED", "BROWSER_MISSING", "RECORDING_UNAVAILABLE"),
    }
)
"""Failures before the first frame that another device may not have. What is wrong with a page is wrong everywhere."""
_WAITED_IN_VAIN = Failure(
    reason="QUEUE_TIMEOUT",
    message="Cannot start: no device had room while the session might wait. Try a longer wait, or ask for less.",
)

PREEMPTED = "PREEMPTED"
"""The same of a session that gives way to work in real time, until it is placed again."""
_OWN_CONDITIONS = frozenset({UNREACHABLE, PREEMPTED})

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
    if isinstance(event, Placed):
        # In the path of every admission, and always a change when it is one: copied once, not twice.
        return _on_placed(record, event)
    changed, commands = _changed(record, event, now)
    if changed is record or changed == record:
        return record, commands
    return replace(changed, revision=record.revision + 1), commands


def _changed(record: SessionRecord, event: SessionEvent, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    match event:
        case Placed():
            return _on_placed(record, event)
        case RoomKept() | RoomLost() | WaitEnded() | Ranked():
            return _on_waiting(record, event, now), ()
        case Preempted():
            return _on_preempted(record, now)
        case Paced():
            return _on_paced(record, event)
        case AttemptReported():
            return _on_reported(record, event, now)
        case LaunchAccepted():
            return _on_accepted(record, event)
        case LaunchRefused():
            return _on_refused(record, event, now)
        case AttemptMissing():
            return _on_missing(record, event, now)
        case StopRequested():
            return _on_stop(record, now)
        case StopForgotten():
            return record, _stop(record) if record.state is SessionState.STOPPING else ()
        case AgentSilent() | AgentHeard() | Amended():
            return _on_told(record, event, now), ()
        case _:
            assert_never(event)


def _on_placed(record: SessionRecord, event: Placed) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state is not SessionState.QUEUED:
        return record, ()
    placed = replace(
        record,
        state=SessionState.STARTING,
        device_id=event.reservation.device_id,
        attempt=record.attempt + 1,
        reservation=event.reservation,
        queue_deadline=None,
        standing=None,
        failure=None,
        conditions=(),
        revision=record.revision + 1,
    )
    return placed, launch_of(placed)


def launch_of(record: SessionRecord) -> tuple[Command, ...]:
    """Gives what is to be done once a session's placement is stored: nothing when it has no device."""
    if record.device_id is None:
        return ()
    return (LaunchOnAgent(session_id=record.id, device_id=record.device_id, attempt=record.attempt),)


def _on_waiting(record: SessionRecord, event: RoomKept | RoomLost | WaitEnded | Ranked, now: datetime) -> SessionRecord:
    if record.state is not SessionState.QUEUED:
        return record
    match event:
        case RoomKept():
            return replace(record, reservation=event.reservation)
        case RoomLost():
            return replace(record, reservation=None)
        case WaitEnded():
            return _final(record, SessionState.FAILED, now, record.failure or _WAITED_IN_VAIN)
        case Ranked():
            return replace(record, standing=event.standing)


def _on_preempted(record: SessionRecord, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in (SessionState.STARTING, SessionState.RUNNING) or not record.preemptible:
        return record, ()
    message = "It gives way to live work, and begins anew when there is room again."
    condition = Condition(type=PREEMPTED, message=message, since_time=now)
    stopping = replace(record, state=SessionState.STOPPING, requeue=True, conditions=(*record.conditions, condition))
    return stopping, _stop(stopping)


def _on_paced(record: SessionRecord, event: Paced) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in _PLACED or record.speed_limit == event.speed_limit:
        return record, ()
    return replace(record, speed_limit=event.speed_limit), _pace(record)


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
    changed = with_report(record, event, _OWN_CONDITIONS)
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
    told = replace(with_end(record, event), running_time=record.running_time or event.running_time)
    if event.outcome is not AttemptOutcome.COMPLETED and record.requeue:
        return _preempted(told, now)
    if event.outcome is AttemptOutcome.FAILED and event.failure is not None and _begins_elsewhere(told, event.failure):
        return _retried(told, event.failure, now)
    # No agent sees an end before it was: a later instant is one of another clock, and would be kept for longer.
    end_time = min(event.end_time or now, now)
    match event.outcome:
        case AttemptOutcome.COMPLETED:
            return _final(told, SessionState.SUCCEEDED, end_time)
        case AttemptOutcome.STOPPED:
            return _final(told, SessionState.CANCELLED, end_time)
        case AttemptOutcome.FAILED | None:
            return _final(told, SessionState.FAILED, end_time, event.failure or _UNEXPLAINED)
        case _:
            assert_never(event.outcome)


def _preempted(record: SessionRecord, now: datetime) -> SessionRecord:
    """Queues a session again whose attempt was ended for the sake of others."""
    return replace(_requeued(record, now), preemption_count=record.preemption_count + 1)


def _begins_elsewhere(record: SessionRecord, failure: Failure) -> bool:
    return (
        failure.reason in _NOT_BEGUN
        and record.running_time is None
        and not record.stop_requested
        and record.retry_count < RETRIES
    )


def _retried(record: SessionRecord, failure: Failure, now: datetime) -> SessionRecord:
    """Queues a session again that its device could not begin. The failure is told if nothing else takes it."""
    avoided = record.avoided_device_ids
    if record.device_id is not None and record.device_id not in avoided:
        avoided = (*avoided, record.device_id)
    return replace(
        _requeued(record, now),
        failure=failure,
        retry_count=record.retry_count + 1,
        avoided_device_ids=avoided,
        queue_deadline=now + _RETRY_WAIT,
    )


def _requeued(record: SessionRecord, now: datetime) -> SessionRecord:
    earlier = record.earlier_device_ids
    if record.device_id is not None and record.device_id not in earlier:
        earlier = (*earlier, record.device_id)
    return replace(
        record,
        state=SessionState.QUEUED,
        device_id=None,
        reservation=None,
        requeue=False,
        earlier_device_ids=earlier,
        queued_time=now,
        queue_deadline=None,
        conditions=tuple(condition for condition in record.conditions if condition.type == PREEMPTED),
        progress=None,
        ingest_url=None,
        running_time=None,
        speed_limit=None,
        measured_use=None,
        recording_report=None,
    )


def _on_accepted(record: SessionRecord, event: LaunchAccepted) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in _PLACED or event.attempt != record.attempt:
        # An attempt accepted for nothing shows itself in the agent's events, and is stopped then.
        return record, ()
    news = event.ingest_url is not None and event.ingest_url != record.ingest_url
    changed = replace(record, ingest_url=event.ingest_url) if news else record
    # A stop, or a pace, may have overtaken its launch; said again, it cannot be lost.
    if record.state is SessionState.STOPPING:
        return changed, _stop(record)
    return changed, _pace(record) if record.speed_limit is not None else ()


def _on_refused(
    record: SessionRecord, event: LaunchRefused, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if event.attempt != record.attempt:
        return record, ()
    if record.state is SessionState.STARTING:
        if event.failure.reason == _NO_DISK and _begins_elsewhere(record, event.failure):
            return _retried(record, event.failure, now), ()
        return _final(record, SessionState.FAILED, now, event.failure), ()
    if record.state is SessionState.STOPPING and record.running_time is None:
        # Nothing was started, which is what was asked for.
        return _stopped(record, now), ()
    # Frames were reported: the refusal is of a repeated launch, or old.
    return record, ()


def _on_missing(
    record: SessionRecord, event: AttemptMissing, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in _PLACED or event.attempt != record.attempt:
        return record, ()
    if record.state is SessionState.STOPPING:
        return _stopped(record, now), ()
    return _final(record, SessionState.FAILED, now, _LOST), ()


def _stopped(record: SessionRecord, now: datetime) -> SessionRecord:
    return _preempted(record, now) if record.requeue else _final(record, SessionState.CANCELLED, now)


def _on_stop(record: SessionRecord, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    match record.state:
        case SessionState.QUEUED:
            return _final(replace(record, stop_requested=True), SessionState.CANCELLED, now), ()
        case SessionState.STARTING | SessionState.RUNNING:
            return replace(record, state=SessionState.STOPPING, stop_requested=True), _stop(record)
        case SessionState.STOPPING:
            # Whoever was to be queued again is not, now that its end was asked for.
            kept = tuple(condition for condition in record.conditions if condition.type != PREEMPTED)
            stopping = replace(record, stop_requested=True, requeue=False, conditions=kept)
            return stopping, _stop(stopping)
        case SessionState.SUCCEEDED | SessionState.FAILED | SessionState.CANCELLED:
            return record, ()
        case _:
            assert_never(record.state)


def _on_told(record: SessionRecord, event: AgentSilent | AgentHeard | Amended, now: datetime) -> SessionRecord:
    match event:
        case AgentSilent():
            return _on_silent(record, now)
        case AgentHeard():
            return _on_heard(record)
        case Amended():
            return record if record.state.final else replace(record, payload=event.payload)
        case _:
            assert_never(event)


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
    if record.device_id is None:  # never: a placed session has one
        return ()
    command = StopOnAgent(
        session_id=record.id, device_id=record.device_id, attempt=record.attempt, discard_outputs=record.requeue
    )
    return (command,)


def _pace(record: SessionRecord) -> tuple[Command, ...]:
    if record.device_id is None:
        return ()
    return (PaceOnAgent(session_id=record.id, device_id=record.device_id, attempt=record.attempt),)


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
        requeue=False,
        standing=None,
        speed_limit=None,
    )
