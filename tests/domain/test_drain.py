"""Emptying a device, as far as it is a rule: who stays, what is told, and how long is left after a restart."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from balancer.domain.attempt_reports import failure_to_begin
from balancer.domain.drain import DeviceDrain, DrainMode, Staying, moving_failure, staying, stopping_failure, told
from balancer.domain.ids import DeviceId
from balancer.domain.reachability import UNREACHABLE
from balancer.domain.session import Condition, Progress, SessionRecord, SessionState
from balancer.domain.session_events import AgentLost, AttemptPhase, AttemptReported, StopRequested
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


def test_what_we_end_ourselves_did_not_fail_to_begin() -> None:
    """A device must not be blamed for what left it because it is being emptied."""
    starting = session_record(state=SessionState.STARTING, running_time=None, failure=None)
    stopping = replace(starting, state=SessionState.STOPPING, failure=stopping_failure(DeviceId("cpu-0")))
    told_at_last = AttemptReported(attempt=1, phase=AttemptPhase.ENDED)
    assert failure_to_begin(starting, StopRequested(failure=stopping.failure), stopping) is None
    leaving = replace(starting, state=SessionState.STOPPING, requeue=True, moving=moving_failure(DeviceId("cpu-0")))
    left = replace(leaving, state=SessionState.QUEUED, failure=leaving.moving)
    assert failure_to_begin(leaving, told_at_last, left) is None
    failed = replace(starting, state=SessionState.FAILED, failure=stopping.failure)
    assert failure_to_begin(starting, told_at_last, failed) is failed.failure
    lost = AgentLost(device_id=DeviceId("cpu-0"), silence=MINUTE)
    assert failure_to_begin(starting, lost, replace(failed, state=SessionState.QUEUED)) is None
