"""Recordings from launch to end: takes, pauses, ends of every kind, and agents that are replaced in the middle."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from recording_rig import RecordingRig, RecordingRigs, cause_of, key_of, recording, signal_program

from agents.browsers.page import PageEnd, PageFault
from agents.displays.display import Display, DisplayUnavailable
from agents.lock_holders import is_held
from agents.pipelines.job import AudioRendition, Rendition
from agents.recordings import runner
from agents.recordings.state import RecordingState
from agents.recordings.takes import Takes
from agents.sessions import joining, watches
from agents.sessions.attempt import AttemptStatus, Ending, Failure, Phase, StopCause
from agents.sessions.attempt_health import HealthBounds
from agents.sessions.folder import AttemptFolder
from gpu_balancer.runtime.failures import Reason, RequestFailure

pytestmark = pytest.mark.process


async def test_a_recording_runs_until_it_is_stopped_and_leaves_its_file(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
        assert (ended.ending, ended.failure) == (Ending.COMPLETED, None)
        assert rig.displays.lent == {}
    report = ended.recording_report
    assert report is not None
    assert report.end_cause == "STOPPED"
    assert [phase.name for phase in report.phases] == [
        "display",
        "browser",
        "navigation",
        "gate",
        "first_frame",
        "finalise",
    ]
    assert (report.browser, report.renderer, report.dismissed_dialogs) == ("Chromium 1", "ANGLE (Software)", 2)
    assert report.sound_timing is not None
    assert report.sound_timing.delay == timedelta(milliseconds=3)
    assert report.encoded_frames == report.captured_frames >= 6
    assert [file.path for file in report.files] == ["recording.mp4"]
    content = (rig.folder(job).artifacts / "recording.mp4").read_text()
    assert content == f"[begin][end {report.encoded_frames}]"
    assert not (rig.folder(job).artifacts / ".takes").exists()
    assert not (rig.folder(job).path / "takes").exists()


async def test_a_finished_file_that_somebody_takes_away_is_told(
    rigs: RecordingRigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = recording()
    async with rigs.start() as rig:
        film = rig.folder(job).artifacts / "recording.mp4"
        place = joining.place
        monkeypatch.setattr(joining, "place", lambda *asked: (film.unlink(), place(*asked))[1])
        await rig.launch(job)
        await rig.recorded(job, 6)
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.message.startswith("Cannot read recording.mp4, which was finished: No such file or directory.")
    assert ended.recording_report is not None
    assert ended.recording_report.files == ()


async def test_nothing_of_it_runs_when_its_end_is_told(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        assert await asyncio.to_thread(is_held, rig.folder(job).lock)
        await rig.registry.stop(key_of(job))
        await rig.ended(job)
        assert not await asyncio.to_thread(is_held, rig.folder(job).lock)


async def test_a_stop_before_the_first_picture_leaves_nothing(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        rig.pages.one.gate.clear()
        await rig.launch(job)
        await rig.until(job, lambda status: any(one.type == "AWAITING_GATE" for one in status.conditions))
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
        assert (ended.ending, ended.phase) == (Ending.STOPPED, Phase.ENDED)
        assert rig.displays.lent == {}
    assert list(rig.folder(job).artifacts.iterdir()) == []


@pytest.mark.parametrize(("end", "cause"), [(PageEnd.SIGNAL, "END_SIGNAL"), (PageEnd.CLOSED, "PAGE_CLOSED")])
async def test_a_page_ends_its_recording_in_order(rigs: RecordingRigs, end: PageEnd, cause: str) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        rig.pages.one.finish(end)
        ended = await rig.ended(job)
    assert (ended.ending, cause_of(ended)) == (Ending.COMPLETED, cause)
    assert (rig.folder(job).artifacts / "recording.mp4").exists()


@pytest.mark.parametrize(("end", "reason"), [(PageEnd.CRASHED, "PAGE_CRASHED"), (PageEnd.BROWSER_GONE, "BROWSER_LOST")])
async def test_a_page_that_is_lost_fails_its_recording_and_keeps_the_file(
    rigs: RecordingRigs, end: PageEnd, reason: str
) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        rig.pages.one.finish(end)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.ending, ended.failure.reason) == (Ending.FAILED, reason)
    artifacts = rig.folder(job).artifacts
    assert (artifacts / "recording.mp4").read_text().startswith("[begin][end ")
    assert (artifacts / "failure.png").read_bytes() == b"PNG"


async def test_a_display_that_is_lost_fails_its_recording_and_keeps_the_file(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        rig.displays.lent.clear()
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "DISPLAY_LOST"
    assert (rig.folder(job).artifacts / "recording.mp4").exists()


async def test_a_display_that_takes_too_much_fails_its_recording_and_keeps_the_file(rigs: RecordingRigs) -> None:
    job = recording()
    rigs.excess = Failure(reason="MEMORY_EXCEEDED", message="Cannot go on recording: it has taken too much.")
    async with rigs.start() as rig:
        await rig.launch(job)
        ended = await rig.ended(job)
        assert rig.displays.lent == {}
    assert (ended.ending, ended.failure) == (Ending.FAILED, rigs.excess)
    assert (rig.folder(job).artifacts / "recording.mp4").exists()


async def test_pages_that_close_because_their_display_is_lost_end_nothing_in_order(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        rig.displays.lent.clear()
        rig.pages.one.finish(PageEnd.CLOSED)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.ending, ended.failure.reason) == (Ending.FAILED, "DISPLAY_LOST")


async def test_an_ffmpeg_that_is_killed_fails_its_recording_and_keeps_the_file(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        signal_program(rig, job, 1, signal.SIGKILL)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.failure.reason, ended.failure.exit_code) == ("KILLED", 137)
    assert (rig.folder(job).artifacts / "recording.mp4").read_text() == "[begin]"


async def test_a_page_that_cannot_be_opened_fails_with_its_reason_and_a_picture(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        rig.pages.one.fault = PageFault("PAGE_HTTP_ERROR", "Cannot open the page: 404. Try its address.")
        await rig.launch(job)
        ended = await rig.ended(job)
        assert rig.displays.lent == {}
    assert ended.failure is not None
    assert (ended.failure.reason, ended.running_time) == ("PAGE_HTTP_ERROR", None)
    assert [path.name for path in rig.folder(job).artifacts.iterdir()] == ["failure.png"]


async def test_a_page_that_cannot_be_opened_because_its_display_is_lost_is_not_blamed(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        rig.pages.one.fault_at_gate = PageFault("PAGE_UNREACHABLE", "Cannot open the page: ERR_ABORTED. Try again.")
        take = rig.displays.acquire

        async def lost(**wish: Any) -> Display:
            display = await take(**wish)
            rig.displays.lent.clear()
            return display

        rig.displays.acquire = lost  # type: ignore[method-assign]
        await rig.launch(job)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "DISPLAY_LOST"


async def test_a_display_that_cannot_be_had_fails_with_its_reason(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        rig.displays.refusal = DisplayUnavailable("DISPLAY_TIMEOUT", "Cannot get a display.")
        await rig.launch(job)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.ending, ended.failure.reason) == (Ending.FAILED, "DISPLAY_TIMEOUT")


async def test_it_ends_after_the_time_it_was_given(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job, max_duration=timedelta(seconds=0.5))
        ended = await rig.ended(job)
    assert (ended.ending, cause_of(ended)) == (Ending.COMPLETED, "MAX_DURATION")
    assert ended.progress is not None
    assert ended.progress.total_time == timedelta(seconds=0.5)
    assert ended.progress.out_time >= timedelta(seconds=0.2)


async def test_an_ffmpeg_that_hangs_ends_after_its_time_too(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job, max_duration=timedelta(seconds=1))
        await rig.recorded(job, 6)
        signal_program(rig, job, 1, signal.SIGSTOP)
        ended = await rig.ended(job)
    assert (ended.ending, cause_of(ended)) == (Ending.COMPLETED, "MAX_DURATION")
    assert (rig.folder(job).artifacts / "recording.mp4").exists()


async def test_a_recording_of_sound_alone_runs_and_ends_in_order(rigs: RecordingRigs) -> None:
    heard = Rendition(id="sound", video=None, audio=AudioRendition())
    job = replace(recording(), renditions=(heard,))
    async with rigs.start() as rig:
        await rig.launch(job, max_duration=timedelta(seconds=0.5))
        assert (await rig.running(job)).phase is Phase.RUNNING
        ended = await rig.ended(job)
    assert (ended.ending, ended.failure, cause_of(ended)) == (Ending.COMPLETED, None, "MAX_DURATION")
    assert ended.recording_report is not None
    assert ended.recording_report.encoded_frames == 0


async def test_its_time_can_be_changed_while_it_records(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 9)
        await rig.runner(job).extend(timedelta(seconds=0.1))
        ended = await rig.ended(job)
    assert cause_of(ended) == "MAX_DURATION"


# Pauses


async def paused(rig: RecordingRig, job: object) -> AttemptStatus:
    return await rig.until(job, lambda status: any(one.type == "PAUSED" for one in status.conditions))  # type: ignore[arg-type]


async def test_a_pause_ends_a_take_and_resuming_begins_the_next_one(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        await rig.runner(job).pause()
        rested = await paused(rig, job)
        assert rested.progress is not None
        before = rested.progress.frames
        await rig.runner(job).resume()
        resumed = await rig.recorded(job, before + 6)
        assert resumed.conditions == ()
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    report = ended.recording_report
    assert report is not None
    assert report.take_count == 2
    content = (rig.folder(job).artifacts / "recording.mp4").read_text()
    assert content == f"[begin][end {before}][begin][end {report.encoded_frames - before}]"


async def test_asking_for_a_pause_or_its_end_again_changes_nothing(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await asyncio.gather(rig.runner(job).pause(), rig.runner(job).pause())
        await paused(rig, job)
        await asyncio.gather(rig.runner(job).resume(), rig.runner(job).resume())
        await rig.until(job, lambda status: status.conditions == ())
        assert len(rig.state(job).takes) <= 2
        await rig.registry.stop(key_of(job))
        assert (await rig.ended(job)).ending is Ending.COMPLETED


async def test_pauses_that_follow_fast_on_one_another_end_nothing(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        for number in range(12):
            await rig.runner(job).pause()
            await asyncio.sleep(number * 0.01)
            await rig.runner(job).resume()
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert (ended.ending, ended.failure, cause_of(ended)) == (Ending.COMPLETED, None, "STOPPED")


async def test_a_recording_that_rests_can_be_stopped(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.runner(job).pause()
        await paused(rig, job)
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert (ended.ending, cause_of(ended)) == (Ending.COMPLETED, "STOPPED")


async def test_a_recording_that_another_attempt_goes_on_with_is_not_done(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.registry.stop(key_of(job), to_be_continued=True)
        ended = await rig.ended(job)
    assert (ended.ending, cause_of(ended)) == (Ending.STOPPED, "STOPPED")


async def test_what_does_not_record_cannot_be_paused(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        rig.pages.one.gate.clear()
        await rig.launch(job)
        with pytest.raises(RequestFailure) as caught:
            await rig.runner(job).pause()
        assert caught.value.reason is Reason.SESSION_NOT_RECORDING
        await rig.registry.stop(key_of(job))
        await rig.ended(job)


async def test_a_picture_is_of_the_recordings_own_display(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        assert await rig.runner(job).snapshot(320) == b":1 320"
        await rig.registry.stop(key_of(job))
        await rig.ended(job)


# Agents that are replaced


async def test_a_new_agent_goes_on_with_a_recording_that_runs(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        before = await rig.recorded(job, 6)
    async with rigs.start() as rig:
        assert before.progress is not None
        await rig.recorded(job, before.progress.frames + 6)
        assert rig.pages.taken_over == 1
        rig.pages.one.finish(PageEnd.SIGNAL)
        ended = await rig.ended(job)
    assert (ended.ending, cause_of(ended)) == (Ending.COMPLETED, "END_SIGNAL")
    report = ended.recording_report
    assert report is not None
    assert report.take_count == 1
    assert (rig.folder(job).artifacts / "recording.mp4").read_text() == f"[begin][end {report.encoded_frames}]"


async def test_a_new_agent_touches_no_recording_before_it_knows_the_displays(rigs: RecordingRigs) -> None:
    """One that did would take its display for lost."""
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
    rigs.displays_known.clear()
    async with rigs.start() as rig:
        assert rig.registry.live_count == 1
        await rig.registry.stop(key_of(job))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(rig.ended(job))
            # Everything but what waits for the displays has its turn.
            await asyncio.to_thread(rig.state, job)
            assert not waiting.done()
            assert rig.state(job).end is None
            rigs.displays_known.set()
        assert (waiting.result().ending, cause_of(waiting.result())) == (Ending.COMPLETED, "STOPPED")


async def test_a_new_agent_begins_anew_what_had_not_begun(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        rig.pages.one.gate.clear()
        await rig.launch(job)
        await rig.until(job, lambda status: any(one.type == "AWAITING_GATE" for one in status.conditions))
    async with rigs.start() as rig:
        await rig.running(job)
        assert rig.displays.released == ["d1"]
        assert rig.pages.taken_over == 0
        await rig.registry.stop(key_of(job))
        assert (await rig.ended(job)).ending is Ending.COMPLETED


async def test_a_new_agent_leaves_a_pause_as_it_is(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.runner(job).pause()
        await paused(rig, job)
    async with rigs.start() as rig:
        await rig.runner(job).resume()
        await rig.until(job, lambda status: status.conditions == ())
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
    assert ended.recording_report is not None
    assert ended.recording_report.take_count == 2


async def test_a_recording_that_rests_goes_on_resting_as_another_attempt(rigs: RecordingRigs) -> None:
    """Nothing is recorded that nobody asked for, whatever moved or ended its first attempt."""
    first = recording()
    second = replace(first, attempt=2, continues=True)
    third = replace(second, attempt=3)
    async with rigs.start() as rig:
        await rig.launch(first)
        await rig.running(first)
        await rig.runner(first).pause()
        await paused(rig, first)
        await rig.registry.stop(key_of(first), to_be_continued=True)
        moved = await rig.ended(first)
        await rig.launch(second, continues=[moved])
        await paused(rig, second)
        await rig.registry.stop(key_of(second), to_be_continued=True)
        again = await rig.ended(second)
        await rig.launch(third, continues=[moved, again])
        await paused(rig, third)
        assert rig.state(third).takes == ()
        await rig.runner(third).resume()
        await rig.running(third)
        await rig.registry.stop(key_of(third))
        ended = await rig.ended(third)
        assert (ended.ending, ended.failure) == (Ending.COMPLETED, None)
        assert moved.recording_report is not None
        assert ended.recording_report is not None
        assert ended.recording_report.take_count == 2, "one of the first attempt, none of the second"
        assert ended.recording_report.encoded_frames > moved.recording_report.encoded_frames > 0


async def test_a_pause_that_a_killed_agent_told_ends_when_its_successor_resumes(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.runner(job).pause()
        await paused(rig, job)
        told, content = rig.folder(job).status, rig.folder(job).status.read_bytes()
    told.write_bytes(content)
    async with rigs.start() as rig:
        await paused(rig, job)
        await rig.runner(job).resume()
        await rig.until(job, lambda status: status.conditions == ())
        await rig.registry.stop(key_of(job))
        await rig.ended(job)


async def test_a_new_agent_finishes_what_ended_while_none_was_there(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
    signal_program(rig, job, 1, signal.SIGKILL)
    async with rigs.start() as rig:
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "KILLED"
    assert (rig.folder(job).artifacts / "recording.mp4").read_text() == "[begin]"


async def test_a_new_agent_ends_what_was_to_be_stopped(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        await rig.runner(job)._told.stop(StopCause.ASKED, discard_outputs=False)
    async with rigs.start() as rig:
        ended = await rig.ended(job)
    assert (ended.ending, cause_of(ended)) == (Ending.COMPLETED, "STOPPED")
    assert (rig.folder(job).artifacts / "recording.mp4").read_text().startswith("[begin][end ")


async def test_a_display_that_ended_while_no_agent_was_there_fails_the_recording(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        rig.displays.lent.clear()
    async with rigs.start() as rig:
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert ended.failure.reason == "DISPLAY_LOST"
    assert (rig.folder(job).artifacts / "recording.mp4").exists()


async def test_what_was_recorded_when_the_machine_went_down_is_kept(rigs: RecordingRigs) -> None:
    """After a power cut nothing runs, and what the shim wrote down of itself may not have reached the disk."""
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
    rigs.end_everything()
    for name in ("shim.pid", "program.pid", "exit"):
        (rig.folder(job).path / "takes" / "1" / name).write_text(" " * 15 + "\n")
    async with rigs.start() as rig:
        rig.displays.lent.clear()
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.ending, ended.failure.reason) == (Ending.FAILED, "DISPLAY_LOST")
    assert ended.progress is not None
    assert ended.progress.frames >= 6
    assert (rig.folder(job).artifacts / "recording.mp4").read_text() == "[begin]"


async def test_a_recording_of_which_everything_was_killed_while_no_agent_was_there_ends(rigs: RecordingRigs) -> None:
    """Its shim has written who it is, and nobody can tell any more how it ended."""
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
    rigs.end_everything()
    async with rigs.start() as rig:
        ended = await rig.ended(job)
    assert ended.failure is not None
    # Which, is up to whether the shim was quick enough to write down that its program was killed.
    assert (ended.ending, ended.failure.reason in {"DISPLAY_LOST", "KILLED"}) == (Ending.FAILED, True)
    assert (rig.folder(job).artifacts / "recording.mp4").read_text() == "[begin]"


async def test_a_state_that_cannot_be_read_ends_the_recording_and_says_so(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
    (rig.folder(job).path / "recording.json").write_text("{")
    async with rigs.start() as rig:
        ended = await rig.ended(job)
        assert not await asyncio.to_thread(is_held, rig.folder(job).lock)
    assert ended.failure is not None
    assert ended.failure.reason == "RECORD_DAMAGED"


# What is unforeseen


@pytest.mark.parametrize("name", ["_turn", "_conclude"])
async def test_a_mistake_in_directing_costs_no_recording(
    rigs: RecordingRigs, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(watches, "_AGAIN_AFTER_S", (0.01, 0.01))
    method, faults = getattr(Takes, name), iter(range(2))

    async def unforeseen(takes: Takes, *arguments: Any) -> None:
        if next(faults, None) is not None:
            raise KeyError("unforeseen")
        await method(takes, *arguments)

    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        monkeypatch.setattr(Takes, name, unforeseen)
        if name == "_turn":
            director = rig.runner(job)
            await rig.until(job, lambda _: rig.runner(job) is not director)
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
        assert next(faults, None) is None
        assert (ended.ending, ended.failure, rig.displays.lent) == (Ending.COMPLETED, None, {})
    report = ended.recording_report
    assert report is not None
    content = (rig.folder(job).artifacts / "recording.mp4").read_text()
    assert content == f"[begin][end {report.encoded_frames}]"


async def test_a_recording_that_cannot_be_directed_is_ended_with_its_display(
    rigs: RecordingRigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_AGAIN_AFTER_S", (0.01, 0.01))

    async def unforeseen(*_: Any) -> None:
        raise KeyError("unforeseen")

    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        monkeypatch.setattr(Takes, "_turn", unforeseen)
        ended = await rig.ended(job)
        assert ended.failure is not None
        assert (ended.ending, ended.failure.reason) == (Ending.FAILED, "AGENT_FAULT")
        assert rig.displays.lent == {}
        assert not await asyncio.to_thread(is_held, rig.folder(job).lock)
        await rig.registry.delete(job.session)
        assert not rig.folder(job).path.exists()


async def test_a_recording_whose_state_cannot_be_read_again_keeps_no_display(
    rigs: RecordingRigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_AGAIN_AFTER_S", (0.01, 0.01, 0.01))

    async def unforeseen(*_: Any) -> None:
        raise KeyError("unforeseen")

    def sick(*_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        monkeypatch.setattr(runner, "read_state", sick)
        monkeypatch.setattr(Takes, "_turn", unforeseen)
        ended = await rig.ended(job)
        assert ended.failure is not None
        assert (ended.failure.reason, rig.displays.lent) == ("AGENT_FAULT", {})


async def test_nobody_waits_for_a_director_that_never_learns_where_the_recording_stands(
    rigs: RecordingRigs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "_AGAIN_AFTER_S", (1.0, 0.01, 0.01))
    read, faults, mistakes = runner.read_state, iter(range(1)), iter(range(1))
    turn = Takes._turn

    async def unforeseen(takes: Takes, *arguments: Any) -> None:
        if next(mistakes, None) is not None:
            raise KeyError("unforeseen")
        await turn(takes, *arguments)

    def sick(folder: AttemptFolder) -> RecordingState:
        if next(faults, None) is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(folder)

    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        first = rig.runner(job)
        monkeypatch.setattr(runner, "read_state", sick)
        monkeypatch.setattr(Takes, "_turn", unforeseen)
        async with asyncio.timeout(20):
            while rig.runner(job) is first:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
        second = rig.runner(job)
        await second.stop(StopCause.DISK_LOW)
        with pytest.raises(RequestFailure, match="tries again"):
            await second.pause()
        await rig.until(job, lambda _: rig.runner(job) is not second)
        await rig.registry.stop(key_of(job))
        assert (await rig.ended(job)).ending is Ending.COMPLETED


# What is left


async def test_artifacts_are_copied_where_the_client_asked_for_it(rigs: RecordingRigs) -> None:
    job = recording(destinations=("archive",))
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.registry.stop(key_of(job))
        await rig.ended(job)
        assert rig.deliveries.begun == [("s1", ("recording.mp4",), ("archive",))]


async def test_what_another_attempt_makes_anew_is_thrown_away(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.registry.stop(key_of(job), discard_outputs=True)
        ended = await rig.ended(job)
        assert ended.failure is None
        assert conditions_of(ended) == ["OUTPUTS_DISCARDED"]
        assert not rig.folder(job).artifacts.exists()


async def test_a_stop_that_keeps_what_was_to_be_thrown_away_is_heard_while_it_records(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.running(job)
        await rig.registry.stop(key_of(job), discard_outputs=True)
        await rig.registry.stop(key_of(job))
        ended = await rig.ended(job)
        assert (ended.failure, conditions_of(ended)) == (None, [])
        assert (rig.folder(job).artifacts / "recording.mp4").exists()


def conditions_of(status: AttemptStatus) -> list[str]:
    return [condition.type for condition in status.conditions]


async def test_a_recording_without_new_pictures_is_told_as_stalled_and_then_ended_with_its_file(
    rigs: RecordingRigs,
) -> None:
    rigs.health = HealthBounds(stalled_after=timedelta(seconds=1), stalled_timeout=timedelta(seconds=2))
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        signal_program(rig, job, 1, signal.SIGSTOP)
        stalled = await rig.until(job, lambda status: "STALLED" in conditions_of(status))
        [told] = stalled.conditions
        assert told.message == "No frame was written for 1 s: its process is stopped."
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.ending, ended.failure.reason, cause_of(ended)) == (Ending.FAILED, "STALLED", "STALLED")
    assert (rig.folder(job).artifacts / "recording.mp4").read_text().startswith("[begin][end ")


async def test_a_recording_that_loses_pictures_tells_how_many(rigs: RecordingRigs) -> None:
    rigs.shooting.lost_of_three = 1
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        degraded = await rig.until(job, lambda status: "DEGRADED" in conditions_of(status))
        [told] = [one for one in degraded.conditions if one.type == "DEGRADED"]
        assert "It lost " in told.message
        await rig.registry.stop(key_of(job))
        assert (await rig.ended(job)).failure is None


async def test_a_recording_that_makes_room_for_others_is_ended_with_its_file(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        await rig.launch(job)
        await rig.recorded(job, 6)
        [live] = rig.registry.live_sessions()
        assert (live.urgent, live.leaves_files) == (True, True)
        await live.runner.stop(StopCause.DISK_LOW)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.ending, ended.failure.reason, cause_of(ended)) == (Ending.FAILED, "DISK_LOW", "DISK_LOW")
    assert (rig.folder(job).artifacts / "recording.mp4").read_text().startswith("[begin][end ")


async def test_a_recording_that_makes_room_before_it_has_begun_is_told_so(rigs: RecordingRigs) -> None:
    job = recording()
    async with rigs.start() as rig:
        rig.pages.one.gate.clear()
        await rig.launch(job)
        await rig.until(job, lambda status: "AWAITING_GATE" in conditions_of(status))
        [live] = rig.registry.live_sessions()
        await live.runner.stop(StopCause.DISK_LOW)
        ended = await rig.ended(job)
    assert ended.failure is not None
    assert (ended.ending, ended.failure.reason) == (Ending.FAILED, "DISK_LOW")
    assert ended.failure.message.startswith("Cannot record: hardly any room is left on the disk.")
