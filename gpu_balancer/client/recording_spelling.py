"""How people write what belongs to recordings alone: displays, start gates, headers, cookies, watermarks.

Pure and light, as `spelling` is. A text that may hold a secret is never repeated in an error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from gpu_balancer.client.spelling import PictureSize, parse_frame_rate, parse_size, parse_time

DISPLAY_SIDE_MIN = 64
FRAME_RATE_MAX = 120
DURATION_BOUNDS = (timedelta(seconds=1), timedelta(days=366))
GATE_TIMEOUT_BOUNDS = (timedelta(milliseconds=100), timedelta(minutes=10))
QUIET_BOUNDS = (timedelta(seconds=1), timedelta(hours=24))
"""Of silence, and of a picture that does not change."""
THUMBNAIL_BOUNDS = (timedelta(seconds=1), timedelta(hours=1))
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")

GateWord = Literal["immediately", "paint", "network-idle", "selector", "signal", "window"]
GATE_WORDS: tuple[GateWord, ...] = ("immediately", "paint", "network-idle", "selector", "signal", "window")
PAGE_GATES: tuple[GateWord, ...] = ("paint", "network-idle", "selector", "signal")
"""Gates that only a page can pass."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.+|data:.+", re.DOTALL | re.IGNORECASE)
_OPAQUE = re.compile(r"([A-Za-z][A-Za-z0-9+-]*):(?!\d)", re.ASCII)
"""A scheme that nothing but a name follows; of "localhost:8080" it is a port."""
_LINES = re.compile(r"(\d{2,5})p", re.IGNORECASE)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_COOKIE_NAME = re.compile(r"[^\s\x00-\x1f=;,]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSpelling:
    """A start gate as typed."""

    word: GateWord
    argument: str = ""
    """The selector or the signal. Empty: none, or the contract's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieSpelling:
    """A cookie as typed."""

    name: str
    value: str
    domain: str = ""
    """Empty: the page's host."""
    path: str = ""
    """Empty: "/"."""
    secure: bool = False
    http_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionSpelling:
    """How long a recording is to be, as typed."""

    length: timedelta
    added: bool
    """Whether the length is added to what it would be, or is the whole."""


def parse_page_url(text: str) -> str:
    """Reads the URL of a page.

    Raises:
        ValueError: When it has no scheme, or one that stands for no page.
    """
    if _URL.fullmatch(text):
        return text
    if opaque := _OPAQUE.match(text):
        raise ValueError(f"{opaque[1].lower()}: leads to no page that could be recorded. Try https://example.org/")
    if not text or text.startswith(("/", ".", "~")):
        raise ValueError("it is no URL. Try https://example.org/, or file:///… where the daemon allows files")
    raise ValueError("it has no scheme. Try https:// before it")


def parse_display_size(text: str) -> tuple[int, int]:
    """Reads `1280x720` or `720p` (16:9) as width and height of a display.

    Raises:
        ValueError: When it is none of these, or a side is odd or too small or too large for any display.
    """
    lines = _LINES.fullmatch(text)
    size = parse_size(text, least=DISPLAY_SIDE_MIN)
    if lines is not None and size.height is not None:
        # The even number next to 16:9.
        size = PictureSize(width=round(size.height * 8 / 9) * 2, height=size.height)
    if size.width is None or size.height is None:
        raise ValueError(f"{text!r} is no size of a display. Try 1280x720")
    return size.width, size.height


def parse_capture_rate(text: str) -> tuple[int, int]:
    """Reads `30`, `29.97` or `30000/1001` as pictures and seconds.

    Raises:
        ValueError: When it is none of these or outside 1 to 120 pictures per second.
    """
    return parse_frame_rate(text, highest=FRAME_RATE_MAX)


def parse_bounded_time(text: str, bounds: tuple[timedelta, timedelta]) -> timedelta:
    """Reads a length of time within bounds.

    Raises:
        ValueError: When it is none, or outside.
    """
    length, (least, most) = parse_time(text), bounds
    if not least <= length <= most:
        raise ValueError(f"{text!r} is outside {_plain(least)} to {_plain(most)}")
    return length


def parse_gate(text: str) -> GateSpelling:
    """Reads `immediately`, `paint`, `network-idle`, `selector:CSS`, `signal[:WORD]` or `window`.

    Raises:
        ValueError: When it is none of these.
    """
    told, colon, argument = text.partition(":")
    word = next((one for one in GATE_WORDS if one == told), None)
    if word is None:
        raise ValueError(f"{told!r} is no start gate. Try {', '.join(GATE_WORDS)}")
    if word == "selector" and not argument.strip():
        raise ValueError("selector needs to know which. Try 'selector:#ready'")
    if colon and word not in ("selector", "signal"):
        raise ValueError(f"{word} takes nothing after it")
    return GateSpelling(word=word, argument=argument)


def parse_header(text: str) -> tuple[str, str]:
    """Reads `Name: value` as a header of requests.

    Raises:
        ValueError: When it is none. The value is not repeated.
    """
    name, colon, value = text.partition(":")
    if not colon or not _HEADER_NAME.fullmatch(name.strip()) or _CONTROL.search(value.strip()):
        raise ValueError("it is no header. Try 'Name: value'")
    return name.strip(), value.strip()


def parse_cookie(text: str) -> CookieSpelling:
    """Reads `name=value[; Domain=…][; Path=…][; Secure][; HttpOnly]`, as a server would set it.

    Raises:
        ValueError: When it is none. The value is not repeated.
    """
    first, *rest = text.split(";")
    name, equals, value = first.strip().partition("=")
    if not equals or not _COOKIE_NAME.fullmatch(name) or _CONTROL.search(value):
        raise ValueError("it is no cookie. Try 'name=value'")
    attributes: dict[str, str] = {}
    for one in rest:
        key, _, told = one.strip().partition("=")
        if key.lower() not in ("domain", "path", "secure", "httponly"):
            raise ValueError("it has an attribute that is none of Domain, Path, Secure and HttpOnly")
        attributes[key.lower()] = told
    return CookieSpelling(
        name=name,
        value=value,
        domain=attributes.get("domain", ""),
        path=attributes.get("path", ""),
        secure="secure" in attributes,
        http_only="httponly" in attributes,
    )


def parse_watermark(text: str) -> tuple[str, str]:
    """Reads `PATH[:CORNER]` as a picture and where it goes; an empty corner is the contract's own.

    Raises:
        ValueError: When there is no path.
    """
    path, _, corner = text.rpartition(":")
    if corner.lower() not in CORNERS:
        path, corner = text, ""
    if not path:
        raise ValueError(f"{text!r} names no picture. Try logo.png:top-right")
    return path, corner.lower()


def parse_extension(text: str) -> ExtensionSpelling:
    """Reads `10m` as a whole length and `+10m` as so much more.

    Raises:
        ValueError: When it is none, or outside 1 s to 366 days.
    """
    added = text.startswith("+")
    return ExtensionSpelling(length=parse_bounded_time(text.removeprefix("+"), DURATION_BOUNDS), added=added)


def _plain(length: timedelta) -> str:
    """Writes a bound as it would be typed."""
    seconds = length.total_seconds()
    for unit_s, unit in ((86400, " days"), (3600, "h"), (60, "m")):
        if seconds >= unit_s and seconds % unit_s == 0:
            return f"{seconds / unit_s:g}{unit}"
    return f"{seconds:g}s" if seconds >= 1 else f"{seconds * 1000:g}ms"
