"""What became of the pictures, read from ffmpeg's lines about them."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agents.pipelines.frame_lines import FrameTruth, join_truths, parse_frame_lines
from agents.pipelines.stillness import Stillness, parse_stillness

STEP = 0.1


def _lines(*indices: int) -> str:
    return "".join(f"{number} {index} {number * STEP:.5f} {index * STEP:.5f}\n" for number, index in enumerate(indices))


def _truth(*indices: int) -> FrameTruth:
    return parse_frame_lines(_lines(*indices), None)[0]


def test_pictures_that_were_all_taken_are_all_there() -> None:
    truth = _truth(0, 1, 2, 3)
    assert (truth.encoded_frames, truth.captured_frames, truth.duplicated_frames, truth.dropped_frames) == (4, 4, 0, 0)
    assert truth.longest_freeze == timedelta()
    assert truth.first_time == timedelta()
    assert truth.last_time == timedelta(seconds=0.3)


def test_a_picture_that_stands_in_for_two_is_a_freeze_of_two() -> None:
    truth = _truth(0, 0, 0, 1, 2, 2, 3)
    assert truth.duplicated_frames == 3
    assert truth.captured_frames == 4
    assert truth.longest_freeze == timedelta(seconds=0.2)


def test_pictures_that_were_left_out_are_dropped() -> None:
    truth = _truth(1, 4)
    assert (truth.captured_frames, truth.dropped_frames) == (5, 3)


@given(st.lists(st.integers(0, 3), max_size=30), st.integers(1, 40))
def test_frames_add_up_however_the_file_is_read(steps: list[int], size: int) -> None:
    indices, index = [], 0
    for step in steps:
        index += step
        indices.append(index)
    text = _lines(*indices)
    truth: FrameTruth | None = None
    rest = ""
    for start in range(0, len(text), size):
        truth, rest = parse_frame_lines(rest + text[start : start + size], truth)
    assert rest == ""
    if truth is not None:
        assert truth == parse_frame_lines(text, None)[0]
        assert truth.captured_frames == truth.encoded_frames - truth.duplicated_frames + truth.dropped_frames


def test_what_cannot_be_read_is_skipped() -> None:
    truth, rest = parse_frame_lines("nonsense\n-1 -1 x y\n0 0 0.5 0.5\n1 1 0", None)
    assert truth.encoded_frames == 1
    assert truth.first_time == timedelta(seconds=0.5)
    assert rest == "1 1 0"


def test_takes_add_up_and_the_longest_freeze_counts() -> None:
    whole = join_truths((_truth(0, 0, 1), _truth(0, 0, 0, 1), FrameTruth()))
    assert (whole.encoded_frames, whole.captured_frames, whole.duplicated_frames) == (7, 4, 3)
    assert whole.longest_freeze == timedelta(seconds=0.2)
    assert join_truths(()) == FrameTruth()


def test_stillness_begins_and_ends() -> None:
    began = "frame:96 pts:97280 pts_time:2.02\nlavfi.silence_start=1.5\n"
    now, rest = parse_stillness(began + "frame:97 pts", None)
    assert now == Stillness(since=timedelta(seconds=1.5))
    now, _ = parse_stillness(rest + ":9 pts_time:3\nlavfi.silence_end=3\nlavfi.silence_duration=1.5\n", now)
    assert now == Stillness(since=None, until=timedelta(seconds=3))


def test_a_still_picture_is_read_alike_and_never_begins_before_the_take() -> None:
    now, _ = parse_stillness("lavfi.freezedetect.freeze_start=0\n", None)
    assert now.since == timedelta()
    assert parse_stillness("lavfi.silence_start.1=-0.04\n", None)[0].since == timedelta()
    ended, _ = parse_stillness("lavfi.freezedetect.freeze_duration=2\nlavfi.freezedetect.freeze_end=2\n", now)
    assert ended == Stillness(until=timedelta(seconds=2))
