"""Reading ffmpeg's progress file."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from agents.pipelines.progress import Progress, parse_progress

_FIRST = """\
frame=0
fps=0.00
stream_0_0_q=0.0
bitrate=N/A
total_size=48
out_time_us=N/A
out_time_ms=N/A
out_time=N/A
dup_frames=0
drop_frames=0
speed=N/A
progress=continue
"""
_SECOND = """\
frame=51
fps=50.04
stream_0_0_q=24.0
bitrate= 335.5kbits/s
total_size=83886
out_time_us=2005333
out_time_ms=2005333
out_time=00:00:02.005333
dup_frames=3
drop_frames=1
speed=1.97x
progress=continue
"""
_LAST = """\
frame=75
fps=51.10
bitrate=N/A
total_size=N/A
out_time_us=3008000
dup_frames=3
drop_frames=2
speed=12.1x
progress=end
"""


def test_figures_are_read_block_by_block() -> None:
    progress, rest = parse_progress(_FIRST + _SECOND, None)
    assert rest == ""
    assert progress == Progress(
        frames=51,
        frames_per_second=50.04,
        speed=1.97,
        duplicated_frames=3,
        dropped_frames=1,
        out_time=timedelta(microseconds=2005333),
        written_bytes=83886,
    )


def test_figures_that_ffmpeg_does_not_know_are_unknown() -> None:
    progress, _ = parse_progress(_FIRST, None)
    assert progress == Progress(written_bytes=48)


def test_the_last_block_is_marked() -> None:
    progress, _ = parse_progress(_SECOND + _LAST, None)
    assert progress is not None
    assert progress.ended
    assert progress.frames == 75
    assert progress.written_bytes is None


def test_nothing_new_gives_back_what_was_known() -> None:
    known = Progress(frames=3)
    progress, rest = parse_progress("frame=4\nfps=1", known)
    assert progress is known
    assert rest == "frame=4\nfps=1"


def test_sound_alone_has_no_frames_but_a_time() -> None:
    progress, _ = parse_progress("total_size=1\nout_time_us=1000000\nspeed=2x\nprogress=continue\n", None)
    assert progress == Progress(out_time=timedelta(seconds=1), speed=2.0, written_bytes=1)


def test_a_time_before_the_start_is_not_believed() -> None:
    progress, _ = parse_progress("out_time_us=-577014:32:22.77\nprogress=continue\n", None)
    assert progress == Progress()


def test_the_total_time_that_somebody_set_is_carried_on() -> None:
    progress, _ = parse_progress(_SECOND, Progress(total_time=timedelta(seconds=9)))
    assert progress is not None
    assert progress.total_time == timedelta(seconds=9)


def test_what_is_no_progress_file_is_not_kept_for_ever() -> None:
    rest = ""
    for _ in range(4):
        progress, rest = parse_progress(rest + "x" * 50_000, None)
        assert progress is None
    assert len(rest) < 100_000


@given(st.lists(st.integers(min_value=1, max_value=120), max_size=40))
def test_it_does_not_matter_in_what_pieces_the_file_is_read(sizes: list[int]) -> None:
    text = _FIRST + _SECOND + _LAST
    whole, _ = parse_progress(text, None)
    progress, rest, start = None, "", 0
    for size in [*sizes, len(text)]:
        progress, rest = parse_progress(rest + text[start : start + size], progress)
        start += size
    assert progress == whole
    assert rest == ""


@given(st.text())
def test_no_text_makes_reading_fail(text: str) -> None:
    parse_progress(text + "\nprogress=continue\n", None)


@given(st.dictionaries(st.sampled_from(["frame", "fps", "out_time_us", "speed", "total_size"]), st.text(max_size=30)))
def test_no_figure_makes_reading_fail(figures: dict[str, str]) -> None:
    block = "".join(f"{key}={value}\n" for key, value in figures.items())
    progress, _ = parse_progress(f"{block}progress=continue\n", None)
    assert progress is not None
