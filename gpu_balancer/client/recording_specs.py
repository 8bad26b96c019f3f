"""From what people write to the contract's messages of a recording."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.client.recording_spelling import (
    DURATION_BOUNDS,
    PAGE_GATES,
    parse_capture_rate,
    parse_display_size,
    parse_gate,
    parse_page_url,
    parse_watermark,
)
from gpu_balancer.client.specs import to_duration
from gpu_balancer.v1 import recording_pb2

if TYPE_CHECKING:
    from datetime import timedelta

    from gpu_balancer.client.recording_spelling import CookieSpelling, GateSpelling

DEFAULT_RENDITION = "recording=source"
"""What is made when nothing else is asked for: one rendition of the display's size, whose file is recording.mp4."""

FAILURE_ARTIFACTS = ("failure.png", "console.log")
"""What a recording that failed leaves of its page: how it looked, and what it wrote to its console."""

THUMBNAIL_FOLDER = "thumbnails"
"""The folder among a session's artifacts for thumbnails."""

_GATE_KINDS = {
    "immediately": recording_pb2.START_GATE_KIND_IMMEDIATELY,
    "paint": recording_pb2.START_GATE_KIND_FIRST_CONTENTFUL_PAINT,
    "network-idle": recording_pb2.START_GATE_KIND_NETWORK_IDLE,
    "selector": recording_pb2.START_GATE_KIND_SELECTOR,
    "signal": recording_pb2.START_GATE_KIND_CONSOLE_SIGNAL,
    "window": recording_pb2.START_GATE_KIND_FIRST_WINDOW,
}
_CORNERS = {
    "": recording_pb2.CORNER_UNSPECIFIED,
    "top-left": recording_pb2.CORNER_TOP_LEFT,
    "top-right": recording_pb2.CORNER_TOP_RIGHT,
    "bottom-left": recording_pb2.CORNER_BOTTOM_LEFT,
    "bottom-right": recording_pb2.CORNER_BOTTOM_RIGHT,
}


def make_spec(
    source: str | recording_pb2.PageSource | recording_pb2.ApplicationSource,
) -> recording_pb2.RecordingSpec:
    """Makes the message of a recording of a source, with nothing else said.

    Args:
        source: The URL of a page, a page with its options, or an application.

    Raises:
        ValueError: When a URL has no scheme.
    """
    if isinstance(source, recording_pb2.ApplicationSource):
        return recording_pb2.RecordingSpec(application=source)
    if isinstance(source, recording_pb2.PageSource):
        return recording_pb2.RecordingSpec(page=source)
    try:
        return recording_pb2.RecordingSpec(page=recording_pb2.PageSource(url=parse_page_url(source)))
    except ValueError as error:
        raise ValueError(f"Cannot record the page: {error}.") from error


def make_capture(
    size: str | tuple[int, int] | None, fps: str | float | None, *, show_cursor: bool, sound: bool
) -> recording_pb2.Capture:
    """Makes the message of how a display is looked at.

    Args:
        size: `1280x720`, `720p`, or width and height in pixels. None: the contract's own.
        fps: Pictures per second: `30`, `29.97`, `30000/1001` or a number. None: the contract's own.
        show_cursor: Shows the mouse pointer.
        sound: Records sound.

    Raises:
        ValueError: When a spelling is wrong.
    """
    capture = recording_pb2.Capture(show_cursor=show_cursor, without_sound=not sound)
    if size is not None:
        text = size if isinstance(size, str) else f"{size[0]}x{size[1]}"
        capture.width, capture.height = parse_display_size(text)
    if fps is not None:
        rate = parse_capture_rate(fps if isinstance(fps, str) else f"{fps:.15g}")
        capture.frame_rate.numerator, capture.frame_rate.denominator = rate
    return capture


def make_gate(told: str | GateSpelling | None, timeout: timedelta | None, *, of_page: bool) -> recording_pb2.StartGate:
    """Makes the message of a start gate.

    Args:
        told: As in `parse_gate`. None: the contract's own.
        timeout: How long it is awaited. None: the contract's own.
        of_page: Whether it is a page that is recorded, or an application.

    Raises:
        ValueError: When a spelling is wrong, or what is recorded has no such gate.
    """
    gate = recording_pb2.StartGate(timeout=to_duration(timeout))
    if told is None:
        return gate
    spelling = parse_gate(told) if isinstance(told, str) else told
    if spelling.word in PAGE_GATES and not of_page:
        raise ValueError(f"{spelling.word!r} is for pages. Try window or immediately")
    if spelling.word == "window" and of_page:
        raise ValueError("'window' is for applications. Try paint or immediately")
    gate.kind = _GATE_KINDS[spelling.word]
    if spelling.word == "selector":
        gate.selector = spelling.argument
    else:
        gate.signal = spelling.argument
    return gate


def make_watermark(told: str) -> recording_pb2.Watermark:
    """Makes the message of a watermark, spelled as in `parse_watermark`; a relative path becomes absolute.

    Raises:
        ValueError: When there is no path.
    """
    path, corner = parse_watermark(told)
    return recording_pb2.Watermark(path=str(Path(path).expanduser().absolute()), corner=_CORNERS[corner])


def make_cookie(told: CookieSpelling) -> recording_pb2.Cookie:
    """Makes the message of a cookie."""
    return recording_pb2.Cookie(
        name=told.name,
        value=told.value,
        domain=told.domain,
        path=told.path,
        secure=told.secure,
        http_only=told.http_only,
    )


def check_duration(length: timedelta | None) -> None:
    """Checks the length of a recording.

    Raises:
        ValueError: When it is outside 1 s to 366 days. None is without a bound.
    """
    least, most = DURATION_BOUNDS
    if length is not None and not least <= length <= most:
        raise ValueError(f"Cannot record for {length}: that is outside 1 s to 366 days. Try another duration.")
