"""The delay of sound follows from the settings, else from what was measured with what records, else it is the usual."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.pipelines.recording_report import SoundTiming
from agents.recordings.sound_timings import SoundMeasurement, SoundTimings

MEASURED = SoundMeasurement(
    film=timedelta(milliseconds=12),
    drawing=timedelta(milliseconds=-20),
    heard_drawing=timedelta(milliseconds=-44),
    end_time=datetime(2030, 5, 4, 12, tzinfo=UTC),
    browser="Chromium 156",
    ffmpeg="9.0.2",
)
USUAL = SoundTiming(delay=timedelta(milliseconds=20), delay_source="default")


def milliseconds(value: float) -> timedelta:
    return timedelta(milliseconds=value)


def absurd(offset: str) -> bytes:
    """A measurement that is well formed, and that nobody has made."""
    told = {"drawing": offset, "heard_drawing": "PT0S", "end_time": "2030-05-04T12:00:00Z"}
    return json.dumps({"version": 1, "film": offset, "browser": "Chromium 156", "ffmpeg": "9.0.2", **told}).encode()


def test_sound_is_never_brought_forward(tmp_path: Path) -> None:
    timings = SoundTimings(tmp_path / "sound.json", asked_ms=None)
    timings.keep(replace(MEASURED, film=milliseconds(30), drawing=milliseconds(20), heard_drawing=milliseconds(-10)))
    told = timings.timing(browser="Chromium 156", ffmpeg="9.0.2")
    assert (told.delay, told.film_offset) == (milliseconds(0), milliseconds(30))


def test_nothing_measured_is_the_usual_delay_with_no_offsets(tmp_path: Path) -> None:
    timings = SoundTimings(tmp_path / "sound.json", asked_ms=None)
    assert timings.timing(browser="Chromium 156", ffmpeg="9.0.2") == USUAL


def test_what_was_measured_puts_the_delay_in_the_middle_and_outlives_the_agent(tmp_path: Path) -> None:
    SoundTimings(tmp_path / "sound.json", asked_ms=None).keep(MEASURED)
    later = SoundTimings(tmp_path / "sound.json", asked_ms=None)
    assert later.timing(browser="Chromium 156", ffmpeg="9.0.2") == SoundTiming(
        delay=milliseconds(16),
        delay_source="calibration",
        film_offset=milliseconds(28),
        drawing_offset=milliseconds(-4),
        heard_drawing_offset=milliseconds(-28),
        measurement_time=MEASURED.end_time,
    )


@pytest.mark.parametrize(("browser", "ffmpeg"), [("Chromium 157", "9.0.2"), ("Chromium 156", "9.1"), ("", "")])
def test_what_was_measured_with_other_programs_does_not_count(browser: str, ffmpeg: str, tmp_path: Path) -> None:
    timings = SoundTimings(tmp_path / "sound.json", asked_ms=None)
    timings.keep(MEASURED)
    assert timings.timing(browser=browser, ffmpeg=ffmpeg) == USUAL


def test_the_settings_win_and_the_offsets_are_those_with_their_delay(tmp_path: Path) -> None:
    timings = SoundTimings(tmp_path / "sound.json", asked_ms=5)
    timings.keep(MEASURED)
    told = timings.timing(browser="Chromium 156", ffmpeg="9.0.2")
    assert (told.delay, told.delay_source) == (milliseconds(5), "settings")
    assert (told.film_offset, told.drawing_offset) == (milliseconds(17), milliseconds(-15))
    assert told.heard_drawing_offset == milliseconds(-39)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"\xff", b'{"version": 2}', b"[" * 100_000, absurd("PT3600S"), absurd("P999999999D")]
)
def test_a_damaged_measurement_is_none_and_is_told(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "sound.json"
    path.write_bytes(content)
    assert SoundTimings(path, asked_ms=None).timing(browser="Chromium 156", ffmpeg="9.0.2") == USUAL
    assert "Cannot read" in caplog.text


def test_one_that_cannot_be_kept_leaves_the_one_before(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    timings = SoundTimings(folder / "sound.json", asked_ms=None)
    with pytest.raises(OSError, match="No such file"):
        timings.keep(MEASURED)
    assert timings.timing(browser="Chromium 156", ffmpeg="9.0.2") == USUAL
