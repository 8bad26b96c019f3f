"""The ways that lead a session back to QUEUED, where its next attempt is placed like any other session.

It gave way to work in real time; its device could not begin it; it failed, and its rule lets it begin again; or it is
moved, because its device is sick, lost or being emptied. What is resumable goes on from what earlier attempts made,
except after giving way, which throws that away.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from balancer.domain.restart import PASSING_REASONS, RestartMode, row_after
from balancer.domain.session import Condition, EndedAttempt, Failure, LastRestart, SessionRecord, SessionState

PREEMPTED = "PREEMPTED"
"""Type of the condition of a session that gives way to work in real time, until it is placed again."""
MOVING = "MOVING"
"""The same of one that goes on elsewhere."""
RESTARTING = "RESTARTING"
"""The same of one that failed and begins again."""
WAY_CONDITIONS = frozenset({PREEMPTED, MOVING, RESTARTING})

RETRIES = 2
"""Further attempts of a session that devices could not begin."""

MOST_CONTINUED = 200
"""Earlier attempts that are kept in mind. Each has what it took over of those before it; a channel that is published to
every hour would else outgrow every message within a year."""

_RETRY_WAIT = timedelta(seconds=10)
"""How long such a session waits for another device, if its client would not have waited longer."""
_DISK_REST = timedelta(seconds=15)
"""How long a session rests that found the disk full."""
_RESTART_WAIT = timedelta(minutes=5)
"""How long a session that restarts or moves waits for room, its rest not counted."""
NOT_BEGUN = frozenset(
    {
        *("ENCODER_SESSION_LIMIT", "ENCODER_UNAVAILABLE", "DEVICE_LOST", "DEVICE_MEMORY", "FFMPEG_CRASHED"),
        *("DISPLAY_TIMEOUT", "DISPLAY_FAILED", "BROWSER_FAILED", "BROWSER_MISSING", "RECORDING_UNAVAILABLE"),
        *("DEVICE_UNHEALTHY", "ENGINE_FAULT", "DISK_LOW"),
    }
)
"""Failures before the first frame that another device may not have, so that the device may be to blame. What is wrong
with an input or a page is wrong everywhere."""
_LEAST_LEFT = timedelta(seconds=2)
"""A live input that ends so shortly before the longest time is over has run for as long as it was to."""


def preempted(record: SessionRecord, now: datetime) -> SessionRecord:
    """Queues a session again whose attempt was ended for the sake of others."""
    anew = replace(record, ended_attempts=(), resumable=False)
    waiting = _requeued(anew, now)
    return replace(
        waiting,
        resumable=record.resumable,
        ran_for=timedelta(),
        preemption_count=record.preemption_count + 1,
    )


def begins_elsewhere(record: SessionRecord, failure: Failure) -> bool:
    """Tells whether another device is tried after a failure before the first frame."""
    return (
        failure.reason in NOT_BEGUN
        and record.running_time is None
        and not record.stop_requested
        and record.retry_count < RETRIES
    )


def retried(record: SessionRecord, failure: Failure, now: datetime) -> SessionRecord:
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


def put_off(record: SessionRecord, failure: Failure, now: datetime) -> SessionRecord | None:
    """Queues a session again that found the disk full, for as long as its client lets it wait.

    Not another device is to be found, but room: else a full disk would fail everybody who waits, one after the other.

    Returns:
        The session; the failure is told if it waits in vain. None: that is not its failure, or it may not wait.
    """
    deadline = record.queue_deadline
    if failure.reason != "DISK_LOW" or record.running_time is not None or record.stop_requested:
        return None
    if deadline is None or deadline <= now + _DISK_REST:
        return None
    waiting = _requeued(record, now)
    return replace(waiting, failure=failure, not_before_time=now + _DISK_REST, queue_deadline=deadline)


def restarted(record: SessionRecord, failure: Failure, now: datetime) -> SessionRecord | None:
    """Queues a session again that failed, to begin after a rest.

    Returns:
        The session. None: its rule does not let it, or it has begun again too often.
    """
    rule = record.restart
    row = row_after(record.restart_row, _ran(record))
    counts = rule.counts(failure.reason) or _did_not_arrive(record, failure)
    if record.stop_requested or not counts or row >= rule.max_restarts:
        return None
    rest = rule.backoff(row)
    message = (
        f"Attempt {record.attempt} ended: {failure.message.rstrip('.')}. It begins again after "
        f"{rest.total_seconds():g} s; restart {row + 1} of {rule.max_restarts}."
    )
    waiting = _again(record, failure, now, Condition(type=RESTARTING, message=message, since_time=now))
    return replace(waiting, restart_row=row + 1, not_before_time=now + rest, queue_deadline=now + rest + _RESTART_WAIT)


def _did_not_arrive(record: SessionRecord, failure: Failure) -> bool:
    """Tells whether a session that was moved, or began again, has not got going since, for a reason that may pass.

    It ran before, and a source may take a moment to be there for the next attempt: whoever moved it did not end it.
    """
    return record.last_restart is not None and record.running_time is None and failure.reason in PASSING_REASONS


def ends_too_early(record: SessionRecord) -> bool:
    """Tells whether a session whose input ended by itself goes on all the same, with the next attempt."""
    if record.restart.mode is not RestartMode.ALWAYS or not record.resumable or record.stop_requested:
        return False
    if record.max_duration is None:
        return True
    return record.ran_for + (_ran(record) or timedelta()) < record.max_duration - _LEAST_LEFT


def may_move(record: SessionRecord, failure: Failure) -> bool:
    """Tells whether a session leaves its device for a reason: an operator's wish, or one that its rule counts."""
    return failure.reason == "DEVICE_DRAINED" or record.restart.counts(failure.reason)


def moved(record: SessionRecord, failure: Failure, now: datetime) -> SessionRecord:
    """Queues a session again that leaves its device, to go on at once. It does not count as a restart of the row."""
    message = f"Attempt {record.attempt} left {record.device_id}: {failure.message}"
    waiting = _again(record, failure, now, Condition(type=MOVING, message=message, since_time=now))
    return replace(waiting, queue_deadline=now + _RESTART_WAIT)


def given_up(record: SessionRecord, now: datetime) -> SessionRecord:
    """Queues a session again whose attempt was to end for that."""
    return preempted(record, now) if record.moving is None else moved(record, record.moving, now)


def begins_again(record: SessionRecord) -> bool:
    """Tells whether the attempt that a queued session gets next is a restart, or a move."""
    return any(condition.type in (RESTARTING, MOVING) for condition in record.conditions)


def used_up(record: SessionRecord, failure: Failure) -> Failure:
    """Adds to a failure that it was not the first, where restarts came before."""
    if not record.restart_row or record.stop_requested:
        return failure
    times = "once" if record.restart_row == 1 else f"{record.restart_row} times"
    return replace(failure, message=f"{failure.message} It was begun again {times} before.")


def _again(record: SessionRecord, failure: Failure, now: datetime, condition: Condition) -> SessionRecord:
    note = record.last_restart
    if record.device_id is not None:
        note = LastRestart(attempt=record.attempt, device_id=record.device_id, failure=failure, restart_time=now)
    return replace(
        _requeued(record, now),
        failure=failure,
        conditions=(condition,),
        last_restart=note,
        # It was given another chance; devices that could not begin it then may do so by now.
        retry_count=0,
        avoided_device_ids=(),
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
        moving=None,
        folder="",
        earlier_device_ids=earlier,
        ended_attempts=_continued(record),
        ran_for=record.ran_for + (_ran(record) or timedelta()) if record.resumable else timedelta(),
        queued_time=now,
        queue_deadline=None,
        not_before_time=None,
        conditions=tuple(condition for condition in record.conditions if condition.type == PREEMPTED),
        progress=None,
        ingest_url=None,
        running_time=None,
        speed_limit=None,
        measured_use=None,
        recording_report=None,
    )


def _continued(record: SessionRecord) -> tuple[EndedAttempt, ...]:
    """Gives what the next attempt continues: this one's folder has what it took over, even if it did not begin."""
    if not record.resumable or record.device_id is None:
        return ()
    return (*record.ended_attempts, *attempt_of(record))[-MOST_CONTINUED:]


def attempt_of(record: SessionRecord) -> tuple[EndedAttempt, ...]:
    """Gives a session's present attempt, if it has one, as one that has ended."""
    if record.device_id is None:
        return ()
    return (EndedAttempt(attempt=record.attempt, device_id=record.device_id, folder=record.folder),)


def _ran(record: SessionRecord) -> timedelta | None:
    """Gives how long the present attempt ran, in media time, which no clock that is set can change."""
    return None if record.progress is None else record.progress.out_time
