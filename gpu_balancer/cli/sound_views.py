"""How it looks how far sound and picture are apart in recordings."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Literal

from google.protobuf.duration_pb2 import Duration

from gpu_balancer.cli.words import brief, clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.v1.recording_pb2 import SoundTiming

_SOURCES = {"settings": "by the settings", "calibration": "by calibration", "default": "by default"}
_KINDS: tuple[tuple[str, Literal["film_offset", "drawing_offset", "heard_drawing_offset"]], ...] = (
    ("films", "film_offset"),
    ("drawings as sound is handed over", "drawing_offset"),
    ("drawings as sound is heard", "heard_drawing_offset"),
)
"""Kinds of pages, and the fields of their offsets."""
_NOTHING_NS = 50_000
"""Below it a length is told as nothing, nanoseconds."""


def sound_lines(timing: SoundTiming, *, of_pages: bool) -> Iterator[str]:
    """Tells by how much sound is delayed and why, then how far it is from its picture with that, or how to find out.

    Args:
        timing: That of a device or of a recording.
        of_pages: Whether pages are recorded: only with them it can be measured.

    Yields:
        At least one line; none begins with the word "sound".
    """
    delayed = _delay_words(timing)
    if not _is_measured(timing):
        yield f"{delayed}; not measured against its picture"
        if of_pages:
            yield "to measure it: gpu-balancer devices calibrate --sound"
        return
    if timing.HasField("measurement_time"):
        when = timing.measurement_time.ToDatetime(tzinfo=UTC)
        delayed += " of" if timing.delay_source == "calibration" else "; measured"
        delayed += f" {when:%Y-%m-%d %H:%M} UTC"
    yield delayed
    for words, field in _KINDS:
        if timing.HasField(field):
            yield f"{words}: sound {_offset_words(getattr(timing, field), 'its picture')}"


def sound_words(timing: SoundTiming) -> str:
    """Tells how far sound is from its picture, or that it was not measured, on one line of a terminal."""
    if not _is_measured(timing):
        return next(sound_lines(timing, of_pages=False))
    offsets = [getattr(timing, field) for _, field in _KINDS if timing.HasField(field)]
    first, last = (find(offsets, key=Duration.ToNanoseconds) for find in (min, max))
    if (words := _offset_words(first, "its picture")) == _offset_words(last, "its picture"):
        return words
    return f"{words} to {_offset_words(last, 'it')}, by kind of page"


def _is_measured(timing: SoundTiming) -> bool:
    return any(timing.HasField(field) for _, field in _KINDS)


def _delay_words(timing: SoundTiming) -> str:
    nanoseconds, source = timing.delay.ToNanoseconds(), clean(timing.delay_source)
    if abs(nanoseconds) < _NOTHING_NS:
        words = "not delayed"
    else:
        words = f"{'delayed' if nanoseconds > 0 else 'brought forward'} by {_length(nanoseconds)}"
    return f"{words} {_SOURCES.get(source, f'by {source}')}" if source else words


def _offset_words(offset: Duration, picture: str) -> str:
    """Tells where sound is, "28 ms after its picture" for instance."""
    nanoseconds = offset.ToNanoseconds()
    if abs(nanoseconds) < _NOTHING_NS:
        return f"with {picture}"
    return f"{_length(nanoseconds)} {'after' if nanoseconds > 0 else 'before'} {picture}"


def _length(nanoseconds: int) -> str:
    length = Duration()
    length.FromNanoseconds(abs(nanoseconds))
    return brief(length)
