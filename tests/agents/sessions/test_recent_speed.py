"""The speed that is told of a program is that of its last seconds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from agents.pipelines.progress import Progress
from agents.sessions.recent_speed import RecentSpeed


def report(out_s: float, *, speed: float | None = 40.0) -> Progress:
    """What ffmpeg tells at 25 frames/s of media."""
    out_time = timedelta(seconds=out_s)
    return Progress(frames=round(out_s * 25), frames_per_second=1000.0, speed=speed, out_time=out_time)


def test_the_average_is_told_until_three_seconds_are_known_and_then_what_they_tell() -> None:
    recent = RecentSpeed()
    out_s = 400.0
    for tenth in range(30):
        told = report(out_s + tenth * 0.02)
        assert recent.note(told, 10 + tenth / 10) is told
    held = recent.note(report(out_s + 0.6), 13.0)
    assert (held.speed, held.frames_per_second) == (pytest.approx(0.2), pytest.approx(5.0))
    assert held.out_time == timedelta(seconds=400.6)


def test_a_program_that_is_let_go_is_told_as_fast_within_seconds() -> None:
    recent = RecentSpeed()
    for second in range(60):
        recent.note(report(second * 0.5, speed=0.5), second)
    for second in range(1, 4):
        free = recent.note(report(30 + second * 20, speed=0.9), 59 + second)
    assert free.speed == pytest.approx(20, rel=0.02)


def test_reports_ten_a_second_are_looked_at_over_the_same_time_as_one_a_second() -> None:
    recent = RecentSpeed()
    for tenth in range(1000):
        told = recent.note(report(tenth * 0.1 if tenth < 950 else 95 + (tenth - 950) * 0.3), tenth / 10)
    assert told.speed == pytest.approx(3)


def test_nothing_is_made_of_times_that_say_nothing() -> None:
    recent = RecentSpeed()
    recent.note(report(10), 5)
    for at_s in (5, 4, 4):  # a wall clock that was set
        told = report(11)
        assert recent.note(told, at_s) is told
    back = recent.note(report(3), 9)
    assert (back.speed, back.frames_per_second) == (0, 0)
    unknown = report(12, speed=None)
    assert recent.note(unknown, 20) is unknown
