"""The judge of the chaos suite finds what is wrong in made-up histories, and nothing where all is well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from bench.chaos.history import (
    Act,
    Created,
    DeviceView,
    FeedMark,
    History,
    OutputView,
    SeenProcess,
    SeenWrite,
    SessionView,
    Sighting,
    Snapshot,
)
from bench.chaos.invariants import INVARIANTS, check

NAME = "sessions/a"


def view(at_s: float, state: str, revision: int, **more: Any) -> SessionView:
    defaults: dict[str, Any] = {"name": NAME, "attempt": 1, "device": "devices/one"}
    return SessionView(at_s=at_s, state=state, revision=revision, **(defaults | more))


def device(at_s: float, state: str = "READY", name: str = "devices/one", **more: Any) -> DeviceView:
    return DeviceView(at_s=at_s, name=name, state=state, **({"session_count": 0} | more))


def program(attempt: int = 1, pid: int = 7, name: str = "one", **more: Any) -> SeenProcess:
    defaults: dict[str, Any] = {"session": NAME, "program": True, "device": f"devices/{name}"}
    began_s = 1.0 if attempt == 1 else 20.91
    return SeenProcess(pid=pid, attempt=attempt, **(defaults | {"began_s": began_s} | more))


def wrote(at_s: float, attempt: int = 1, pid: int = 7) -> SeenWrite:
    return SeenWrite(at_s=at_s, output="film", pid=pid, attempt=attempt)


def seen(at_s: float, *processes: SeenProcess) -> Sighting:
    return Sighting(at_s=at_s, processes=processes)


def peaceful() -> History:
    """A session that runs for a while, is moved once by a partition, is stopped, and leaves what it should."""
    story = [
        view(1.0, "STARTING", 1),
        view(2.0, "RUNNING", 2, frames=5),
        view(3.0, "RUNNING", 3, frames=30),
        view(20.0, "QUEUED", 4, device=""),
        view(21.0, "STARTING", 5, attempt=2, device="devices/two"),
        view(22.0, "RUNNING", 6, attempt=2, device="devices/two", frames=3),
        view(30.0, "STOPPING", 7, attempt=2, device="devices/two", frames=90),
        view(31.0, "CANCELLED", 8, attempt=2, device="devices/two", frames=95, end_time="then"),
    ]
    return History(
        sessions=story,
        marks=[FeedMark(at_s=0.1, kind="OPENED"), FeedMark(at_s=0.2, kind="SYNCED")],
        devices=[device(0.0), device(0.0, name="devices/two"), device(14.0, "UNREACHABLE"), device(27.0)],
        sightings=[
            seen(2.0, program()),
            seen(20.9, program(), program(2, 8, "two")),  # a look takes its time, in which one ends and the next begins
            seen(22.0, program(2, 8, "two")),
            seen(28.0, program(2, 8, "two", writes=frozenset({"film"}))),
            seen(31.5),
        ],
        writes=[wrote(2.0), wrote(21.0, 2, 8)],
        acts=[Act(at_s=4.0, until_s=25.0, kind="stop agent", target="one")],
        created=[Created(asked_s=0.5, request_id="r", name=NAME), Created(asked_s=0.6, request_id="x", name="")],
        snapshots=[
            Snapshot(at_s=3.0, sessions=(story[2],), devices=(device(3.0, session_count=1, used=9),)),
            Snapshot(at_s=32.0, sessions=(story[-1],), devices=(device(32.0),)),
        ],
        healed=[
            Snapshot(at_s=24.0, sessions=(story[5],), devices=()),
            Snapshot(at_s=29.0, sessions=(view(29.0, "RUNNING", 6, attempt=2, frames=80),), devices=()),
        ],
        outputs=[OutputView(session=NAME, path="out.mp4", frames=95)],
        last={NAME: story[-1]},
    )


def test_nothing_is_found_where_all_is_well() -> None:
    assert check(peaceful()) == []


def lose(history: History) -> None:
    history.last.clear()


def never_end(history: History) -> None:
    history.last[NAME] = history.sessions[-1] = view(31.0, "STOPPING", 8, attempt=2)


def fail_without_reason(history: History) -> None:
    history.sessions[-1] = history.last[NAME] = view(31.0, "FAILED", 8, attempt=2)


def fail_although_it_could_begin_anew(history: History) -> None:
    history.acts.append(Act(at_s=30.5, until_s=30.8, kind="fill outputs"))
    history.sessions[-1] = history.last[NAME] = view(31.0, "FAILED", 8, attempt=2, failure="OUTPUT_EXISTS")


def fail_of_a_disk_that_nobody_filled(history: History) -> None:
    history.sessions[-1] = history.last[NAME] = view(31.0, "FAILED", 8, attempt=2, failure="DISK_FULL")


def begin_anew_after_a_daemons_death(history: History) -> None:
    history.daemons_only = True


def answer_with_another(history: History) -> None:
    history.created.append(Created(asked_s=0.7, request_id="r", name="sessions/b"))
    history.last["sessions/b"] = view(31.0, "CANCELLED", 2, name="sessions/b")


def change_the_end(history: History) -> None:
    history.last[NAME] = view(40.0, "FAILED", 8, attempt=2, failure="KILLED", end_time="then")


def forget_a_revision(history: History) -> None:
    history.sessions.insert(3, view(4.0, "RUNNING", 2, frames=31))


def forget_an_attempt(history: History) -> None:
    history.sessions.insert(6, view(23.0, "RUNNING", 6, attempt=1))


def begin_again_within_an_attempt(history: History) -> None:
    history.sessions.insert(3, view(4.0, "STARTING", 4, frames=31))


def tell_two_stories(history: History) -> None:
    history.sessions.insert(2, view(2.5, "RUNNING", 2, device="devices/two", frames=6))


def forget_progress(history: History) -> None:
    history.sessions.insert(3, view(4.0, "RUNNING", 3, frames=29))


def speak_of_the_removed(history: History) -> None:
    history.marks.append(FeedMark(at_s=29.0, kind="REMOVED", name=NAME))


def sync_twice(history: History) -> None:
    history.marks.append(FeedMark(at_s=29.0, kind="SYNCED"))


def place_on_a_closed_device(history: History) -> None:
    history.devices += [device(15.0, "CORDONED", name="devices/two")]


def place_on_a_device_closed_before_it_was_asked_for(history: History) -> None:
    history.created[0] = Created(asked_s=9.0, request_id="r", name=NAME)
    history.devices = [device(1.0, "DRAINING")]
    history.sessions = [view(10.0, "STARTING", 1), *history.sessions[-1:]]


def fail_before_a_disk_is_filled(history: History) -> None:
    fail_of_a_disk_that_nobody_filled(history)
    history.acts.append(Act(at_s=35.0, until_s=40.0, kind="fill outputs"))


def fail_of_a_disk_that_was_filled_for_another_attempt(history: History) -> None:
    fail_of_a_disk_that_nobody_filled(history)
    history.acts.append(Act(at_s=5.0, until_s=9.0, kind="fill outputs"))


def run_twice_as_one_attempt(history: History) -> None:
    history.sightings[1:1] = [seen(2.5, program(), program(1, 8, "two", began_s=2.3))]


def run_twice_for_a_moment(history: History) -> None:
    """No look sees both; but the one that was there at 20.9 s had not ended when the next began."""
    history.sightings[1:2] = [seen(20.9, program()), seen(21.1, program(2, 8, "two", began_s=20.8))]


def run_two_attempts(history: History) -> None:
    """The old one stands still, which is no excuse: it can be killed as it stands."""
    history.sightings[2:2] = [seen(21.2, program(stopped=True), program(2, 8, "two"))]


def write_by_two_at_once(history: History) -> None:
    both = [program(writes=frozenset({"film"})), program(2, 8, "two", writes=frozenset({"film"}))]
    history.sightings.insert(2, seen(24.0, *both))


def write_by_the_old_one_again(history: History) -> None:
    history.sightings.insert(4, seen(28.5, program(writes=frozenset({"film"}))))


def write_once_more(history: History) -> None:
    history.writes.append(wrote(21.5))


def write_in_turn(history: History) -> None:
    history.writes += [wrote(22.0, 2, 9), wrote(22.1, 2, 8)]


def stand_still(history: History) -> None:
    history.healed[1] = Snapshot(at_s=29.0, sessions=history.healed[0].sessions, devices=())


def wait_for_ever(history: History) -> None:
    history.healed[1] = Snapshot(at_s=29.0, sessions=(view(29.0, "QUEUED", 6, frames=9),), devices=())


def live_on(history: History) -> None:
    history.sightings.append(seen(40.0, program(2, 8, "two")))


def count_wrongly(history: History) -> None:
    history.snapshots[0] = Snapshot(at_s=3.0, sessions=history.snapshots[0].sessions, devices=(device(3.0),))


def keep_a_booking(history: History) -> None:
    history.snapshots[1] = Snapshot(at_s=32.0, sessions=(), devices=(device(32.0, used=1),))


def succeed_with_a_torn_file(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=95, whole=False)


def complete_what_does_not_decode(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=95, complaints=("moov atom not found",))


def lose_a_frame(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=95, lost=1)


def repeat_frames_at_no_joint(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=95, backwards=1)


def repeat_the_last_frame(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=95, repeated=1)


def lose_frames_elsewhere_than_at_a_joint(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out", frames=200, lost=9, breaks=2, cuts=1, continues=True)


def lose_the_end(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=94)


def lose_the_end_of_what_continues(history: History) -> None:
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=49, cuts=1, continues=True)


def lose_an_earlier_attempt(history: History) -> None:
    history.sessions.insert(3, view(4.0, "RUNNING", 3, frames=90))
    history.outputs[0] = OutputView(session=NAME, path="out.mp4", frames=95, cuts=1, continues=True)


def fail_of_a_full_disk(history: History) -> None:
    history.acts.append(Act(at_s=30.5, until_s=30.8, kind="fill outputs"))
    history.sessions[-1] = history.last[NAME] = view(31.0, "FAILED", 8, attempt=2, failure="DISK_FULL")


def leave_what_does_not_play(history: History) -> None:
    fail_of_a_full_disk(history)
    history.outputs[0] = OutputView(session=NAME, path="out", frames=95, unplayable=("master.m3u8 names no variant",))


def leave_less_than_was_told(history: History) -> None:
    fail_of_a_full_disk(history)
    history.outputs[0] = OutputView(session=NAME, path="out", frames=10)


def leave_a_lock(history: History) -> None:
    history.leftovers.append("lock agent.lock is held")


WRONGS: list[tuple[str, Callable[[History], None]]] = [
    ("LOST", lose),
    ("UNENDED", never_end),
    ("UNENDED", fail_without_reason),
    ("UNEARNED_FAILURE", fail_although_it_could_begin_anew),
    ("UNEARNED_FAILURE", fail_of_a_disk_that_nobody_filled),
    ("UNEARNED_FAILURE", fail_before_a_disk_is_filled),
    ("UNEARNED_FAILURE", fail_of_a_disk_that_was_filled_for_another_attempt),
    ("BEGUN_AGAIN", begin_anew_after_a_daemons_death),
    ("TWICE_FOR_ONE_REQUEST", answer_with_another),
    ("FINAL_STATE_CHANGED", change_the_end),
    ("WENT_BACK", forget_a_revision),
    ("WENT_BACK", forget_an_attempt),
    ("WENT_BACK", begin_again_within_an_attempt),
    ("ONE_REVISION_TWO_STORIES", tell_two_stories),
    ("PROGRESS_WENT_BACK", forget_progress),
    ("DISORDERED_FEED", speak_of_the_removed),
    ("DISORDERED_FEED", sync_twice),
    ("PLACED_ON_CLOSED_DEVICE", place_on_a_closed_device),
    ("PLACED_ON_CLOSED_DEVICE", place_on_a_device_closed_before_it_was_asked_for),
    ("TWO_LIVE_ATTEMPTS", run_twice_as_one_attempt),
    ("TWO_LIVE_ATTEMPTS", run_twice_for_a_moment),
    ("TWO_LIVE_ATTEMPTS", run_two_attempts),
    ("TWO_WRITERS", write_by_two_at_once),
    ("TWO_WRITERS", write_by_the_old_one_again),
    ("TWO_WRITERS", write_once_more),
    ("TWO_WRITERS", write_in_turn),
    ("STANDS_STILL", stand_still),
    ("STANDS_STILL", wait_for_ever),
    ("ALIVE_AFTER_END", live_on),
    ("WRONG_LOADS", count_wrongly),
    ("WRONG_LOADS", keep_a_booking),
    ("UNTRUE_ENDS", succeed_with_a_torn_file),
    ("UNTRUE_ENDS", complete_what_does_not_decode),
    ("LOST_FRAMES", lose_a_frame),
    ("LOST_FRAMES", repeat_frames_at_no_joint),
    ("LOST_FRAMES", repeat_the_last_frame),
    ("LOST_FRAMES", lose_frames_elsewhere_than_at_a_joint),
    ("NOT_SAVED", lose_the_end),
    ("NOT_SAVED", lose_the_end_of_what_continues),
    ("NOT_SAVED", lose_an_earlier_attempt),
    ("NOT_PLAYABLE", leave_what_does_not_play),
    ("NOT_PLAYABLE", leave_less_than_was_told),
    ("ORPHANS", leave_a_lock),
]


@pytest.mark.parametrize(("invariant", "wrong"), WRONGS, ids=[wrong.__name__ for _, wrong in WRONGS])
def test_what_is_wrong_is_found(invariant: str, wrong: Callable[[History], None]) -> None:
    history = peaceful()
    wrong(history)
    found = check(history)
    assert invariant in {violation.invariant for violation in found}, found
    assert found == sorted(found, key=lambda violation: violation.at_s)


def test_every_invariant_has_a_history_that_violates_it() -> None:
    assert {invariant for invariant, _ in WRONGS} == INVARIANTS.keys()


def test_a_placement_whose_news_crossed_that_of_a_closing_is_no_violation() -> None:
    """It was placed after it was last seen unplaced, at 20.0 s: which may have been before the device closed."""
    history = peaceful()
    history.devices.append(device(19.0, "CORDONED", name="devices/two"))
    assert check(history) == []


def test_a_placement_whose_news_crossed_that_of_an_opening_is_no_violation() -> None:
    """It was seen placed at 21.0 s, on a device that was seen open right after."""
    history = peaceful()
    history.devices += [device(5.0, "UNHEALTHY", name="devices/two"), device(21.1, name="devices/two")]
    assert check(history) == []


def test_only_where_daemons_alone_are_harmed_no_session_begins_anew() -> None:
    history = peaceful()
    history.acts.append(Act(at_s=1.0, until_s=1.0, kind="kill program"))
    assert not history.daemons_only
    assert check(history) == []


def test_a_stopped_process_that_has_an_output_open_does_not_write_it() -> None:
    history = peaceful()
    held = program(writes=frozenset({"film"}), stopped=True)
    history.sightings.insert(3, seen(24.0, held, program(2, 8, "two", writes=frozenset({"film"}))))
    history.sightings.insert(4, seen(24.5, held))
    assert "TWO_WRITERS" not in {violation.invariant for violation in check(history)}


def test_an_earlier_attempt_that_could_not_be_reached_goes_soon_after_it_can_be() -> None:
    history = peaceful()
    history.devices[2:] = [device(14.0, "UNREACHABLE"), device(40.0)]
    history.sightings = [seen(2.0, program()), seen(39.9, program()), seen(49.9, program())]
    assert "ALIVE_AFTER_END" not in {violation.invariant for violation in check(history)}
    history.sightings.append(seen(50.1, program()))
    assert [violation.at_s for violation in check(history) if violation.invariant == "ALIVE_AFTER_END"] == [50.1]


def test_a_session_that_is_stopped_while_it_rests_is_stopping_until_its_outputs_are_completed() -> None:
    history = peaceful()
    history.sessions.insert(4, view(20.5, "STOPPING", 4, device="devices/one"))
    assert "WENT_BACK" not in {violation.invariant for violation in check(history)}


def test_what_is_done_to_a_session_that_is_stopping_has_no_second_attempt() -> None:
    history = peaceful()
    history.sessions[-1] = history.last[NAME] = view(31.0, "FAILED", 8, attempt=2, failure="SHIM_LOST")
    history.acts.append(Act(at_s=30.5, until_s=30.5, kind="kill shim", target=NAME))
    assert check(history) == []
    history.acts[-1] = Act(at_s=25.0, until_s=25.0, kind="kill shim", target=NAME)
    assert {violation.invariant for violation in check(history)} == {"UNEARNED_FAILURE"}


def test_what_a_full_disk_tore_or_nobody_looked_after_is_lost_and_nothing_else() -> None:
    history = peaceful()
    fail_of_a_full_disk(history)
    history.outputs[0] = OutputView(session=NAME, path="out", frames=10, lost=20, breaks=1)
    assert check(history) == []
    history.outputs[0] = OutputView(session=NAME, path="out", frames=10)
    assert {violation.invariant for violation in check(history)} == {"NOT_PLAYABLE"}
    history.sessions.insert(6, view(23.0, "RUNNING", 6, attempt=2, frames=3, conditions=("UNREACHABLE",)))
    assert "NOT_PLAYABLE" not in {violation.invariant for violation in check(history)}


def test_what_was_told_once_the_disk_was_full_need_not_be_there() -> None:
    history = peaceful()
    history.sessions[-1] = history.last[NAME] = view(31.0, "FAILED", 8, attempt=2, failure="DISK_FULL")
    history.outputs[0] = OutputView(session=NAME, path="out", frames=10)
    history.acts.append(Act(at_s=29.0, until_s=30.0, kind="fill outputs"))
    assert check(history) == []
    history.acts[-1] = Act(at_s=30.5, until_s=30.8, kind="fill outputs")
    assert {violation.invariant for violation in check(history)} == {"NOT_PLAYABLE"}


def test_what_was_thrown_away_on_the_move_is_told_and_need_not_be_there() -> None:
    history = peaceful()
    history.outputs[0] = OutputView(session=NAME, path="out", complaints=("nothing is there",))
    history.last[NAME] = replace(history.last[NAME], conditions=("OUTPUTS_DISCARDED",))
    assert {violation.invariant for violation in check(history)} >= {"UNTRUE_ENDS", "NOT_SAVED"}
    history.sessions[6] = replace(history.sessions[6], conditions=("MOVING",))
    assert check(history) == []


def test_excuses_hold_for_a_minute() -> None:
    history = peaceful()
    history.outputs[0] = OutputView(session=NAME, path="out", complaints=("nothing is there",))
    history.sessions[6] = replace(history.sessions[6], conditions=("MOVING",))
    history.sessions[-1] = replace(history.sessions[-1], at_s=100.0)
    history.last[NAME] = replace(history.sessions[-1], conditions=("OUTPUTS_DISCARDED",))
    assert {violation.invariant for violation in check(history)} >= {"UNTRUE_ENDS", "NOT_SAVED"}
    history = peaceful()
    fail_of_a_full_disk(history)
    history.sessions[-1] = history.last[NAME] = replace(history.last[NAME], at_s=100.0)
    assert "UNEARNED_FAILURE" in {violation.invariant for violation in check(history)}
    history = peaceful()
    history.acts.append(Act(at_s=30.5, until_s=30.5, kind="kill shim", target=NAME))
    history.sessions[-1] = history.last[NAME] = view(100.0, "FAILED", 8, attempt=2, failure="SHIM_LOST")
    assert "UNEARNED_FAILURE" in {violation.invariant for violation in check(history)}


def test_what_a_failed_session_had_of_earlier_attempts_is_there_unless_it_says_otherwise() -> None:
    history = peaceful()
    history.sessions[2] = replace(history.sessions[2], frames=1000)
    fail_of_a_full_disk(history)
    history.outputs[0] = OutputView(session=NAME, path="out", frames=95, cuts=1, continues=True)
    assert {violation.invariant for violation in check(history)} == {"NOT_PLAYABLE"}
    history.sessions[-1] = history.last[NAME] = replace(history.last[NAME], conditions=("PARTS_MISSING",))
    assert check(history) == []


def test_a_process_id_that_comes_again_is_another_program() -> None:
    history = peaceful()
    history.writes.append(wrote(22.0, 3, 7))
    assert "TWO_WRITERS" not in {violation.invariant for violation in check(history)}


def test_a_file_that_is_torn_by_a_failure_may_show_its_last_picture_twice() -> None:
    history = peaceful()
    repeat_the_last_frame(history)
    fail_of_a_full_disk(history)
    assert check(history) == []
