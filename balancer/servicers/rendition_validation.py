"""Checks of renditions: sizes, rates, formats, sound, and the names they have or get."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from balancer.domain.workload import VideoCodec
from balancer.servicers.contract_words import (
    AUDIO_CODECS,
    ENCODED_CODEC_WORDS,
    ENCODED_CODECS,
    FITS,
    SPEED_WORDS,
    VIDEO_CODEC_WORDS,
)
from balancer.servicers.input_validation import MAX_PICTURE_PIXELS
from balancer.servicers.violations import SECOND, Violations
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.v1.media_pb2 import AudioRendition, Rendition, VideoEncoding

MAX_RENDITIONS = 16
SMALLEST_SIDE = 16
LARGEST_SIDE = 16_384
HIGHEST_FRAME_RATE = 240
DEFAULT_KEYFRAME_INTERVAL = 2 * SECOND

_ID = re.compile(r"[A-Za-z0-9_-]{1,40}", re.ASCII)
_HIGHEST_QUALITY = {VideoCodec.H264: 51, VideoCodec.HEVC: 51, VideoCodec.AV1: 63}
_LOWEST_BIT_RATE, _HIGHEST_BIT_RATE = 16_000, 1_000_000_000
_SAMPLE_RATES = {
    # What AAC-LC knows (ISO/IEC 14496-3, table 1.18), above the telephone's, and what Opus knows (RFC 6716, 2).
    media_pb2.AUDIO_CODEC_AAC: (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
    media_pb2.AUDIO_CODEC_OPUS: (8000, 12000, 16000, 24000, 48000),
}


def rendition_ids(renditions: Sequence[Rendition]) -> list[str]:
    """Gives every rendition's name: its own, else one made from its size, unlike all others.

    "720p" from the height, "1280w" from a width alone, "source" without a size, "copy" for a passthrough, "audio"
    without video; where that is taken "720p-hevc", then "720p-2". What was given keeps its name, wherever it stands.
    """
    taken = {rendition.id for rendition in renditions if rendition.id}
    numbers: dict[str, int] = {}
    ids: list[str] = []
    for rendition in renditions:
        name = rendition.id
        if not name:
            name = _free_name(rendition, taken, numbers)
            taken.add(name)
        ids.append(name)
    return ids


def check_renditions(found: Violations, where: str, renditions: Sequence[Rendition]) -> None:
    """Notes everything that is wrong with renditions.

    Args:
        found: Takes what is wrong.
        where: Path of the list.
        renditions: As the client, or the settings, gave them; at most MAX_RENDITIONS.
    """
    taken: dict[str, int] = {}
    for index, rendition in enumerate(renditions):
        place = f"{where}[{index}]"
        name = rendition.id
        if name:
            if not _ID.fullmatch(name):
                found.add(f"{place}.id", "must be 1 to 40 letters, digits, '-' or '_'")
            elif name in taken:
                found.add(f"{place}.id", f"must not be {name!r} again: renditions[{taken[name]}] has it")
            taken.setdefault(name, index)
        _check_rendition(found, place, rendition)


def keyframe_interval_of(encoding: VideoEncoding) -> int:
    """Gives the time between keyframes in nanoseconds, of an encoding that was checked."""
    if not encoding.HasField("keyframe_interval"):
        return DEFAULT_KEYFRAME_INTERVAL
    return encoding.keyframe_interval.seconds * SECOND + encoding.keyframe_interval.nanos


def _check_rendition(found: Violations, where: str, rendition: Rendition) -> None:
    video = rendition.WhichOneof("video")
    if video == "encode":
        _check_encoding(found, f"{where}.encode", rendition.encode)
    elif video is None and rendition.audio.codec == media_pb2.AUDIO_CODEC_NONE:
        found.add(where, "must have video or sound: with neither nothing is left")
    if rendition.HasField("audio"):
        _check_audio(found, f"{where}.audio", rendition.audio)


def _check_encoding(found: Violations, where: str, encoding: VideoEncoding) -> None:
    codec = ENCODED_CODECS.get(encoding.codec)
    if codec is None:
        _refuse_codec(found, f"{where}.codec", encoding.codec)
    _check_size(found, where, encoding)
    found.check_enum(f"{where}.fit", encoding.fit, FITS)
    found.check_enum(f"{where}.speed", encoding.speed, SPEED_WORDS)
    if encoding.HasField("frame_rate"):
        found.check_frame_rate(f"{where}.frame_rate", encoding.frame_rate, 1, HIGHEST_FRAME_RATE)
    _check_rate_control(found, where, encoding, codec or VideoCodec.H264)
    if encoding.HasField("keyframe_interval"):
        found.check_duration(f"{where}.keyframe_interval", encoding.keyframe_interval, SECOND // 10, 60 * SECOND)
    if encoding.HasField("bit_depth") and encoding.bit_depth not in (8, 10):
        found.add(f"{where}.bit_depth", f"must be 8 or 10, not {encoding.bit_depth}")


def _refuse_codec(found: Violations, where: str, number: int) -> None:
    wanted = ", ".join(ENCODED_CODEC_WORDS.values())
    if number in VIDEO_CODEC_WORDS:
        found.add(where, f"must be one of {wanted}; {VIDEO_CODEC_WORDS[number]} can be read but not made")
    else:
        found.add(where, f"must be one of {wanted}; {number} is none of them")


def _check_size(found: Violations, where: str, encoding: VideoEncoding) -> None:
    sides: list[int] = []
    for name in ("width", "height"):
        if not encoding.HasField(name):
            continue
        side = getattr(encoding, name)
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            found.add(f"{where}.{name}", f"must be {SMALLEST_SIDE} to {LARGEST_SIDE:,} pixels, not {side:,}")
        elif side % 2:
            found.add(f"{where}.{name}", f"must be even, not {side}; try {side - 1} or {side + 1}")
        else:
            sides.append(side)
    if len(sides) == 2 and sides[0] * sides[1] > MAX_PICTURE_PIXELS:
        told = f"{sides[0]:,} × {sides[1]:,}"
        found.add(f"{where}.height", f"must leave at most {MAX_PICTURE_PIXELS:,} pixels per picture, not {told}")


def _check_rate_control(found: Violations, where: str, encoding: VideoEncoding, codec: VideoCodec) -> None:
    control = encoding.WhichOneof("rate_control")
    average = 0
    if control == "bit_rate_bps":
        average = encoding.bit_rate_bps
        found.check_range(f"{where}.bit_rate_bps", average, _LOWEST_BIT_RATE, _HIGHEST_BIT_RATE, " bits per second")
    elif control == "quality":
        found.check_range(f"{where}.quality", encoding.quality, 0, _HIGHEST_QUALITY[codec], f" for {codec.value}")
    if encoding.HasField("max_bit_rate_bps"):
        peak = encoding.max_bit_rate_bps
        field = f"{where}.max_bit_rate_bps"
        in_range = found.check_range(field, peak, _LOWEST_BIT_RATE, _HIGHEST_BIT_RATE, " bits per second")
        if in_range and peak < average <= _HIGHEST_BIT_RATE:
            found.add(field, f"must not be below bit_rate_bps, {average:,}, not {peak:,}")


def _check_audio(found: Violations, where: str, audio: AudioRendition) -> None:
    if not found.check_enum(f"{where}.codec", audio.codec, AUDIO_CODECS):
        return
    codec = audio.codec or media_pb2.AUDIO_CODEC_AAC
    if codec not in _SAMPLE_RATES:
        for name in ("bit_rate_bps", "channels", "sample_rate_hz"):
            if audio.HasField(name):
                found.add(f"{where}.{name}", f"must not be given with {AUDIO_CODECS[codec]}: nothing is encoded")
        return
    if audio.HasField("bit_rate_bps"):
        found.check_range(f"{where}.bit_rate_bps", audio.bit_rate_bps, 8_000, 512_000, " bits per second")
    if audio.HasField("channels"):
        found.check_range(f"{where}.channels", audio.channels, 1, 8)
    rates = _SAMPLE_RATES[codec]
    if audio.HasField("sample_rate_hz") and audio.sample_rate_hz not in rates:
        told = ", ".join(str(rate) for rate in rates)
        found.add(f"{where}.sample_rate_hz", f"must be one of {told}, not {audio.sample_rate_hz:,}")


def _free_name(rendition: Rendition, taken: set[str], numbers: dict[str, int]) -> str:
    """Makes a name that is not taken; `numbers` remembers up to where those of a name are, as none is ever given up."""
    encoding = rendition.encode
    match rendition.WhichOneof("video"):
        case "passthrough":
            plain = "copy"
        case None:
            plain = "audio"
        case _ if encoding.HasField("height"):
            plain = f"{encoding.height}p"
        case _ if encoding.HasField("width"):
            plain = f"{encoding.width}w"
        case _:
            plain = "source"
    if plain not in taken:
        return plain
    codec = ENCODED_CODECS.get(encoding.codec, VideoCodec.H264).value
    named = f"{plain}-{codec}"
    if rendition.WhichOneof("video") == "encode" and named not in taken:
        return named
    number = numbers.get(plain, 2)
    while f"{plain}-{number}" in taken:
        number += 1
    numbers[plain] = number + 1
    return f"{plain}-{number}"
