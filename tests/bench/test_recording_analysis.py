"""What the benchmarks read back from a recording is what is in it."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import numpy as np
import pytest
from made_recordings import HEIGHT, WIDTH, X264, blank_picture, strip_picture, write_beeps, write_video

from bench.analysis.colours import PATCHES, measure_colours
from bench.analysis.decoding import FFMPEG
from bench.analysis.drift import drift_of
from bench.analysis.media_file import is_faststart, measure_playable, top_boxes
from bench.analysis.sound_offset import measure_sound_offset
from bench.analysis.strip import WRAP_MS, Loss, Reading, count_frames, first_drawing_time_s, read_strip

pytestmark = pytest.mark.process


def shown(drawings: list[int]) -> list[np.ndarray]:
    return [strip_picture(5_000 + drawing * 1000 // 60, drawing, noise=60) for drawing in drawings]


def test_every_frame_of_an_undisturbed_recording_is_accounted_for(tmp_path: Path) -> None:
    made = write_video(tmp_path / "a.mp4", shown(list(range(1, 181, 2))))
    reading = read_strip(made)
    assert reading.drawings.tolist() == list(range(1, 181, 2))
    found = count_frames(reading, frame_rate=30)
    assert (found.frames, found.lost, found.repeated, found.leading_unreadable) == (90, 0, 0, 0)
    assert found.page_rate == pytest.approx(60, abs=0.2)


def test_frames_that_stand_in_for_others_are_lost_and_how_long_they_stood_is_told(tmp_path: Path) -> None:
    drawings = [*range(1, 41, 2), 39, 39, *range(45, 85, 2)]
    found = count_frames(read_strip(write_video(tmp_path / "a.mp4", shown(drawings))), frame_rate=30)
    assert (found.repeated, found.repeated_by_page, found.lost) == (2, 0, 2)
    assert found.longest_freeze_s == pytest.approx(0.1, abs=0.001)
    (loss,) = found.losses
    # Drawn at 60 a second: 39 at 5,650 ms, 45 at 5,750 ms.
    assert loss == Loss(frames=2, before_ms=5_650, after_ms=5_750)
    assert loss.in_step(30)


@pytest.mark.parametrize(("after_ms", "in_step"), [(34, False), (50, False), (58, True), (67, True), (84, False)])
def test_a_loss_is_out_of_step_when_the_pages_time_went_on_otherwise(after_ms: int, in_step: bool) -> None:
    begin_ms = WRAP_MS - 20
    loss = Loss(frames=1, before_ms=begin_ms, after_ms=(begin_ms + after_ms) % WRAP_MS)
    assert loss.in_step(30) is in_step


def test_the_pages_time_is_counted_on_where_it_begins_anew_and_not_where_it_goes_back() -> None:
    page_ms = np.array([-1, WRAP_MS - 200, WRAP_MS - 100, -1, 0, 100, 50, -1])
    reading = Reading(times_s=np.arange(8) / 10, drawings=np.arange(8), page_ms=page_ms)
    assert (reading.drawn_ms() - WRAP_MS).tolist() == [-200, -100, 0, 100, 50]
    unread = Reading(times_s=np.arange(2) / 10, drawings=np.full(2, -1), page_ms=np.full(2, -1))
    assert unread.drawn_ms().tolist() == []


def test_the_recorder_is_not_blamed_for_a_page_that_draws_nothing(tmp_path: Path) -> None:
    drawings = [*range(1, 41, 2), 39, 39, *range(40, 80, 2)]
    found = count_frames(read_strip(write_video(tmp_path / "a.mp4", shown(drawings))), frame_rate=30)
    assert (found.repeated, found.repeated_by_page, found.lost) == (2, 2, 0)


def test_a_drawing_that_no_frame_shows_is_told_of_a_page_that_draws_at_the_recordings_rate(tmp_path: Path) -> None:
    drawings = [*range(1, 21), *range(22, 41)]
    found = count_frames(read_strip(write_video(tmp_path / "a.mp4", shown(drawings))), frame_rate=30)
    assert (found.unseen, found.lost) == (1, 0)


@pytest.mark.parametrize(
    ("begin_s", "end_s", "met"),
    [(5.6, 5.7, True), (5.7, 5.71, True), (5.74, 6, True), (5.0, 5.5, False), (5.81, 5.9, False), (5.5, 5.61, True)],
)
@pytest.mark.parametrize("wrapped_s", [0, 3 * WRAP_MS / 1000])
def test_a_loss_meets_a_standstill_that_it_overlaps(begin_s: float, end_s: float, met: bool, wrapped_s: float) -> None:
    loss = Loss(frames=2, before_ms=5_650, after_ms=5_750)
    assert loss.meets(wrapped_s + begin_s, wrapped_s + end_s, leeway_s=0.05) is met


def test_frames_without_content_at_the_begin_and_frames_that_the_file_lacks_are_told(tmp_path: Path) -> None:
    pictures = [*[blank_picture()] * 3, *shown(list(range(1, 61, 2)))]
    gap = ("-vf", "select='not(between(n,10,14))'", "-fps_mode", "vfr")
    found = count_frames(read_strip(write_video(tmp_path / "a.mp4", pictures, *gap)), frame_rate=30)
    assert (found.leading_unreadable, found.absent, found.repeated) == (3, 5, 0)
    assert [loss.frames for loss in found.losses] == [5]


def test_the_time_of_the_first_drawing_is_told_in_unix_time(
    tmp_path: Path,
) -> None:
    drawn_ms = 1_700_000_000_123
    made = write_video(tmp_path / "a.mp4", [strip_picture(drawn_ms % WRAP_MS, number) for number in (1, 2, 3)])
    assert first_drawing_time_s(read_strip(made), after_s=drawn_ms / 1000 - 0.5) == pytest.approx(drawn_ms / 1000)


def test_offset_and_drift_of_sound_are_told_to_the_millisecond(tmp_path: Path) -> None:
    flashes = [1 + number * 30 / 30 for number in range(12)]
    beeps = [flash + 0.020 + 0.0005 * number for number, flash in enumerate(flashes)]
    found = measure_sound_offset(write_beeps(tmp_path / "a.mp4", flashes, beeps, seconds=14))
    assert found.unpaired == 0
    assert found.offsets_s.tolist() == pytest.approx(
        [beep - flash for beep, flash in zip(beeps, flashes, strict=True)], abs=0.001
    )
    assert found.drift.s_per_hour == pytest.approx(0.0005 * 3600, abs=0.15)
    assert 0 <= found.drift.error_s_per_hour < 0.15


@pytest.mark.parametrize("phase_s", [0, 100, 250, 400])
@pytest.mark.parametrize("drift_ms", [0, 30])
def test_an_hour_tells_drift_whatever_the_beat_of_display_and_recording(phase_s: float, drift_ms: float) -> None:
    times = np.arange(1.0, 3601.0)
    noise = np.random.default_rng(4).normal(0, 0.006, len(times))
    beat = -(times + phase_s) % 417 / 417 / 60
    found = drift_of(times, 0.012 + drift_ms / 3.6e6 * times + beat + noise)
    assert found.s_per_hour * 1000 == pytest.approx(drift_ms, abs=3)
    assert 0.2 < found.error_s_per_hour * 1000 < 4


def test_offsets_that_wander_are_not_taken_for_sure() -> None:
    """Where neighbours err alike, an error that took each for itself would be an eighth of this."""
    times, rng, worst = np.arange(1.0, 1801.0), np.random.default_rng(4), []
    for _ in range(100):
        steps, wander = rng.normal(0, 1, len(times)), np.zeros(len(times))
        for number in range(1, len(times)):
            wander[number] = 0.97 * wander[number - 1] + steps[number]
        found = drift_of(times, 0.001 * wander)
        worst.append(abs(found.s_per_hour) / found.error_s_per_hour)
    assert np.percentile(worst, 68) < 1.5
    assert np.median(worst) > 0.4


def test_a_line_is_its_own_drift_and_too_few_offsets_have_none() -> None:
    times = np.arange(1.0, 901.0)
    found = drift_of(times, 5 / 3.6e6 * times)
    assert found.s_per_hour * 1000 == pytest.approx(5)
    assert found.error_s_per_hour * 1000 == pytest.approx(0, abs=1e-6)
    assert np.isnan(drift_of(times[:2], times[:2]).s_per_hour)
    assert np.isnan(drift_of(times[:2], times[:2]).error_s_per_hour)


def test_a_beep_before_its_flash_is_negative_and_one_without_is_counted(tmp_path: Path) -> None:
    flashes = [1.0, 2.0, 3.0, 4.0]
    found = measure_sound_offset(write_beeps(tmp_path / "a.mp4", flashes, [0.9, 1.9, 3.9], seconds=5))
    assert found.median_s == pytest.approx(-0.1, abs=0.002)
    assert found.unpaired == 1


def bars(path: Path, *filters: str, tags: tuple[str, ...]) -> Path:
    """Records the page of colour bars in the way that the filters and tags say."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for place, colour in enumerate(PATCHES):
        row, column = divmod(place, 4)
        part = np.s_[row * HEIGHT // 3 : (row + 1) * HEIGHT // 3, column * WIDTH // 4 : (column + 1) * WIDTH // 4]
        picture[part] = list(bytes.fromhex(colour[1:]))
    source = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{WIDTH}x{HEIGHT}", "-framerate", "30")
    graph = ",".join([*filters, "format=yuv420p", "loop=60:1"])
    command = [FFMPEG, "-loglevel", "error", "-y", *source, "-i", "-", "-vf", graph, *X264, *tags, str(path)]
    subprocess.run(command, input=picture.tobytes(), check=True, timeout=60)
    return path


def test_colours_that_are_tagged_right_are_right_and_those_that_are_not_are_far_off(tmp_path: Path) -> None:
    convert = "scale=out_color_matrix=bt709:out_range=tv"
    right = bars(tmp_path / "right.mp4", convert, tags=("-colorspace", "bt709", "-color_range", "tv"))
    wrong = bars(tmp_path / "wrong.mp4", convert, "setparams=colorspace=smpte170m", tags=("-colorspace", "smpte170m"))
    assert measure_colours(right).worst < 4
    assert measure_colours(right).tags == "tv, bt709"
    assert measure_colours(wrong).worst > 12


def test_how_much_of_a_torn_file_plays_is_told(tmp_path: Path) -> None:
    pictures = shown(list(range(1, 241, 2)))
    flags = ("-movflags", "+frag_keyframe+empty_moov+default_base_moof")
    whole = write_video(tmp_path / "whole.mp4", pictures, *flags)
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    assert measure_playable(whole).seconds == pytest.approx(4, abs=0.01)
    assert measure_playable(whole).longest_keyframe_gap_s == pytest.approx(1, abs=0.01)
    assert 1.5 < measure_playable(torn).seconds < 3.5
    torn.write_bytes(b"\0" * 1000)
    assert measure_playable(torn).seconds == 0


def test_a_file_that_plays_while_it_arrives_is_told_from_others(tmp_path: Path) -> None:
    pictures = shown(list(range(1, 31)))
    ways = {"plain": (), "faststart": ("-movflags", "+faststart"), "torn": ("-movflags", "+frag_keyframe+empty_moov")}
    made = {name: write_video(tmp_path / f"{name}.mp4", pictures, *options) for name, options in ways.items()}
    assert {name: is_faststart(path) for name, path in made.items()} == {
        "plain": False,
        "faststart": True,
        "torn": False,
    }
    assert "moof" in top_boxes(made["torn"])


def test_numbers_of_the_strip_never_look_like_a_page_of_one_colour(tmp_path: Path) -> None:
    made = write_video(tmp_path / "a.mp4", [blank_picture(level) for level in itertools.chain([0] * 5, [255] * 5)])
    assert read_strip(made).drawings.tolist() == [-1] * 10
