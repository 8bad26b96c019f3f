"""How people write sizes, rates, times and renditions, and what they mean.

Pure and light: the command checks what was typed with it before it loads anything else. Bounds are the contract's, so
that a mistake is told at once and in the words of what was typed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction

SIDE_MIN, SIDE_MAX = 16, 16384
BIT_RATE_MIN, BIT_RATE_MAX = 16_000, 1_000_000_000
AUDIO_BIT_RATE_MIN, AUDIO_BIT_RATE_MAX = 8_000, 512_000
ENCODED_CODECS = ("h264", "hevc", "av1")
CODEC_ALIASES = {"h265": "hevc", "x264": "h264", "x265": "hevc", "avc": "h264"}
RESERVED_SPEED_MIN, RESERVED_SPEED_MAX = 0.01, 1000.0
QUALITY_MAX = {"h264": 51, "hevc": 51, "av1": 63}

_SIZE = re.compile(r"(\d*)x(\d*)", re.IGNORECASE)
_LINES = re.compile(r"(\d+)p", re.IGNORECASE)
_BIT_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKmMgG]?)(?:bps|bit/s|b)?")
_CLOCK = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)(\d{1,2}(?:\.\d+)?)")
_SECONDS = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?")
_SPEED = re.compile(r"(\d{1,10}(?:\.\d{1,10})?|\.\d{1,10})x?", re.IGNORECASE)
_RENDITION_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
_UNIT_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "min": 60, "h": 3600, None: 1}
# Decimal spellings of the NTSC rates stand for fractions over 1001.
_NTSC = {"23.976": (24000, 1001), "23.98": (24000, 1001), "29.97": (30000, 1001), "59.94": (60000, 1001)}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSize:
    """A picture's size in pixels."""

    width: int | None
    """None: follows from the height."""
    height: int | None
    """None: follows from the width; both None: the input's size."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenditionSpelling:
    """A rendition as typed."""

    id: str | None
    """None: to be made from the size."""
    passthrough: bool
    """Whether the input's video is passed through, so that nothing below holds."""
    size: PictureSize
    codec: str
    """One of `ENCODED_CODECS`."""
    bit_rate_bps: int | None
    """None: by quality."""
    quality: int | None
    """0 (best) to 51, AV1 to 63. None: by bit rate, or the codec's own default when that is None too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FactsSpelling:
    """What is known of an input, as typed."""

    width: int
    height: int
    frame_rate: tuple[int, int] | None
    codec: str | None


def parse_bit_rate(text: str, *, minimum: int = BIT_RATE_MIN, maximum: int = BIT_RATE_MAX) -> int:
    """Reads `2500k`, `2.5M` or `2500000` as bits per second; k is 1,000 and M is 1,000,000.

    Raises:
        ValueError: When it is none of these or outside the bounds.
    """
    matched = _BIT_RATE.fullmatch(text.strip())
    if matched is None:
        raise ValueError(f"{text!r} is no bit rate. Try 2500k or 2.5M")
    factor = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}[matched[2].lower()]
    bits_per_second = round(Fraction(matched[1]) * factor)
    if not minimum <= bits_per_second <= maximum:
        raise ValueError(f"{text!r} is {bits_per_second:,} bits/s, outside {minimum:,} to {maximum:,}")
    return bits_per_second


def parse_time(text: str) -> timedelta:
    """Reads `10`, `10.5`, `90s`, `500ms`, `2m`, `1:30` or `00:01:30.5` as a length of time.

    Raises:
        ValueError: When it is none of these.
    """
    clock = _CLOCK.fullmatch(text.strip())
    if clock is not None:
        hours, minutes, seconds = int(clock[1] or 0), int(clock[2]), float(clock[3])
        if seconds < 60 and (clock[1] is None or minutes < 60):
            return timedelta(hours=hours, minutes=minutes, seconds=seconds)
    plain = _SECONDS.fullmatch(text.strip())
    if plain is None or (length := float(plain[1]) * _UNIT_SECONDS[plain[2]]) > timedelta.max.total_seconds():
        raise ValueError(f"{text!r} is no time. Try 10, 1:30 or 00:01:30.5")
    return timedelta(seconds=length)


def parse_reserved_speed(text: str) -> float:
    """Reads `0.5`, `2` or `2x` as a speed to be kept free, in times real time.

    Raises:
        ValueError: When it is none, or outside the bounds.
    """
    matched = _SPEED.fullmatch(text.strip())
    if matched is None or not RESERVED_SPEED_MIN <= float(matched[1]) <= RESERVED_SPEED_MAX:
        bounds = f"{RESERVED_SPEED_MIN:g} to {RESERVED_SPEED_MAX:g} times real time"
        raise ValueError(f"{text!r} is no speed of {bounds}. Try 0.5 or 2")
    return float(matched[1])


def parse_size(text: str, *, least: int = SIDE_MIN) -> PictureSize:
    """Reads `1280x720`, `720p`, `x720`, `1280x` or `source` as the size of a picture.

    Args:
        text: As typed.
        least: The smallest side in pixels.

    Raises:
        ValueError: When it is none of these, or a side is odd or outside `least` to 16384.
    """
    if text.lower() in ("source", ""):
        return PictureSize(width=None, height=None)
    lines, size = _LINES.fullmatch(text), _SIZE.fullmatch(text)
    if lines is not None:
        return PictureSize(width=None, height=_side(lines[1], text, least))
    if size is None or not (size[1] or size[2]):
        raise ValueError(f"{text!r} is no size. Try 1280x720, 720p or source")
    return PictureSize(
        width=_side(size[1], text, least) if size[1] else None,
        height=_side(size[2], text, least) if size[2] else None,
    )


def _side(digits: str, text: str, least: int) -> int:
    # int() of thousands of digits raises or takes long.
    side = int(digits) if len(digits) <= 9 else SIDE_MAX + 1
    if not least <= side <= SIDE_MAX:
        raise ValueError(f"{text!r} has a side outside {least} to {SIDE_MAX} pixels")
    if side % 2:
        raise ValueError(f"{text!r} has an odd side: video formats need even ones. Try {side - 1} or {side + 1}")
    return side


def parse_frame_rate(text: str, *, highest: int = 1000) -> tuple[int, int]:
    """Reads `30`, `29.97` or `30000/1001` as frames and seconds.

    Args:
        text: What was written.
        highest: Most frames per second; the least are 1.

    Raises:
        ValueError: When it is none of these or out of bounds.
    """
    if text in _NTSC:
        return _NTSC[text]
    try:
        rate = Fraction(text) if len(text) <= 20 else Fraction(0)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not 1 <= rate <= highest:
        raise ValueError(f"{text!r} is no frame rate of 1 to {highest}. Try 30, 29.97 or 30000/1001")
    rate = rate.limit_denominator(1001)
    return rate.numerator, rate.denominator


def parse_codec(text: str) -> str:
    """Reads the name of a video codec that can be encoded.

    Raises:
        ValueError: When it is none.
    """
    codec = CODEC_ALIASES.get(text.lower(), text.lower())
    if codec not in ENCODED_CODECS:
        raise ValueError(f"{text!r} is no codec to encode. Try {', '.join(ENCODED_CODECS)}")
    return codec


def parse_rendition(text: str, *, default_codec: str = "h264") -> RenditionSpelling:
    """Reads `[NAME=]SIZE[:CODEC[:RATE]]` or `[NAME=]copy` as a rendition.

    Args:
        text: SIZE as in `parse_size`; RATE is a bit rate, or `q23` for constant quality.
        default_codec: The codec when none is named.

    Raises:
        ValueError: Saying which part is wrong.
    """
    name, equals, rest = text.rpartition("=")
    if equals and not _RENDITION_ID.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a rendition: letters, digits, '-' and '_', at most 40")
    parts = rest.split(":")
    if len(parts) > 3:
        raise ValueError(f"{text!r} has too many parts. Try 1280x720:h264:2500k")
    source = PictureSize(width=None, height=None)
    if parts == ["copy"]:
        return RenditionSpelling(
            id=name or None, passthrough=True, size=source, codec=default_codec, bit_rate_bps=None, quality=None
        )
    if not parts[0]:
        raise ValueError(f"{text!r} has no size. Try 1280x720, 720p or source")
    codec = parse_codec(parts[1]) if len(parts) > 1 and parts[1] else default_codec
    rate = parts[2] if len(parts) > 2 else ""
    by_quality = rate.lower().startswith("q")
    return RenditionSpelling(
        id=name or None,
        passthrough=False,
        size=parse_size(parts[0]),
        codec=codec,
        bit_rate_bps=parse_bit_rate(rate) if rate and not by_quality else None,
        quality=parse_quality(rate[1:], codec=codec) if by_quality else None,
    )


def parse_quality(text: str, *, codec: str) -> int:
    """Reads a constant quality, 0 (best) to 51, for AV1 to 63.

    Raises:
        ValueError: When it is none.
    """
    if not text.isascii() or not text.isdigit() or len(text) > 3 or int(text) > QUALITY_MAX[codec]:
        raise ValueError(f"{text!r} is no quality of {codec}. Try 0 (best) to {QUALITY_MAX[codec]}")
    return int(text)


def parse_facts(text: str) -> FactsSpelling:
    """Reads `1280x720[@30][:h264]` as what is known of an input.

    Raises:
        ValueError: Saying which part is wrong.
    """
    picture, _, codec = text.partition(":")
    size_text, _, rate = picture.partition("@")
    size = _SIZE.fullmatch(size_text)
    sides = (size[1], size[2]) if size is not None else ("", "")
    if not all(0 < len(side) <= 6 and int(side) > 0 for side in sides):
        raise ValueError(f"{text!r} does not describe an input. Try 1280x720@30 or 1280x720@30:h264")
    return FactsSpelling(
        width=int(sides[0]),
        height=int(sides[1]),
        frame_rate=parse_frame_rate(rate) if rate else None,
        codec=CODEC_ALIASES.get(codec.lower(), codec.lower()) or None,
    )


def parse_label(text: str) -> tuple[str, str]:
    """Reads `key=value`.

    Raises:
        ValueError: When it has no key, or either is too long.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{text!r} is no label. Try key=value")
    if len(key) > 63 or len(value) > 255:
        raise ValueError(f"{key!r}: a label's key has at most 63 characters and its value at most 255")
    return key, value
