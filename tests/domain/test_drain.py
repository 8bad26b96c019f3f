"""Emptying a device, as far as it is a rule: who stays, what is told, and how long is left after a restart."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from balancer.domain.drain import DeviceDrain, DrainMode, Staying, moving_failure, staying, stopping_failure, told
from balancer.domain.ids import DeviceId
from balancer.domain.lifecycle import advance
from balancer.domain.reachability import UNREACHABLE
from balancer.domain.session import Condition, Progress, SessionRecord, SessionState
from balancer.domain.session_events import (
    AttemptMissing,
    AttemptOutcome,
    AttemptPhase,
    AttemptReported,
    StopRequested,
)
from fakes.session_records import session_record
from fakes.virtual_time import START_TIME

MINUTE = timedelta(minutes=1)


def running(done_s: int = 0, whole_s: int | None = None, **fields: object) -> SessionRecord:
    whole = None if whole_s is None else timedelta(seconds=whole_s)
    progress = Progress(frames=1, out_time=timedelta(seconds=done_s), total_time=whole)
    return session_record(state=SessionState.RUNNING, progress=progress, ingest_url=None, conditions=(), **fields)


UNANSWERED = Condition(type=UNREACHABLE, message="Nobody answers.", since_time=START_TIME)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (running(), None),
        (replace(running(), state=SessionState.STARTING, progress=None), None),
        (replace(running(), state=SessionState.STOPPING), Staying.ENDING),
        (replace(running(), state=SessionState.STOPPING, moving=moving_failure(DeviceId("a"))), Staying.MOVING),
        (replace(running(), conditions=(UNANSWERED,)), Staying.UNREACHABLE),
        (replace(running(), ingest_url="srt://here"), Staying.PUBLISHED),
        (running(50, 100), None),
        (running(51, 100), Staying.NEARLY_DONE),
        (running(9999, None), None),
        (running(99, 100, resumable=True), None),
    ],
)
def test_who_is_not_moved_and_why(record: SessionRecord, why: Staying | None) -> None:
    assert staying(record) is why


def test_every_reason_to_stay_is_told_with_its_number() -> None:
    message = told(DrainMode.MOVE, 8, [*Staying, Staying.NO_ROOM])
    for words in ("8 sessions are left", "1 on the way", "1 ending", "2 without room", "1 more than half done"):
        assert words in message
    assert told(DrainMode.WAIT, 1, []) == "Being emptied: 1 session is left, and not moved."
    assert told(DrainMode.MOVE, 2, []) == "Being emptied: 2 sessions are left."
    assert "until it is opened again" in told(DrainMode.MOVE, 0, [])


@pytest.mark.parametrize(
    ("later", "left"),
    [
        (timedelta(seconds=20), timedelta(seconds=40)),
        (timedelta(days=1), timedelta()),
        (timedelta(days=-1), MINUTE),
    ],
)
def test_a_wall_clock_that_was_set_makes_nobody_wait_longer_than_was_asked(later: timedelta, left: timedelta) -> None:
    drain = DeviceDrain(mode=DrainMode.WAIT, start_time=START_TIME, deadline_time=START_TIME + MINUTE, patience=MINUTE)
    assert drain.left(START_TIME + later) == left
    assert replace(drain, deadline_time=None, patience=None).left(START_TIME) is None


def test_whoever_was_stopped_for_it_is_told_so_however_the_end_is_heard_of() -> None:
    running_one = replace(running(), running_time=START_TIME)
    stopping, _ = advance(running_one, StopRequested(failure=stopping_failure(DeviceId("cpu-0"))), START_TIME)
    for event in (
        AttemptMissing(attempt=1),
        AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.STOPPED),
    ):
        ended, _ = advance(stopping, event, START_TIME)
        assert ended.state is SessionState.CANCELLED
        assert ended.failure is not None
        assert ended.failure.reason == "DEVICE_DRAINED"
    waiting = replace(running_one, state=SessionState.QUEUED, device_id=None, reservation=None)
    ended, _ = advance(waiting, StopRequested(failure=stopping.failure), START_TIME)
    assert (ended.state, ended.failure) == (SessionState.CANCELLED, stopping.failure)
