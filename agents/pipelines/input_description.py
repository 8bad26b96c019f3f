"""Reads what `ffmpeg -hide_banner -i INPUT` says of an input, in the words of ffmpeg 5.1 to 9.0.

There is no ffprobe inside the bundled ffmpeg's wheel, and one program that opens an input as the session will is worth
more than a second one. The text is meant for people, so each figure is looked for on its own, and one that is not
found is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from agents.pipelines.job import FrameRate, InputFacts, VideoCodec
from agents.pipelines.pixel_formats import pixel_format

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEVEL = r"(?:\[(?:info|warning|error|fatal)\] )?"
_INPUT = re.compile(rf"{_LEVEL}Input #0, (?P<format>.+?), from '")
_OUTPUT = re.compile(rf"{_LEVEL}Output #0, ")
_DURATION = re.compile(rf"{_LEVEL}\s+Duration: (?P<h>\d+):(?P<m>\d\d):(?P<s>\d\d(?:\.\d+)?)")
_STREAM = re.compile(rf"{_LEVEL}\s+Stream #0:(?P<index>\d+)\S*: (?P<kind>[A-Z]\w+): (?P<rest>.+)")
_ROTATION = re.compile(
    rf"{_LEVEL}\s+(?:displaymatrix|Display Matrix): rotation of (?P<degrees>-?\d+(?:\.\d+)?) degrees", re.IGNORECASE
)
_SIZE = re.compile(r"(\d+)x(\d+)\b")
_RATE = re.compile(r"(\d+(?:\.\d+)?)(k?) fps")
_ASPECT = re.compile(r"\bSAR (\d+):(\d+)")
_PREFIX = re.compile(r"\[[^\]]* @ 0x[0-9a-f]+\] |\[(?:error|fatal|warning|info)\] ")
_OPENING = re.compile(r"(?:Error opening input|Error opening input files?|.*?): (?P<reason>[A-Z][^:]*)$")
_CODECS = {
    "h264": VideoCodec.H264,
    "hevc": VideoCodec.HEVC,
    "av1": VideoCodec.AV1,
    "vp8": VideoCodec.VP8,
    "vp9": VideoCodec.VP9,
    "mpeg2video": VideoCodec.MPEG2,
    "mpeg4": VideoCodec.MPEG4,
    "mjpeg": VideoCodec.MJPEG,
}
_NTSC_DENOMINATOR = 1001
_NTSC_TOLERANCE = Fraction(1, 200)
"""Rates are printed with two decimals: 29.97 is 30000/1001."""
_MOST_DURATION_HOURS = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamDescription:
    """One stream of an input. None: not said."""

    index: int
    kind: Literal["video", "audio", "other"]
    codec: str
    """ffmpeg's name of the format: "h264", "aac", …"""
    attached_picture: bool = False
    """Whether it is a still picture beside the media, a cover for instance."""
    width: int | None = None
    """Pixels as coded."""
    height: int | None = None
    """Pixels as coded."""
    frame_rate: FrameRate | None = None
    pixel_format: str | None = None
    sample_aspect_ratio: Fraction | None = None
    rotation_degrees: int | None = None
    """Clockwise turn for showing, 0 to 359. None: upright."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputDescription:
    """What was said of an input."""

    facts: InputFacts
    """Of the first video and the first sound; all unknown when it could not be opened."""
    streams: tuple[StreamDescription, ...]
    error: str | None
    """Why it could not be opened: "No such file or directory" for instance. None: it could."""

    @property
    def has_video(self) -> bool:
        """Whether there is a video of known size."""
        return self.facts.width is not None


def parse_input_description(stderr: str) -> InputDescription:
    """Reads what ffmpeg printed about an input. Never fails.

    Args:
        stderr: What `ffmpeg -hide_banner -i INPUT` wrote, with or without levels.

    Returns:
        What could be read.
    """
    lines = stderr.splitlines()
    start = next((number for number, line in enumerate(lines) if _INPUT.match(line)), None)
    if start is None:
        return InputDescription(facts=InputFacts(), streams=(), error=_error(lines))
    end = next((number for number, line in enumerate(lines) if number > start and _OUTPUT.match(line)), len(lines))
    told = lines[start:end]
    streams = _streams(told)
    found = _INPUT.match(told[0])
    return InputDescription(
        facts=_facts(streams, _duration(told), found["format"] if found else None), streams=streams, error=None
    )


def _facts(streams: tuple[StreamDescription, ...], duration: timedelta | None, format_name: str | None) -> InputFacts:
    video = next((one for one in streams if one.kind == "video" and not one.attached_picture), None)
    audio = next((one for one in streams if one.kind == "audio"), None)
    facts = InputFacts(
        has_audio=audio is not None,
        audio_codec=audio.codec if audio else None,
        duration=duration,
        format=format_name,
    )
    if video is None:
        return facts
    depth, chroma = pixel_format(video.pixel_format) if video.pixel_format else (None, None)
    width, height = video.width, video.height
    if video.rotation_degrees in (90, 270):
        width, height = height, width
    return replace(
        facts,
        width=width,
        height=height,
        frame_rate=video.frame_rate,
        video_codec=_CODECS.get(video.codec, VideoCodec.OTHER),
        bit_depth=depth,
        chroma=chroma,
        rotation_degrees=video.rotation_degrees or 0,
    )


def _streams(lines: Iterable[str]) -> tuple[StreamDescription, ...]:
    streams: list[StreamDescription] = []
    for line in lines:
        rotation = _ROTATION.match(line)
        if rotation and streams:
            # ffmpeg counts counter-clockwise.
            turn = round(-float(rotation["degrees"])) % 360
            streams[-1] = replace(streams[-1], rotation_degrees=turn or None)
        stream = _STREAM.match(line)
        if stream:
            streams.append(_stream(int(stream["index"][:9]), stream["kind"], stream["rest"]))
    return tuple(streams)


def _stream(index: int, kind: str, rest: str) -> StreamDescription:
    parts = _outer_parts(rest)
    codec = parts[0].split(" ", 1)[0]
    if kind == "Audio":
        return StreamDescription(index=index, kind="audio", codec=codec)
    if kind != "Video":
        return StreamDescription(index=index, kind="other", codec=codec)
    size = next((found for part in parts[1:] if (found := _SIZE.match(part))), None)
    rate = next((found for part in parts if (found := _RATE.fullmatch(part))), None)
    aspect = _ASPECT.search(rest)
    pixels = parts[1].partition("(")[0].strip() if len(parts) > 1 and not _SIZE.match(parts[1]) else ""
    return StreamDescription(
        index=index,
        kind="video",
        codec=codec,
        attached_picture=rest.rstrip().endswith("(attached pic)"),
        width=_pixels(size[1]) if size else None,
        height=_pixels(size[2]) if size else None,
        frame_rate=_frame_rate(rate[1], rate[2]) if rate else None,
        pixel_format=pixels if pixels and pixels != "none" else None,
        sample_aspect_ratio=_ratio(aspect[1], aspect[2]) if aspect else None,
    )


def _outer_parts(text: str) -> list[str]:
    """Splits at commas outside of brackets."""
    parts, depth, part = [], 0, ""
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth <= 0:
            parts.append(part.strip())
            part = ""
        else:
            part += character
    return [*parts, part.strip()]


def _pixels(text: str) -> int | None:
    return int(text[:9]) or None


def _ratio(over: str, under: str) -> Fraction | None:
    return Fraction(int(over[:9]), int(under[:9])) if int(under[:9]) and int(over[:9]) else None


def _frame_rate(number: str, thousands: str) -> FrameRate | None:
    rate = Fraction(number[:18].rstrip(".")) * (1000 if thousands else 1)
    ntsc = Fraction(round(rate) * 1000, _NTSC_DENOMINATOR)
    if rate.denominator != 1 and abs(rate - ntsc) <= _NTSC_TOLERANCE:
        rate = ntsc
    return FrameRate(numerator=rate.numerator, denominator=rate.denominator) if rate else None


def _duration(lines: Iterable[str]) -> timedelta | None:
    found = next((match for line in lines if (match := _DURATION.match(line))), None)
    if found is None or len(found["h"]) > len(str(_MOST_DURATION_HOURS)):
        return None
    return timedelta(hours=int(found["h"]), minutes=int(found["m"]), seconds=float(found["s"])) or None


def _error(lines: list[str]) -> str:
    """Picks the reason out of what was printed instead: the last line that ends with one."""
    told = [_PREFIX.sub("", line).strip() for line in lines]
    told = [line for line in told if line]
    for line in reversed(told):
        opening = _OPENING.match(line)
        if opening:
            return opening["reason"]
    return told[-1] if told else "ffmpeg said nothing about it"
