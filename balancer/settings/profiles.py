"""Profiles: named ladders of renditions, in the words of the contract, and the ones that ship.

The bit rates are those that streaming guides of the large platforms agree on for H.264 (about 0.09 bits per pixel of
1080p30); HEVC does with about 60 % and AV1 with about 50 % of them.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gpu_balancer.runtime.settings_values import Many, Section, refuse

_FRAME_RATE = re.compile(r"([1-9]\d{0,5})(?:/([1-9]\d{0,5}))?", re.ASCII)
_HIGHEST_FRAME_RATE = 240
_HIGHEST_QUALITY = {"h264": 51, "hevc": 51, "av1": 63}


def parse_frame_rate(text: str) -> tuple[int, int]:
    """Reads "30" or "30000/1001".

    Returns:
        Numerator and denominator.

    Raises:
        ValueError: When it does not parse or is above 240 frames per second.
    """
    match = _FRAME_RATE.fullmatch(text)
    if match is None:
        raise ValueError(f'must be frames per second as "30" or "30000/1001", not {text!r}')
    numerator, denominator = int(match[1]), int(match[2] or 1)
    if numerator > _HIGHEST_FRAME_RATE * denominator:
        raise ValueError(f"must be at most {_HIGHEST_FRAME_RATE} frames per second, not {text!r}")
    return numerator, denominator


def _checked_frame_rate(text: str) -> str:
    parse_frame_rate(text)
    return text


def _checked_even(side: int) -> int:
    if side % 2:
        raise ValueError(f"must be even, not {side}")
    return side


Side = Annotated[int, Field(ge=16, le=16384), AfterValidator(_checked_even)]
"""Width or height in pixels."""
BitRate = Annotated[int, Field(ge=16_000, le=1_000_000_000)]
"""Bits per second of video."""


class AudioSettings(Section):
    """The sound of a rendition."""

    codec: Literal["aac", "opus", "copy", "none"] = "aac"
    """What happens to the sound."""
    bit_rate_bps: Annotated[int, Field(ge=8_000, le=512_000)] | None = None
    """Bits per second. Not given: 128,000."""
    channels: Annotated[int, Field(ge=1, le=8)] | None = None
    """Channels. Not given: the input's, at most 2."""
    sample_rate_hz: Literal[8000, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 96000] | None = None
    """Samples per second. Not given: 48,000."""


class RenditionSettings(Section):
    """One version of the input."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
    """Name inside the session."""
    video: Literal["encode", "passthrough", "none"] = "encode"
    """What becomes of the video. Only "encode" goes with the keys of encoding."""
    codec: Literal["h264", "hevc", "av1"] | None = None
    """Format. Not given: h264."""
    width: Side | None = None
    """Width in pixels. Not given: follows from the height and the input's aspect ratio."""
    height: Side | None = None
    """Height in pixels. Not given: follows from the width and the input's aspect ratio."""
    fit: Literal["contain", "stretch"] | None = None
    """What to do when width and height are both given. Not given: contain."""
    frame_rate: Annotated[str, AfterValidator(_checked_frame_rate)] | None = None
    """Frames per second as "30" or "30000/1001". Not given: the input's."""
    bit_rate_bps: BitRate | None = None
    """Average bits per second of the video. Excludes quality."""
    quality: Annotated[int, Field(ge=0, le=63)] | None = None
    """Constant quality, 0 (best) to 51 for h264 and hevc, to 63 for av1. Excludes bit_rate_bps."""
    max_bit_rate_bps: BitRate | None = None
    """Peak bits per second. Not given: 1.5 times bit_rate_bps, else none."""
    keyframe_interval_s: Annotated[float, Field(ge=0.1, le=60, allow_inf_nan=False)] | None = None
    """Seconds between keyframes. Not given: 2."""
    bit_depth: Literal[8, 10] | None = None
    """Bits per sample. Not given: 8."""
    speed: Literal["fastest", "fast", "balanced", "thorough"] | None = None
    """Work per picture. Not given: fast."""
    low_latency: bool = False
    """Gives up look-ahead and reordering for less delay."""
    audio: AudioSettings | None = None
    """The sound. Not given: AAC when the input has sound."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        mistakes: list[tuple[tuple[str | int, ...], str]] = []
        if self.video != "encode":
            for key in sorted(self.model_fields_set - {"id", "video", "audio"}):
                mistakes.append(((key,), f'must not be given with video = "{self.video}"'))
        if self.video == "none" and self.audio is not None and self.audio.codec == "none":
            mistakes.append((("audio", "codec"), "must not be none when the video is none: nothing would be left"))
        if self.bit_rate_bps is not None and self.quality is not None:
            mistakes.append((("quality",), "must not be given with bit_rate_bps: one of them rules"))
        peak, average = self.max_bit_rate_bps, self.bit_rate_bps
        if peak is not None and average is not None and peak < average:
            mistakes.append((("max_bit_rate_bps",), f"must not be below bit_rate_bps, {average}, not {peak}"))
        highest = _HIGHEST_QUALITY[self.codec or "h264"]
        if self.quality is not None and self.quality > highest:
            mistakes.append((("quality",), f"must be at most {highest} for {self.codec or 'h264'}, not {self.quality}"))
        refuse(mistakes)
        return self


class ProfileSettings(Section):
    """A ladder."""

    renditions: Annotated[Many[RenditionSettings], Field(min_length=1, max_length=16)]
    """Its renditions, best first."""

    @model_validator(mode="after")
    def _ids_differ(self) -> Self:
        ids = [rendition.id for rendition in self.renditions]
        refuse(
            (("renditions", index, "id"), f"must not be used twice in a profile: {name!r}")
            for index, name in enumerate(ids)
            if name in ids[:index]
        )
        return self


def _ladder(codec: Literal["h264", "hevc", "av1"], kilobits: tuple[int, int, int, int]) -> ProfileSettings:
    sizes = (("1080p", 1920, 1080), ("720p", 1280, 720), ("480p", 854, 480), ("360p", 640, 360))
    return ProfileSettings(
        renditions=tuple(
            RenditionSettings(id=name, codec=codec, width=width, height=height, bit_rate_bps=kbps * 1000)
            for (name, width, height), kbps in zip(sizes, kilobits, strict=True)
        )
    )


BUILT_IN_PROFILES = {
    "ladder-h264": _ladder("h264", (5000, 2800, 1400, 800)),
    "ladder-hevc": _ladder("hevc", (3000, 1700, 840, 480)),
    "ladder-av1": _ladder("av1", (2500, 1400, 700, 400)),
    "copy": ProfileSettings(
        renditions=(RenditionSettings(id="source", video="passthrough", audio=AudioSettings(codec="copy")),)
    ),
}
"""The ladders that exist without any settings; a profile of the same name in the file takes the place of one."""
