"""Flashes and beeps are found where they are, and how far apart they are is told with its sign."""

from __future__ import annotations

from array import array
from pathlib import Path

import pytest
from pipeline_programs import run_ffmpeg

from agents.pipelines.sound_offsets import (
    SOUND_RATE_HZ,
    beep_times,
    film_arguments,
    flash_times,
    reading_arguments,
    sound_offset,
)


@pytest.mark.parametrize("later_s", [0.12, -0.07])
def test_a_film_whose_sound_was_moved_is_read_as_it_was_moved(later_s: float, tmp_path: Path) -> None:
    film, moved = tmp_path / "film.webm", tmp_path / "it's, moved.mkv"
    run_ffmpeg(*film_arguments(str(film), seconds=8))
    move = f"asetpts=PTS{later_s:+}/TB"
    run_ffmpeg("-i", str(film), "-map", "0", "-c:v", "copy", "-af", move, "-c:a", "flac", str(moved))
    levels, sound = tmp_path / "the: levels", tmp_path / "sound"
    run_ffmpeg(*reading_arguments(str(moved), levels=str(levels), sound=str(sound)))
    flashes, beeps = flash_times(levels.read_text()), beep_times(array("h", sound.read_bytes()))
    # One each 34/50 s; the first flash has no dark picture before it.
    assert len(flashes) == 11
    assert len(beeps) == 12
    found = sound_offset(flashes, beeps)
    assert found is not None
    assert found.pair_count == 11
    assert found.offset.total_seconds() == pytest.approx(later_s, abs=0.004)


def test_only_pictures_that_become_bright_are_flashes() -> None:
    told = "".join(
        f"frame:{number}    pts:{number}       pts_time:{time}\nlavfi.signalstats.YAVG={level}\n"
        for number, (time, level) in enumerate(
            [("0", "235"), ("0.033333", "16"), ("0.066667", "200.5"), ("0.1", "235"), ("0.133333", "125.9")]
        )
    )
    assert flash_times(told) == [0.066667]
    assert flash_times("") == []
    assert flash_times("frame:0 pts:0 pts_time:nan\nlavfi.signalstats.YAVG=") == []


def test_a_beep_begins_after_silence_only_and_above_what_encoders_let_ring() -> None:
    def loud(at_s: float, length: int = 480, level: int = 16000) -> None:
        begin = int(at_s * SOUND_RATE_HZ)
        samples[begin : begin + length] = array("h", [level, -level] * (length // 2))

    samples = array("h", bytes(2 * 3 * SOUND_RATE_HZ))
    assert beep_times(samples) == []
    loud(0)
    loud(0.1)
    loud(0.95, level=3000)
    loud(1)
    loud(2.5)
    assert beep_times(samples) == [0, 1, 2.5]


def test_each_flash_has_the_nearest_beep_and_the_median_counts() -> None:
    found = sound_offset([1, 2, 3, 4], [1.02, 2.03, 2.99, 5])
    assert found is not None
    assert found.pair_count == 3
    assert found.offset.total_seconds() == pytest.approx(0.02)


@pytest.mark.parametrize(("flashes", "beeps"), [([], []), ([1.0], []), ([], [1.0]), ([1.0, 2.0], [1.5, 2.5])])
def test_what_does_not_belong_together_has_no_offset(flashes: list[float], beeps: list[float]) -> None:
    assert sound_offset(flashes, beeps) is None
