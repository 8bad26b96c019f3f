"""The life of a session: every state × event cell, and the laws that hold in all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.lifecycle import advance
from balancer.domain.placement import Reservation
from balancer.domain.requeueing import RETRIES
from balancer.domain.restart import LOST_REASONS, NO_RESTART, RestartMode, RestartRule
from balancer.domain.session import (
    Condition,
    EndedAttempt,
    Failure,
    LastRestart,
    MeasuredUse,
    Priority,
    Progress,
    QueueStanding,
    SessionRecord,
    SessionState,
    Settling,
)
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
from balancer.domain.workload import Workload

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
EARLIER = NOW - timedelta(minutes=5)
SESSION = SessionId("s-1")
DEVICE = DeviceId("GPU-1")
OTHER_DEVICE = DeviceId("GPU-2")
ATTEMPT = 2
FAILURE = Failure(reason="DISK_FULL", message="Cannot write: the disk is full.")
RESERVATION = Reservation(device_id=DEVICE, cost_pixels_per_second=7, device_amounts={}, host_amounts={})

QUEUED, STARTING, RUNNING, STOPPING, SUCCEEDED, FAILED, CANCELLED = SessionState


def record_in(state: SessionState) -> SessionRecord:
    """Makes a session in a state, as the ways of life leave it there."""
    waiting = SessionRecord(
        id=SESSION,
        state=QUEUED,
        payload=b"",
        priority=Priority.LIVE,
        workload=Workload(
            decode=None, scale_pixels_per_second=0, encodes=(), real_time=True, allow_software_encode=False
        ),
        create_time=EARLIER,
        attempt=ATTEMPT - 1,
        preemptible=True,
        revision=7,
    )
    if state is QUEUED:
        return waiting
    placed = replace(waiting, state=state, device_id=DEVICE, attempt=ATTEMPT)
    if state.final:
        return replace(placed, end_time=EARLIER, failure=FAILURE if state is FAILED else None)
    started = None if state is STARTING else EARLIER
    return replace(placed, reservation=RESERVATION, running_time=started, stop_requested=state is STOPPING)


def reported(
    phase: AttemptPhase,
    outcome: AttemptOutcome | None = None,
    *,
    attempt: int = ATTEMPT,
    failure: Failure | None = None,
    device_id: DeviceId | None = None,
) -> AttemptReported:
    """Makes an agent's report without further news."""
    return AttemptReported(attempt=attempt, phase=phase, outcome=outcome, failure=failure, device_id=device_id)


ENDED, LIVE = AttemptPhase.ENDED, AttemptPhase.RUNNING
NEW_PLACE = Placed(reservation=replace(RESERVATION, device_id=OTHER_DEVICE))

DRAINED = Failure(reason="DEVICE_DRAINED", message="The device is being emptied.")
SICK = Failure(reason="DEVICE_UNHEALTHY", message="The device has failed: XID 79.")
STANDING = QueueStanding(position=3, estimated_wait=None, message="Waits.")
UNHEALTHY = Failure(reason="DEVICE_UNHEALTHY", message="Cannot use it: the driver says so.")
NOT_BEGUN = Failure(reason="DEVICE_LOST", message="Cannot use the GPU: it is lost.")

# One row per event, one cell per state, in the order of SessionState: the state afterwards ("." unchanged) and the
# commands: ! stops the record's attempt, - stops it and throws away what it made, ? stops the reported one, ^ launches,
# ~ paces.
CELLS: dict[str, tuple[SessionEvent, str]] = {
    # ------------------------------------------------------------- QUEUED STARTING RUNNING STOPPING SUCC FAIL CANC
    "placed": (NEW_PLACE, "starting^ . . . . . ."),
    "starting": (reported(AttemptPhase.STARTING), ".? . . . .? .? .?"),
    "running": (reported(LIVE), ".? running . . .? .? .?"),
    "completed": (reported(ENDED, AttemptOutcome.COMPLETED), ". succeeded succeeded succeeded . . ."),
    "stopped": (reported(ENDED, AttemptOutcome.STOPPED), ". cancelled cancelled cancelled . . ."),
    "failed": (reported(ENDED, AttemptOutcome.FAILED, failure=FAILURE), ". failed failed failed . . ."),
    "ended unexplained": (reported(ENDED), ". failed failed failed . . ."),
    "older starting": (reported(AttemptPhase.STARTING, attempt=1), ".? .? .? .? .? .? .?"),
    "older running": (reported(LIVE, attempt=1), ".? .? .? .? .? .? .?"),
    "older ended": (reported(ENDED, AttemptOutcome.COMPLETED, attempt=1), ". . . . . . ."),
    "newer running": (reported(LIVE, attempt=3), ".? .? .? .? .? .? .?"),
    "newer ended": (reported(ENDED, AttemptOutcome.FAILED, attempt=3), ". . . . . . ."),
    "accepted": (LaunchAccepted(attempt=ATTEMPT), ". . . .! . . ."),
    "older accepted": (LaunchAccepted(attempt=1), ". . . . . . ."),
    "refused": (LaunchRefused(attempt=ATTEMPT, failure=FAILURE), ". failed . . . . ."),
    "refused, unhealthy": (LaunchRefused(attempt=ATTEMPT, failure=UNHEALTHY), ". queued . . . . ."),
    "older refused": (LaunchRefused(attempt=1, failure=FAILURE), ". . . . . . ."),
    "missing": (AttemptMissing(attempt=ATTEMPT), ". failed failed cancelled . . ."),
    "older missing": (AttemptMissing(attempt=1), ". . . . . . ."),
    "stop": (StopRequested(), "cancelled stopping! stopping! .! . . ."),
    "room kept": (RoomKept(reservation=NEW_PLACE.reservation), "queued . . . . . ."),
    "room lost": (RoomLost(), ". . . . . . ."),
    "wait ended": (WaitEnded(deadline=None), "failed . . . . . ."),
    "earlier wait ended": (WaitEnded(deadline=NOW), ". . . . . . ."),
    "ranked": (Ranked(standing=STANDING), "queued . . . . . ."),
    "preempted": (Preempted(), ". stopping- stopping- . . . ."),
    "paced": (Paced(speed_limit=Fraction(1, 2)), ". starting~ running~ stopping~ . . ."),
    "unpaced": (Paced(speed_limit=None), ". . . . . . ."),
    "not begun": (reported(ENDED, AttemptOutcome.FAILED, failure=NOT_BEGUN), ". queued failed failed . . ."),
    "amended": (Amended(payload=b"more time"), "queued starting running stopping . . ."),
    "stop forgotten": (StopForgotten(), ". . . .! . . ."),
    "stop heard": (StopHeard(attempt=ATTEMPT), ". . . . . . ."),
    "silent": (AgentSilent(), ". starting running stopping . . ."),
    "heard": (AgentHeard(), ". . . . . . ."),
    "lost": (AgentLost(device_id=DEVICE, silence=timedelta(minutes=2)), ". . . . . . ."),
    "moved": (MoveRequested(device_id=DEVICE, failure=DRAINED), ". stopping- stopping- . . . ."),
    "moved by no rule": (MoveRequested(device_id=DEVICE, failure=SICK), ". . . . . . ."),
    "moved from elsewhere": (MoveRequested(device_id=OTHER_DEVICE, failure=DRAINED), ". . . . . . ."),
}


def wait_ended(record: SessionRecord) -> WaitEnded:
    """Has a session's present wait end."""
    return WaitEnded(deadline=record.queue_deadline)


def commands_of(marks: str, event: SessionEvent) -> tuple[Command, ...]:
    """Spells out the marks of a cell."""
    if marks == "!":
        return (StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT),)
    if marks == "-":
        return (StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT, discard_outputs=True),)
    if marks == "~":
        return (PaceOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT),)
    if marks == "?":
        assert isinstance(event, AttemptReported)
        anew = event.attempt < ATTEMPT
        command = StopOnAgent(session_id=SESSION, device_id=OTHER_DEVICE, attempt=event.attempt, discard_outputs=anew)
        return (command,)
    if marks == "^":
        return (LaunchOnAgent(session_id=SESSION, device_id=OTHER_DEVICE, attempt=ATTEMPT),)
    assert not marks
    return ()


@pytest.mark.parametrize("name", list(CELLS))
def test_every_cell_of_states_and_events_is_as_the_table_says(name: str) -> None:
    for state in SessionState:
        check_cell(name, state)


def check_cell(name: str, state: SessionState) -> None:
    event, row = CELLS[name]
    cell = row.split()[list(SessionState).index(state)]
    marks = cell.lstrip(".abcdefghijklmnopqrstuvwxyz")
    expected_state = cell.removesuffix(marks).replace(".", state.value)
    if marks == "?":
        assert isinstance(event, AttemptReported)
        event = replace(event, device_id=OTHER_DEVICE)
    before = replace(record_in(state), running_time=NOW) if state.final else record_in(state)

    after, commands = advance(before, event, NOW)

    assert after.state.value == expected_state, state
    assert commands == commands_of(marks, event), state
    if cell.startswith("."):
        assert after is before, state
    else:
        assert after.revision == before.revision + 1, state


def test_the_table_has_every_kind_of_event_and_every_state() -> None:
    assert {type(event) for event, _ in CELLS.values()} == set(SessionEvent.__args__)
    assert all(len(row.split()) == len(SessionState) for _, row in CELLS.values())


def test_a_report_that_a_live_attempt_is_stale_goes_to_the_device_that_told_it() -> None:
    """The session may have moved on to another device. What began anew must find no files of the old attempt's."""
    stop = StopOnAgent(session_id=SESSION, device_id=OTHER_DEVICE, attempt=1)
    stale = reported(LIVE, attempt=1, device_id=OTHER_DEVICE)
    assert advance(record_in(RUNNING), stale, NOW)[1] == (replace(stop, discard_outputs=True),)
    assert advance(live_record(RUNNING), stale, NOW)[1] == (replace(stop, to_be_continued=True),)
    assert advance(replace(live_record(FAILED), restart=NO_RESTART), stale, NOW)[1] == (stop,)


def test_what_a_lost_attempt_has_made_is_kept_when_the_session_ended_before_another_had_begun() -> None:
    stop = StopOnAgent(session_id=SESSION, device_id=OTHER_DEVICE, attempt=1)
    stale = reported(LIVE, attempt=1, device_id=OTHER_DEVICE)
    for state in (FAILED, CANCELLED):
        refused = record_in(state)
        assert advance(refused, stale, NOW)[1] == (stop,)
        assert advance(replace(refused, running_time=NOW), stale, NOW)[1] == (replace(stop, discard_outputs=True),)


def test_a_report_without_a_device_is_taken_for_the_sessions_own_device() -> None:
    _, commands = advance(record_in(FAILED), reported(LIVE), NOW)
    assert commands == (StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT),)


def test_a_stale_attempt_of_a_session_without_device_cannot_be_stopped() -> None:
    assert advance(record_in(QUEUED), reported(LIVE), NOW)[1] == ()


def test_placing_books_the_reservation_and_counts_the_attempt() -> None:
    after, _ = advance(record_in(QUEUED), NEW_PLACE, NOW)
    assert after.reservation is NEW_PLACE.reservation
    assert after.device_id == OTHER_DEVICE
    assert after.attempt == ATTEMPT


def test_the_first_frame_dates_the_running_time() -> None:
    frame_time = NOW - timedelta(seconds=2)
    told, _ = advance(record_in(STARTING), replace(reported(LIVE), running_time=frame_time), NOW)
    assert told.running_time == frame_time
    untold, _ = advance(record_in(STARTING), reported(LIVE), NOW)
    assert untold.running_time == NOW


def test_a_frame_reported_while_stopping_is_still_dated() -> None:
    before = replace(record_in(STOPPING), running_time=None)
    after, commands = advance(before, reported(LIVE), NOW)
    assert (after.state, after.running_time, commands) == (STOPPING, NOW, ())


def test_an_end_dates_the_session_and_tells_its_last_progress() -> None:
    end_time = NOW - timedelta(seconds=1)
    progress = Progress(frames=99)
    event = replace(reported(ENDED, AttemptOutcome.COMPLETED), end_time=end_time, progress=progress)
    after, _ = advance(record_in(STARTING), replace(event, running_time=EARLIER), NOW)
    assert (after.end_time, after.progress, after.running_time) == (end_time, progress, EARLIER)
    assert advance(record_in(RUNNING), reported(ENDED, AttemptOutcome.STOPPED), NOW)[0].end_time == NOW


def test_a_failure_is_the_agents_own_or_says_that_there_is_none() -> None:
    after, _ = advance(record_in(RUNNING), reported(ENDED, AttemptOutcome.FAILED, failure=FAILURE), NOW)
    assert after.failure == FAILURE
    after, _ = advance(record_in(RUNNING), reported(ENDED, AttemptOutcome.FAILED), NOW)
    assert after.failure is not None
    assert after.failure.reason == "UNEXPLAINED"


def test_a_session_that_completes_while_it_is_asked_to_stop_has_succeeded() -> None:
    after, _ = advance(record_in(STOPPING), reported(ENDED, AttemptOutcome.COMPLETED), NOW)
    assert (after.state, after.failure, after.stop_requested) == (SUCCEEDED, None, True)


def test_a_lost_attempt_is_named_as_such() -> None:
    after, _ = advance(record_in(RUNNING), AttemptMissing(attempt=ATTEMPT), NOW)
    assert after.failure is not None
    assert after.failure.reason == "ATTEMPT_LOST"
    assert after.end_time == NOW


def test_a_refused_launch_fails_for_the_agents_reason() -> None:
    after, _ = advance(record_in(STARTING), LaunchRefused(attempt=ATTEMPT, failure=FAILURE), NOW)
    assert (after.failure, after.reservation) == (FAILURE, None)


def test_a_launch_that_one_agents_disk_has_no_room_for_is_tried_elsewhere() -> None:
    full = replace(FAILURE, reason="DISK_LOW")
    before = replace(record_in(STARTING), running_time=None)
    after, _ = advance(before, LaunchRefused(attempt=ATTEMPT, failure=full), NOW)
    assert (after.state, after.reservation, after.avoided_device_ids) == (QUEUED, None, (before.device_id,))
    tired = replace(before, retry_count=2)
    after, _ = advance(tired, LaunchRefused(attempt=ATTEMPT, failure=full), NOW)
    assert (after.state, after.failure) == (FAILED, full)


def test_who_waits_goes_on_waiting_for_as_long_as_its_client_lets_it_when_the_disk_is_full() -> None:
    full, until = replace(FAILURE, reason="DISK_LOW"), NOW + timedelta(minutes=10)
    record = replace(record_in(QUEUED), queue_deadline=until, retry_count=0)
    for _ in range(5):
        placed, _ = advance(record, NEW_PLACE, NOW)
        record, _ = advance(placed, LaunchRefused(attempt=placed.attempt, failure=full), NOW)
        assert (record.state, record.queue_deadline, record.avoided_device_ids) == (QUEUED, until, ())
        assert record.not_before_time is not None
        assert NOW < record.not_before_time < until
    ended, _ = advance(record, wait_ended(record), until)
    assert (ended.state, ended.failure) == (FAILED, full)


def test_a_launch_refused_after_a_stop_is_the_stop_that_was_asked_for() -> None:
    before = replace(record_in(STOPPING), running_time=None)
    after, _ = advance(before, LaunchRefused(attempt=ATTEMPT, failure=FAILURE), NOW)
    assert (after.state, after.failure, after.reservation) == (CANCELLED, None, None)


def test_where_to_publish_is_kept_until_the_end() -> None:
    url = "rtmp://127.0.0.1:1935/live/x"
    accepted, _ = advance(record_in(STARTING), LaunchAccepted(attempt=ATTEMPT, ingest_url=url), NOW)
    running, _ = advance(accepted, reported(LIVE), NOW)
    ended, _ = advance(running, reported(ENDED, AttemptOutcome.COMPLETED), NOW)
    assert [accepted.ingest_url, running.ingest_url, ended.ingest_url] == [url, url, None]
    assert advance(accepted, LaunchAccepted(attempt=ATTEMPT, ingest_url=url), NOW)[0] is accepted


def test_progress_alone_raises_the_revision() -> None:
    before = record_in(RUNNING)
    after, commands = advance(before, replace(reported(LIVE), progress=Progress(frames=1)), NOW)
    assert after == replace(before, progress=Progress(frames=1), revision=before.revision + 1)
    assert commands == ()


def test_late_progress_does_not_go_back() -> None:
    before = replace(record_in(RUNNING), progress=Progress(frames=50, out_time=timedelta(seconds=2)))
    late = replace(reported(LIVE), progress=Progress(frames=25, out_time=timedelta(seconds=1)))
    assert advance(before, late, NOW)[0] is before


def test_a_report_of_starting_that_comes_after_running_is_ignored_whole() -> None:
    waiting = Condition(type="AWAITING_PUBLISHER", message="Nobody publishes.", since_time=EARLIER)
    late = replace(reported(AttemptPhase.STARTING), conditions=(waiting,))
    before = record_in(RUNNING)
    assert advance(before, late, NOW)[0] is before


def test_a_condition_that_goes_on_keeps_its_time_and_one_that_is_over_goes() -> None:
    first = Condition(type="STALLED", message="No frame for 5 s.", since_time=EARLIER)
    stalled, _ = advance(record_in(RUNNING), replace(reported(LIVE), conditions=(first,)), NOW)
    again = replace(first, message="No frame for 9 s.", since_time=NOW)
    longer, _ = advance(stalled, replace(reported(LIVE), conditions=(again,)), NOW)
    assert longer.conditions == (replace(again, since_time=EARLIER),)
    over, _ = advance(longer, reported(LIVE), NOW)
    assert over.conditions == ()


def test_silence_is_a_condition_that_only_hearing_clears() -> None:
    """A report may have been on its way since before the silence."""
    before = record_in(RUNNING)
    silent, _ = advance(before, AgentSilent(), NOW)
    assert [(condition.type, condition.since_time) for condition in silent.conditions] == [("UNREACHABLE", NOW)]
    assert advance(silent, AgentSilent(), NOW + timedelta(seconds=1))[0] is silent
    assert advance(silent, reported(LIVE), NOW)[0] is silent
    heard, _ = advance(silent, AgentHeard(), NOW)
    assert heard == replace(before, revision=before.revision + 2)


def test_an_ended_session_has_no_conditions() -> None:
    silent, _ = advance(record_in(RUNNING), AgentSilent(), NOW)
    ended, _ = advance(silent, reported(ENDED, AttemptOutcome.COMPLETED), NOW)
    assert ended.conditions == ()


def test_a_preempted_session_waits_again_with_nothing_of_its_attempt() -> None:
    progress = Progress(frames=50)
    running = replace(record_in(RUNNING), progress=progress, speed_limit=Fraction(1, 2))
    stopping, _ = advance(running, Preempted(), NOW)
    for end in (
        reported(ENDED, AttemptOutcome.STOPPED),
        reported(ENDED, AttemptOutcome.FAILED, failure=FAILURE),
        AttemptMissing(attempt=ATTEMPT),
    ):
        waiting, commands = advance(stopping, end, NOW)
        assert (waiting.state, commands, waiting.preemption_count) == (QUEUED, (), 1)
        assert (waiting.reservation, waiting.device_id, waiting.progress, waiting.running_time) == (None,) * 4
        assert (waiting.queued_time, waiting.queue_deadline, waiting.speed_limit) == (NOW, None, None)
        assert waiting.earlier_device_ids == (DEVICE,)
        placed, _ = advance(waiting, NEW_PLACE, NOW)
        assert placed.attempt == ATTEMPT + 1


def test_a_preempted_session_that_was_done_has_succeeded() -> None:
    stopping, _ = advance(record_in(RUNNING), Preempted(), NOW)
    assert advance(stopping, reported(ENDED, AttemptOutcome.COMPLETED), NOW)[0].state is SUCCEEDED


def test_a_stop_wins_over_being_queued_again() -> None:
    stopping, _ = advance(record_in(RUNNING), Preempted(), NOW)
    asked, commands = advance(stopping, StopRequested(), NOW)
    assert commands == (StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT),)
    assert advance(asked, reported(ENDED, AttemptOutcome.STOPPED), NOW)[0].state is CANCELLED


def test_only_who_said_so_is_preempted() -> None:
    firm = replace(record_in(RUNNING), preemptible=False)
    assert advance(firm, Preempted(), NOW) == (firm, ())


def test_a_session_that_its_device_could_not_begin_is_tried_on_others_and_then_fails_for_that_reason() -> None:
    """Three attempts in all, each elsewhere, and a bounded wait for a device."""
    record = record_in(STARTING)
    for count in range(1, RETRIES + 1):
        waiting, _ = advance(record, reported(ENDED, AttemptOutcome.FAILED, failure=NOT_BEGUN), NOW)
        assert (waiting.state, waiting.retry_count, waiting.failure) == (QUEUED, count, NOT_BEGUN)
        assert waiting.queue_deadline is not None
        assert record.device_id in waiting.avoided_device_ids
        assert advance(waiting, wait_ended(waiting), NOW)[0].failure == NOT_BEGUN
        placed, _ = advance(waiting, NEW_PLACE, NOW)
        assert placed.failure is None
        record = replace(placed, attempt=ATTEMPT)
    assert advance(record, reported(ENDED, AttemptOutcome.FAILED, failure=NOT_BEGUN), NOW)[0].state is FAILED


def test_who_finds_no_further_device_begins_again_where_its_rule_lets_it() -> None:
    """Two cards were sick at once, and the third was full: no reason to fail for good."""
    placed = replace(record_in(STARTING), restart=RULE)
    waiting, _ = advance(placed, reported(ENDED, AttemptOutcome.FAILED, failure=NOT_BEGUN), NOW)
    assert (waiting.state, waiting.retry_count) == (QUEUED, 1)
    again, _ = advance(waiting, wait_ended(waiting), NOW)
    assert (again.state, again.restart_row, again.retry_count, again.failure) == (QUEUED, 1, 0, NOT_BEGUN)
    assert [condition.type for condition in again.conditions] == ["RESTARTING"]
    assert again.not_before_time is not None
    assert advance(again, wait_ended(waiting), NOW)[0] is again, "that was the wait before its rest"
    failed, _ = advance(again, wait_ended(again), NOW)
    assert (failed.state, failed.failure) == (FAILED, NOT_BEGUN)


def test_room_that_is_made_is_booked_and_may_be_lost_again() -> None:
    kept, _ = advance(record_in(QUEUED), RoomKept(reservation=RESERVATION), NOW)
    assert kept.reservation is RESERVATION
    assert advance(kept, RoomLost(), NOW)[0].reservation is None
    assert advance(kept, StopRequested(), NOW)[0].reservation is None


def test_who_waited_in_vain_is_told_so() -> None:
    failed, _ = advance(record_in(QUEUED), WaitEnded(deadline=None), NOW)
    assert failed.failure is not None
    assert failed.failure.reason == "QUEUE_TIMEOUT"


def test_an_agent_that_takes_a_session_late_is_told_its_pace_again() -> None:
    paced, _ = advance(record_in(STARTING), Paced(speed_limit=Fraction(2)), NOW)
    _, commands = advance(paced, LaunchAccepted(attempt=ATTEMPT), NOW)
    assert commands == (PaceOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT),)


# ------------------------------------------------------------------------------------------------------------ restarts

RULE = RestartRule(mode=RestartMode.ON_FAILURE, max_restarts=2, first_backoff=timedelta(seconds=4))
KILLED = Failure(reason="KILLED", message="Cannot go on: the program was killed.")
KILLED_NOW = reported(ENDED, AttemptOutcome.FAILED, failure=KILLED)


def live_record(state: SessionState, **changes: Any) -> SessionRecord:
    """Makes a session of a live input that may begin again."""
    return replace(record_in(state), **{"restart": RULE, "resumable": True, "folder": "/one", **changes})


def completed_then(ending: tuple[SessionRecord, tuple[Command, ...]]) -> SessionRecord:
    """Gives a session that ends as it is once its agent has completed what was left open."""
    record, _ = ending
    assert (record.state, record.reservation) == (STOPPING, None)
    return advance(record, StopHeard(attempt=record.attempt), NOW)[0]


def test_a_failure_that_counts_begins_the_session_again_after_a_rest_that_doubles_until_it_is_too_often() -> None:
    record = live_record(RUNNING)
    for row, rest_s in enumerate((4, 8), start=1):
        waiting, commands = advance(record, KILLED_NOW, NOW)
        assert (waiting.state, commands, waiting.failure) == (QUEUED, (), KILLED)
        assert (waiting.restart_count, waiting.restart_row) == (row - 1, row)
        assert waiting.not_before_time == NOW + timedelta(seconds=rest_s)
        assert waiting.queue_deadline is not None
        assert waiting.queue_deadline > waiting.not_before_time
        assert [condition.type for condition in waiting.conditions] == ["RESTARTING"]
        assert waiting.last_restart == LastRestart(attempt=ATTEMPT, device_id=DEVICE, failure=KILLED, restart_time=NOW)
        placed, launch = advance(waiting, Placed(reservation=RESERVATION), NOW)
        assert launch == (LaunchOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT + 1),)
        assert (placed.failure, placed.conditions, placed.not_before_time, placed.folder) == (None, (), None, "")
        assert placed.restart_count == row
        record = replace(placed, attempt=ATTEMPT)
    failed = completed_then(advance(record, KILLED_NOW, NOW))
    assert failed.state is FAILED
    assert failed.failure is not None
    assert failed.failure.message == "Cannot go on: the program was killed. It was begun again 2 times before."


def test_an_attempt_that_ran_for_long_ends_the_row_of_restarts() -> None:
    tired = live_record(RUNNING, restart_row=2, restart_count=7, progress=Progress(out_time=timedelta(minutes=10)))
    waiting, _ = advance(tired, KILLED_NOW, NOW)
    assert (waiting.state, waiting.restart_row, waiting.restart_count) == (QUEUED, 1, 7)
    assert advance(waiting, NEW_PLACE, NOW)[0].restart_count == 8
    assert advance(waiting, StopRequested(), NOW)[0].restart_count == 7, "it never began again"
    brief = replace(tired, progress=Progress(out_time=timedelta(minutes=9)))
    assert completed_then(advance(brief, KILLED_NOW, NOW)).state is FAILED


def test_what_does_not_pass_and_what_was_asked_to_end_does_not_begin_again() -> None:
    full = reported(ENDED, AttemptOutcome.FAILED, failure=FAILURE)
    assert completed_then(advance(live_record(RUNNING), full, NOW)).state is FAILED
    chosen = replace(RULE, reasons=frozenset({"DEVICE_LOST"}))
    assert completed_then(advance(live_record(RUNNING, restart=chosen), KILLED_NOW, NOW)).state is FAILED
    assert completed_then(advance(live_record(STOPPING), KILLED_NOW, NOW)).state is FAILED


def test_the_next_attempt_of_a_live_input_continues_all_earlier_ones_and_another_begins_anew() -> None:
    ran = Progress(out_time=timedelta(seconds=30))
    waiting, _ = advance(live_record(RUNNING, progress=ran), KILLED_NOW, NOW)
    placed, _ = advance(waiting, NEW_PLACE, NOW)
    running, _ = advance(placed, replace(reported(LIVE, attempt=ATTEMPT + 1), folder="/two", progress=ran), NOW)
    again, _ = advance(running, replace(KILLED_NOW, attempt=ATTEMPT + 1), NOW)
    assert again.ended_attempts == (
        EndedAttempt(attempt=ATTEMPT, device_id=DEVICE, folder="/one"),
        EndedAttempt(attempt=ATTEMPT + 1, device_id=OTHER_DEVICE, folder="/two"),
    )
    assert again.ran_for == timedelta(minutes=1)
    anew, _ = advance(live_record(RUNNING, resumable=False, progress=ran), KILLED_NOW, NOW)
    assert (anew.ended_attempts, anew.ran_for) == ((), timedelta())


def test_what_was_left_for_a_next_attempt_is_completed_when_there_will_be_none() -> None:
    ended = StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT)
    tired = live_record(RUNNING, restart_row=2)
    assert advance(tired, KILLED_NOW, NOW)[1] == (ended,)
    resting, _ = advance(live_record(RUNNING), KILLED_NOW, NOW)
    for end, state in ((wait_ended(resting), FAILED), (StopRequested(), CANCELLED)):
        given_up, commands = advance(resting, end, NOW)
        settling = Settling(state=state, attempt=ATTEMPT)
        assert (given_up.state, given_up.settling, commands) == (STOPPING, settling, (ended,))
        assert completed_then((given_up, commands)).state is state
    never = replace(RULE, mode=RestartMode.NEVER)
    for record in (live_record(RUNNING, restart=never), live_record(RUNNING, restart_row=2, resumable=False)):
        assert advance(record, KILLED_NOW, NOW)[0].state is FAILED
        assert advance(record, KILLED_NOW, NOW)[1] == ()
    for outcome in (AttemptOutcome.COMPLETED, AttemptOutcome.STOPPED):
        assert advance(live_record(STOPPING), reported(ENDED, outcome), NOW)[1] == ()
    waiting = replace(record_in(QUEUED), restart=RULE, resumable=True)
    assert advance(waiting, StopRequested(), NOW)[1] == ()


def test_what_came_of_completing_is_taken_from_the_answer_however_late_the_stream_tells_it() -> None:
    settling, _ = advance(live_record(RUNNING, restart_row=2), KILLED_NOW, NOW)
    missing = Condition(type="PARTS_MISSING", message="Attempt 1 cannot be found.", since_time=NOW)
    unnamed = replace(KILLED, message=f"{KILLED.message} Its file cannot be named: the disk is full.")
    told = replace(reported(ENDED, AttemptOutcome.FAILED, failure=unnamed), conditions=(missing,))
    ended, _ = advance(settling, StopHeard(attempt=ATTEMPT, report=told), NOW)
    assert (ended.state, ended.failure, ended.conditions) == (FAILED, unnamed, (missing,))
    assert advance(ended, replace(told, conditions=()), NOW)[0] == ended
    other, _ = advance(settling, StopHeard(attempt=ATTEMPT + 1, report=told), NOW)
    assert other == settling


def test_why_an_earlier_attempt_failed_does_not_hide_why_the_session_did() -> None:
    resting, _ = advance(live_record(RUNNING), KILLED_NOW, NOW)
    placed, _ = advance(resting, NEW_PLACE, NOW)
    busy = Failure(reason="AGENT_BUSY", message="An earlier attempt has not ended.")
    settling, _ = advance(placed, LaunchRefused(attempt=ATTEMPT + 1, failure=busy), NOW)
    assert settling.settling == Settling(state=FAILED, attempt=ATTEMPT)
    assert settling.failure is not None
    assert settling.failure.reason == "AGENT_BUSY"
    assert advance(settling, StopHeard(attempt=ATTEMPT, report=KILLED_NOW), NOW)[0].failure == settling.failure
    unnamed = replace(KILLED, message="Its file cannot be named: the disk is full.")
    ended, _ = advance(settling, StopHeard(attempt=ATTEMPT, report=replace(KILLED_NOW, failure=unnamed)), NOW)
    assert ended.failure == replace(
        settling.failure, message=f"{settling.failure.message} Of attempt {ATTEMPT}: {unnamed.message}"
    )


def test_a_session_that_was_stopped_while_it_rested_has_failed_if_its_outputs_cannot_be_completed() -> None:
    resting, _ = advance(live_record(RUNNING), KILLED_NOW, NOW)
    settling, _ = advance(resting, StopRequested(), NOW)
    whole, _ = advance(settling, StopHeard(attempt=ATTEMPT, report=KILLED_NOW), NOW)
    assert (whole.state, whole.failure) == (CANCELLED, None)
    unnamed = replace(KILLED, message=f"{KILLED.message} Its file cannot be named: the disk is full.")
    broken, _ = advance(settling, StopHeard(attempt=ATTEMPT, report=replace(KILLED_NOW, failure=unnamed)), NOW)
    assert (broken.state, broken.failure, broken.settling) == (FAILED, unnamed, None)


def test_of_very_many_attempts_the_last_ones_are_kept_in_mind() -> None:
    earlier = tuple(EndedAttempt(attempt=number, device_id=DEVICE, folder=f"/{number}") for number in range(200))
    waiting, _ = advance(live_record(RUNNING, ended_attempts=earlier), KILLED_NOW, NOW)
    assert len(waiting.ended_attempts) == 200
    assert waiting.ended_attempts[0].attempt == 1
    assert waiting.ended_attempts[-1] == EndedAttempt(attempt=ATTEMPT, device_id=DEVICE, folder="/one")


def test_a_live_input_that_ends_by_itself_is_awaited_again_only_where_that_was_asked_for() -> None:
    done = reported(ENDED, AttemptOutcome.COMPLETED)
    always = replace(RULE, mode=RestartMode.ALWAYS)
    assert advance(live_record(RUNNING, restart=always), done, NOW)[0].state is QUEUED
    losses = replace(always, reasons=LOST_REASONS)
    assert advance(live_record(RUNNING, restart=losses), done, NOW)[0].state is QUEUED
    assert advance(live_record(RUNNING), done, NOW)[0].state is SUCCEEDED
    assert advance(live_record(RUNNING, restart=always, resumable=False), done, NOW)[0].state is SUCCEEDED
    assert advance(live_record(STOPPING, restart=always), done, NOW)[0].state is SUCCEEDED
    over = Progress(out_time=timedelta(seconds=59))
    bound = live_record(RUNNING, restart=always, max_duration=timedelta(minutes=2), ran_for=timedelta(minutes=1))
    assert advance(replace(bound, progress=over), done, NOW)[0].state is SUCCEEDED
    assert advance(replace(bound, progress=Progress(out_time=timedelta(seconds=30))), done, NOW)[0].state is QUEUED


def test_a_session_that_leaves_its_device_completes_its_outputs_and_goes_on_at_once() -> None:
    leaving, commands = advance(live_record(RUNNING), MoveRequested(device_id=DEVICE, failure=SICK), NOW)
    assert commands == (StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT, to_be_continued=True),)
    assert [condition.type for condition in leaving.conditions] == ["MOVING"]
    for end in (reported(ENDED, AttemptOutcome.STOPPED), KILLED_NOW, AttemptMissing(attempt=ATTEMPT)):
        waiting, _ = advance(leaving, end, NOW)
        assert (waiting.state, waiting.not_before_time, waiting.restart_row) == (QUEUED, None, 0)
        assert (waiting.restart_count, waiting.failure, waiting.moving) == (0, SICK, None)
        assert advance(waiting, NEW_PLACE, NOW)[0].restart_count == 1
        assert waiting.ended_attempts == (EndedAttempt(attempt=ATTEMPT, device_id=DEVICE, folder="/one"),)
    assert advance(leaving, reported(ENDED, AttemptOutcome.COMPLETED), NOW)[0].state is SUCCEEDED
    asked, _ = advance(leaving, StopRequested(), NOW)
    assert (asked.requeue, asked.moving, asked.conditions) == (False, None, ())
    assert advance(asked, reported(ENDED, AttemptOutcome.STOPPED), NOW)[0].state is CANCELLED


def test_a_session_that_was_moved_is_tried_again_when_its_source_is_not_there_at_once() -> None:
    """By whatever rule: its operator moved it, and did not mean to end it."""
    gone = Failure(reason="INPUT_UNREADABLE", message="Cannot read: connection refused.")
    refused = reported(ENDED, AttemptOutcome.FAILED, failure=gone, attempt=ATTEMPT + 1)
    leaving, _ = advance(
        live_record(RUNNING, restart=NO_RESTART), MoveRequested(device_id=DEVICE, failure=DRAINED), NOW
    )
    waiting, _ = advance(leaving, reported(ENDED, AttemptOutcome.STOPPED), NOW)
    placed, _ = advance(waiting, NEW_PLACE, NOW)
    again, _ = advance(placed, refused, NOW)
    assert (again.state, again.restart_row) == (QUEUED, 1)
    ran, _ = advance(placed, reported(LIVE, attempt=ATTEMPT + 1), NOW)
    assert advance(ran, refused, NOW)[0].state is FAILED
    broken = replace(refused, failure=FAILURE)
    assert advance(placed, broken, NOW)[0].state is FAILED, "a full disk does not pass by itself"


def test_a_session_whose_agent_is_lost_goes_on_elsewhere_if_it_may_and_else_stays_where_it_is() -> None:
    lost = AgentLost(device_id=DEVICE, silence=timedelta(seconds=90))
    waiting, commands = advance(live_record(RUNNING), lost, NOW)
    assert (waiting.state, commands, waiting.reservation) == (QUEUED, (), None)
    assert waiting.failure is not None
    assert waiting.failure.reason == "AGENT_LOST"
    assert (waiting.not_before_time, waiting.restart_row, waiting.restart_count) == (None, 0, 0)
    deaf = replace(RULE, reasons=frozenset({"KILLED"}))
    for kept in (record_in(RUNNING), live_record(RUNNING, restart=deaf), live_record(STOPPING, stop_requested=True)):
        assert advance(kept, lost, NOW) == (kept, ())
    leaving, _ = advance(live_record(RUNNING), MoveRequested(device_id=DEVICE, failure=DRAINED), NOW)
    assert advance(leaving, lost, NOW)[0].state is QUEUED
    assert advance(live_record(RUNNING), replace(lost, device_id=OTHER_DEVICE), NOW)[0].state is RUNNING


def test_what_returns_after_it_was_given_up_is_stopped_where_it_is() -> None:
    waiting, _ = advance(live_record(RUNNING), AgentLost(device_id=DEVICE, silence=timedelta(seconds=90)), NOW)
    placed, _ = advance(waiting, NEW_PLACE, NOW)
    _, commands = advance(placed, reported(LIVE, device_id=DEVICE), NOW)
    assert commands == (StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT, to_be_continued=True),)


def test_giving_way_throws_away_what_a_live_input_would_have_continued() -> None:
    stopping, commands = advance(live_record(RUNNING), Preempted(), NOW)
    assert commands == (StopOnAgent(session_id=SESSION, device_id=DEVICE, attempt=ATTEMPT, discard_outputs=True),)
    waiting, _ = advance(stopping, reported(ENDED, AttemptOutcome.STOPPED), NOW)
    assert (waiting.ended_attempts, waiting.resumable, waiting.ran_for) == ((), True, timedelta())


EVENTS = [*(event for event, _ in CELLS.values()), KILLED_NOW]


@given(
    st.lists(st.sampled_from(EVENTS), max_size=12), st.sampled_from(list(SessionState)), st.booleans(), st.booleans()
)
def test_laws_hold_whatever_happens_in_whatever_order(
    events: list[SessionEvent], state: SessionState, restarts: bool, resumable: bool
) -> None:
    record = replace(record_in(state), restart=RULE if restarts else NO_RESTART, resumable=resumable)
    for planned in events:
        event = wait_ended(record) if isinstance(planned, WaitEnded) else planned
        after, commands = advance(record, event, NOW)
        assert advance(record, event, NOW) == (after, commands)
        assert (after.revision - record.revision) == (0 if after is record else 1)
        if record.state.final:
            assert after is record
        if after.state is not QUEUED:
            holds = after.state in (STARTING, RUNNING, STOPPING) and after.settling is None
            assert (after.reservation is not None) == holds
        assert (after.settling is not None) <= (after.state is STOPPING)
        assert after.requeue <= (after.state is STOPPING)
        assert (after.moving is not None) <= after.requeue
        assert after.resumable or not after.ended_attempts
        assert (after.not_before_time is not None) <= (after.state is QUEUED)
        assert after.attempt >= record.attempt
        assert after.restart_row <= record.restart.max_restarts
        assert (after.speed_limit is None) or after.state in (STARTING, RUNNING, STOPPING)
        assert after.state.final == (after.end_time is not None)
        if after.state is not QUEUED:
            assert (after.failure is not None) == ((after.settling.state if after.settling else after.state) is FAILED)
        if after.state is RUNNING:
            assert after.running_time is not None
        again, _ = advance(after, event, NOW)
        assert again is after
        record = after


# ---------------------------------------------------------------------------------------------------------- recordings


def recording_in(state: SessionState) -> SessionRecord:
    """Makes a recording, on a CPU device that books a core for it."""
    amounts = {Dimension.CORES: 1_000_000, Dimension.MEMORY: 700}
    reservation = replace(
        RESERVATION,
        device_amounts={**amounts, Dimension.DISPLAYS: 1},
        host_amounts=amounts,
        capture_amounts={Dimension.CORES: 800_000, Dimension.MEMORY: 600},
    )
    record = record_in(state)
    return record if record.reservation is None else replace(record, reservation=reservation)


def measured(cores: int, memory_mib: int = 700) -> MeasuredUse:
    return MeasuredUse(cores=cores, memory_mib=memory_mib, measured_time=timedelta(seconds=15))


def test_what_was_measured_is_kept_and_booked() -> None:
    event = replace(reported(LIVE), measured_use=measured(1_500_000))
    after, commands = advance(recording_in(RUNNING), event, NOW)
    assert commands == ()
    assert after.measured_use == measured(1_500_000)
    assert after.reservation is not None
    assert after.reservation.host_amounts[Dimension.CORES] == 1_500_000
    assert after.reservation.device_amounts[Dimension.CORES] == 1_500_000


def test_nearly_the_same_measurement_changes_nothing() -> None:
    first, _ = advance(recording_in(RUNNING), replace(reported(LIVE), measured_use=measured(1_500_000)), NOW)
    assert advance(first, replace(reported(LIVE), measured_use=measured(1_520_000, 720)), NOW)[0] is first
    more, _ = advance(first, replace(reported(LIVE), measured_use=measured(1_800_000)), NOW)
    assert more.reservation is not None
    assert more.reservation.host_amounts[Dimension.CORES] == 1_800_000


def test_a_report_is_kept_until_a_later_one_and_beyond_the_end() -> None:
    first, _ = advance(recording_in(RUNNING), replace(reported(LIVE), recording_report=b"one"), NOW)
    untold, _ = advance(first, replace(reported(LIVE), progress=Progress(frames=9)), NOW)
    late, _ = advance(untold, replace(reported(LIVE), progress=Progress(frames=3), recording_report=b"old"), NOW)
    assert late.recording_report == b"one"
    done = replace(reported(ENDED, AttemptOutcome.COMPLETED), recording_report=b"two")
    assert advance(late, done, NOW)[0].recording_report == b"two"


@pytest.mark.parametrize(
    "reason", ["DISPLAY_TIMEOUT", "DISPLAY_FAILED", "BROWSER_FAILED", "BROWSER_MISSING", "RECORDING_UNAVAILABLE"]
)
def test_what_is_wrong_with_a_display_or_browser_is_tried_elsewhere(reason: str) -> None:
    failed = reported(ENDED, AttemptOutcome.FAILED, failure=Failure(reason=reason, message="Cannot show it."))
    told = replace(recording_in(STARTING), recording_report=b"one", measured_use=measured(1))
    after, _ = advance(told, failed, NOW)
    assert (after.state, after.avoided_device_ids) == (QUEUED, (DEVICE,))
    assert (after.recording_report, after.measured_use) == (None, None)


@pytest.mark.parametrize("reason", ["GATE_TIMEOUT", "PAGE_UNREACHABLE", "PAGE_HTTP_ERROR", "PAGE_CRASHED"])
def test_what_is_wrong_with_a_page_is_wrong_everywhere(reason: str) -> None:
    failure = Failure(reason=reason, message="Cannot open the page.")
    after, _ = advance(recording_in(STARTING), reported(ENDED, AttemptOutcome.FAILED, failure=failure), NOW)
    assert (after.state, after.failure) == (FAILED, failure)


def test_an_amended_session_keeps_what_its_client_says_now() -> None:
    after, _ = advance(record_in(RUNNING), Amended(payload=b"more time"), NOW)
    assert after.payload == b"more time"
    assert advance(after, Amended(payload=b"more time"), NOW)[0] is after
