"""Falling behind real time: when it is told, in which figures, and when it is over."""

from __future__ import annotations

import pytest

from agents.sessions.lag_watch import LagWatch, Reading


def run(watch: LagWatch, *, speed: float, seconds: int, since: Reading | None = None, lost_per_s: int = 0) -> Reading:
    """A report a second of a program at 30 frames per second of media."""
    last = since or Reading(at_s=100.0, out_s=0.0, frames=0, lost_frames=0)
    for _ in range(seconds):
        out_s = last.out_s + speed
        last = Reading(
            at_s=last.at_s + 1,
            out_s=out_s,
            frames=round(out_s * 30),
            lost_frames=last.lost_frames + lost_per_s,
        )
        watch.note(last)
    return last


def a_watch(frame_rate: float | None = 30.0) -> LagWatch:
    return LagWatch(below=0.97, frame_rate=frame_rate)


def test_a_slow_program_is_told_after_ten_seconds_with_speed_frames_and_backlog() -> None:
    watch = a_watch()
    last = run(watch, speed=0.82, seconds=10)
    assert watch.told is None, "ten reports span nine seconds"
    run(watch, speed=0.82, seconds=1, since=last)
    assert watch.told == "It runs at 0.82 of real time, 24.6 of 30 frames/s, 54 frames behind."


def test_without_a_known_frame_rate_the_backlog_is_told_in_seconds() -> None:
    watch = a_watch(frame_rate=None)
    run(watch, speed=0.5, seconds=11)
    assert watch.told == "It runs at 0.50 of real time, 5.0 s behind."


@pytest.mark.parametrize("speed", [0.98, 1.0, 1.7])
def test_who_keeps_up_is_not_told(speed: float) -> None:
    watch = a_watch()
    run(watch, speed=speed, seconds=60)
    assert watch.told is None


def test_jerky_reports_of_a_program_that_keeps_up_are_not_told() -> None:
    watch = a_watch()
    for second in range(60):
        late_s = 0.4 if second % 2 else 0.0
        out_s = second - late_s
        watch.note(Reading(at_s=100.0 + second, out_s=out_s, frames=round(out_s * 30), lost_frames=0))
        assert watch.told is None


def test_it_is_over_only_when_it_clearly_keeps_up_again() -> None:
    watch = a_watch()
    last = run(watch, speed=0.8, seconds=15)
    last = run(watch, speed=0.975, seconds=15, since=last)
    assert watch.told is not None, "just above the bound it would come and go"
    run(watch, speed=1.0, seconds=15, since=last)
    assert watch.told is None


def test_a_program_that_begins_ahead_is_behind_by_what_it_has_lost_of_that() -> None:
    """A live input hands over a few seconds at once, and then comes in real time."""
    watch = a_watch()
    last = run(watch, speed=4.0, seconds=1)
    run(watch, speed=0.9, seconds=20, since=last)
    assert watch.told == "It runs at 0.90 of real time, 27.0 of 30 frames/s, 60 frames behind."


def test_lost_frames_are_told_although_the_media_time_keeps_up() -> None:
    watch = a_watch()
    last = run(watch, speed=1.0, seconds=11, lost_per_s=3)
    assert watch.told == "It lost 30 of 300 frames in 10 s."
    run(watch, speed=1.0, seconds=11, since=last)
    assert watch.told is None


def test_few_lost_frames_are_nothing_to_tell() -> None:
    watch = a_watch()
    run(watch, speed=1.0, seconds=40, lost_per_s=1)
    assert watch.told is None


def test_a_rest_is_forgotten() -> None:
    watch = a_watch()
    last = run(watch, speed=0.8, seconds=15)
    watch.begin_anew()
    assert watch.told is None
    resumed = Reading(at_s=last.at_s + 600, out_s=last.out_s, frames=last.frames, lost_frames=0)
    run(watch, speed=1.0, seconds=30, since=resumed)
    assert watch.told is None
