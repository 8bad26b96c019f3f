"""What became of a recording, in figures. Mirrors the contract's RecordingReport and MeasuredUse."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingPhase:
    """How long a phase took."""

    name: str
    """"display", "browser", "navigation", "gate", "first_frame" or "finalise"."""
    duration: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A finished file."""

    path: str
    """Inside the session's artifacts; absolute for one under the output roots."""
    sha256: str
    size_bytes: int
    duration: timedelta | None = None
    width: int | None = None
    """Pixels of its first video track."""
    height: int | None = None
    """Pixels of its first video track."""
    codecs: tuple[str, ...] = ()
    """ffmpeg's names of its tracks' formats, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredUse:
    """What a recording's display, all that runs on it, and its ffmpeg were seen to take of the host."""

    cores: int
    """Millionths of one core."""
    memory_mib: int
    measured_time: timedelta
    """Over which it was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundTiming:
    """How far sound and picture are apart in recordings. None: not measured with what records."""

    delay: timedelta
    """By how much sound is delayed against its picture. Negative: brought forward."""
    delay_source: str
    """"settings", "calibration" or "default"."""
    film_offset: timedelta | None = None
    """How far sound comes after its picture with that delay, for a film that a page plays. Negative: before."""
    drawing_offset: timedelta | None = None
    """The same for a page that draws when it hands a sound over to its Web Audio."""
    heard_drawing_offset: timedelta | None = None
    """The same for a page that draws when its Web Audio tells it that a sound is heard."""
    measurement_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingReport:
    """What became of a recording so far. None: not known, or not yet."""

    captured_frames: int = 0
    encoded_frames: int = 0
    duplicated_frames: int = 0
    dropped_frames: int = 0
    longest_freeze: timedelta | None = None
    phases: tuple[RecordingPhase, ...] = ()
    start_time: timedelta | None = None
    """From the launch to the first picture."""
    take_count: int = 0
    end_cause: str = ""
    files: tuple[RecordedFile, ...] = ()
    browser: str = ""
    renderer: str = ""
    dismissed_dialogs: int = 0
    closed_popups: int = 0
    cancelled_downloads: int = 0
    sound_timing: SoundTiming | None = None
    """None: it has no sound, or has not begun."""
