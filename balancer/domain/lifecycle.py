"""The life of a session as a pure, total function: `advance(record, event, now) -> (record, commands)`.

Every state × event cell is filled, because late and duplicate events are normal. Final states never change.
RUNNING means evidence: the agent reported the first encoded frame. A reservation is released only when the processes
are known to be gone, or known never to have been.

Ways that lead back to QUEUED are in `requeueing`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import assert_never

from balancer.domain.attempt_reports import with_end, with_report
from balancer.domain.endings import completed, completed_first, final, settled
from balancer.domain.ids import DeviceId
from balancer.domain.reachability import UNREACHABLE, heard, lost, silent
from balancer.domain.requeueing import (
    MOVING,
    PREEMPTED,
    WAY_CONDITIONS,
    begins_again,
    begins_elsewhere,
    ends_too_early,
    given_up,
    may_move,
    put_off,
    restarted,
    retried,
    used_up,
)
from balancer.domain.restart import INPUT_ENDED
from balancer.domain.session import PLACED, Condition, Failure, SessionRecord, SessionState
from balancer.domain.session_events import (
    AgentHeard,
    AgentLost,
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
    MoveRequested,
    Paced,
    PaceOnAgent,
    Placed,
    Preempted,
    Ranked,
    RoomKept,
    RoomLost,
    SessionEvent,
    StopForgotten,
    StopHeard,
    StopOnAgent,
    StopRequested,
    WaitEnded,
)

_WAITED_IN_VAIN = Failure(
    reason="QUEUE_TIMEOUT",
    message="Cannot start: no device had room while the session might wait. Try a longer wait, or ask for less.",
)

_ENDED_SHORT = frozenset({SessionState.FAILED, SessionState.CANCELLED})
_OWN_CONDITIONS = frozenset({UNREACHABLE}) | WAY_CONDITIONS

_LOST = Failure(
    reason="ATTEMPT_LOST",
    message="Cannot go on: the session's processes are gone and their agent does not know it. Try the session again.",
)
_INPUT_ENDED = Failure(reason=INPUT_ENDED, message="The live input ended by itself.")
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
    if changed.settling is not None and record.settling is None:
        commands = (*commands, *_stop(changed))
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
        case StopRequested() | MoveRequested():
            return _on_stop(record, event, now) if isinstance(event, StopRequested) else _on_move(record, event, now)
        case StopForgotten() | StopHeard():
            return _on_word_of_stop(record, event, now)
        case AgentSilent() | AgentHeard() | AgentLost() | Amended():
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
        not_before_time=None,
        # Not before: one that is stopped while it rests never began again.
        restart_count=record.restart_count + begins_again(record),
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
        case Ranked():
            return replace(record, standing=event.standing)
        case WaitEnded() if event.deadline == record.queue_deadline:
            failure = record.failure or _WAITED_IN_VAIN
            # One that devices could not begin has found no further one: that is a failure like any other.
            again = restarted(record, failure, now) if record.retry_count else None
            return again or completed_first(record, SessionState.FAILED, now, failure)
    return record


def _on_preempted(record: SessionRecord, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in (SessionState.STARTING, SessionState.RUNNING) or not record.preemptible:
        return record, ()
    message = "It gives way to live work, and begins anew when there is room again."
    condition = Condition(type=PREEMPTED, message=message, since_time=now)
    stopping = replace(record, state=SessionState.STOPPING, requeue=True, conditions=(*record.conditions, condition))
    return stopping, _stop(stopping)


def _on_paced(record: SessionRecord, event: Paced) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in PLACED or record.speed_limit == event.speed_limit:
        return record, ()
    return replace(record, speed_limit=event.speed_limit), _pace(record)


def _on_reported(
    record: SessionRecord, event: AttemptReported, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in PLACED or event.attempt != record.attempt:
        return record, _stop_stale(record, event)
    if record.settling is not None:
        return settled(record, event), ()
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
    return (stale_stop(record, device_id, event.attempt),)


def stale_stop(record: SessionRecord, device_id: DeviceId, attempt: int) -> StopOnAgent:
    """Gives what ends an attempt that is not a session's present one.

    Where a later one begins anew, nothing that it made may take the place of what that one makes. Of a session that has
    ended before a later one had begun it is all that there is, and kept.
    """
    next_attempt = record.attempt + (record.state is SessionState.QUEUED)
    all_there_is = record.state in _ENDED_SHORT and record.running_time is None
    earlier = attempt < next_attempt and not all_there_is
    return StopOnAgent(
        session_id=record.id,
        device_id=device_id,
        attempt=attempt,
        discard_outputs=earlier and not record.resumable,
        to_be_continued=earlier and record.resumable and not record.state.final and record.settling is None,
    )


def _ended(record: SessionRecord, event: AttemptReported, now: datetime) -> SessionRecord:
    told = replace(with_end(record, event), running_time=record.running_time or event.running_time)
    if event.outcome is not AttemptOutcome.COMPLETED and record.requeue:
        return given_up(told, now)
    # No agent sees an end before it was: a later instant is one of another clock, and would be kept for longer.
    end_time = min(event.end_time or now, now)
    match event.outcome:
        case AttemptOutcome.COMPLETED:
            if ends_too_early(told) and (again := restarted(told, _INPUT_ENDED, now)) is not None:
                return again
            return final(told, SessionState.SUCCEEDED, end_time)
        case AttemptOutcome.STOPPED:
            return final(told, SessionState.CANCELLED, end_time, told.failure)
        case AttemptOutcome.FAILED | None:
            return _failed(told, event.failure or _UNEXPLAINED, now, end_time)
        case _:
            assert_never(event.outcome)


def _failed(
    record: SessionRecord, failure: Failure, now: datetime, end_time: datetime | None = None, *, begun: bool = True
) -> SessionRecord:
    """Has a session whose attempt failed begin elsewhere, or again, or fail."""
    if (waiting := put_off(record, failure, now)) is not None:
        return waiting
    if begins_elsewhere(record, failure):
        return retried(record, failure, now)
    again = restarted(record, failure, now)
    return again or completed_first(record, SessionState.FAILED, end_time or now, used_up(record, failure), begun=begun)


def _on_accepted(record: SessionRecord, event: LaunchAccepted) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in PLACED or event.attempt != record.attempt:
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
    if event.attempt != record.attempt or record.settling is not None:
        return record, ()
    if record.state is SessionState.STARTING and record.running_time is None:
        return _failed(record, event.failure, now, begun=False), ()
    if record.state is SessionState.STOPPING and record.running_time is None:
        # Nothing was started, which is what was asked for.
        return _stopped(record, now), ()
    # Frames were reported: the refusal is of a repeated launch, or old.
    return record, ()


def _on_missing(
    record: SessionRecord, event: AttemptMissing, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in PLACED or event.attempt != record.attempt:
        return record, ()
    if record.state is SessionState.STOPPING:
        return _stopped(record, now), ()
    return _failed(record, _LOST, now), ()


def _stopped(record: SessionRecord, now: datetime) -> SessionRecord:
    if record.settling is not None:
        return completed(record, now)
    return given_up(record, now) if record.requeue else final(record, SessionState.CANCELLED, now, record.failure)


def _on_move(record: SessionRecord, event: MoveRequested, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state not in (SessionState.STARTING, SessionState.RUNNING) or record.device_id != event.device_id:
        return record, ()
    if not may_move(record, event.failure):
        return record, ()
    message = f"It leaves {record.device_id}: {event.failure.message}"
    condition = Condition(type=MOVING, message=message, since_time=now)
    stopping = replace(
        record,
        state=SessionState.STOPPING,
        requeue=True,
        moving=event.failure,
        conditions=(*record.conditions, condition),
    )
    return stopping, _stop(stopping)


def _on_stop(record: SessionRecord, event: StopRequested, now: datetime) -> tuple[SessionRecord, tuple[Command, ...]]:
    match record.state:
        case SessionState.QUEUED:
            stopping = replace(record, stop_requested=True)
            return completed_first(stopping, SessionState.CANCELLED, now, event.failure), ()
        case SessionState.STARTING | SessionState.RUNNING:
            stopping = replace(record, state=SessionState.STOPPING, stop_requested=True, failure=event.failure)
            return stopping, _stop(record)
        case SessionState.STOPPING:
            # Whoever was to be queued again is not, now that its end was asked for.
            kept = tuple(condition for condition in record.conditions if condition.type not in WAY_CONDITIONS)
            stopping = replace(record, stop_requested=True, requeue=False, moving=None, conditions=kept)
            return stopping, _stop(stopping)
        case SessionState.SUCCEEDED | SessionState.FAILED | SessionState.CANCELLED:
            return record, ()
        case _:
            assert_never(record.state)


def _on_word_of_stop(
    record: SessionRecord, event: StopForgotten | StopHeard, now: datetime
) -> tuple[SessionRecord, tuple[Command, ...]]:
    if record.state is not SessionState.STOPPING:
        return record, ()
    if isinstance(event, StopForgotten):
        return record, _stop(record)
    if record.settling is None or record.settling.attempt != event.attempt:
        return record, ()
    # What came of it may be told by a stream of its own, later than this.
    told = record if event.report is None else settled(record, event.report)
    return completed(told, now), ()


def _on_told(
    record: SessionRecord, event: AgentSilent | AgentHeard | AgentLost | Amended, now: datetime
) -> SessionRecord:
    match event:
        case AgentLost():
            if record.settling is not None and record.device_id == event.device_id:
                # What it has not completed by now stays in parts, as far as they are written.
                return completed(record, now)
            return lost(record, event, now)
        case AgentSilent():
            return silent(record, now)
        case AgentHeard():
            return heard(record)
        case Amended():
            return record if record.state.final else replace(record, payload=event.payload)
        case _:
            assert_never(event)


def _stop(record: SessionRecord) -> tuple[Command, ...]:
    if record.device_id is None:  # never: a placed session has one
        return ()
    kept = record.moving is not None and record.resumable
    command = StopOnAgent(
        session_id=record.id,
        device_id=record.device_id,
        attempt=record.attempt if record.settling is None else record.settling.attempt,
        discard_outputs=record.requeue and not kept,
        to_be_continued=record.requeue and kept,
    )
    return (command,)


def _pace(record: SessionRecord) -> tuple[Command, ...]:
    if record.device_id is None:
        return ()
    return (PaceOnAgent(session_id=record.id, device_id=record.device_id, attempt=record.attempt),)
