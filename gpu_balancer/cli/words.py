"""How the command writes figures and names: short, with units, and a dash for what is unknown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gpu_balancer.client.names import short_name
from gpu_balancer.v1 import device_pb2, media_pb2, placement_pb2

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.timestamp_pb2 import Timestamp

UNKNOWN = "-"
_UUID = re.compile(r"(GPU|MIG)-([0-9a-f]{8})-[0-9a-f-]{27}", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

STATE_STYLES = {
    "running": "green",
    "succeeded": "green",
    "ready": "green",
    "queued": "yellow",
    "starting": "yellow",
    "stopping": "yellow",
    "probing": "yellow",
    "cordoned": "yellow",
    "draining": "yellow",
    "cancelled": "yellow",
    "failed": "red",
    "unhealthy": "red",
    "unreachable": "red",
}
"""Colours of states."""


def clean(text: str) -> str:
    """Takes out control characters: what a file is called must not steer the terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def device_state(state: int) -> str:
    """Names a device's state."""
    return enum_word(device_pb2.DeviceState.Name, state, "DEVICE_STATE_")


def video_codec(codec: int) -> str:
    """Names a video format."""
    return enum_word(media_pb2.VideoCodec.Name, codec, "VIDEO_CODEC_")


def encoding_speed(speed: int) -> str:
    """Names how much work goes into a picture."""
    return enum_word(media_pb2.EncodingSpeed.Name, speed, "ENCODING_SPEED_")


def dimension(number: int) -> str:
    """Names a dimension of load."""
    return enum_word(placement_pb2.Dimension.Name, number, "DIMENSION_").replace("_", " ")


def enum_word(name_of: object, number: int, prefix: str) -> str:
    """Names a value of an enumeration in lower case, without its prefix; a dash for one that was not said."""
    assert callable(name_of)
    try:
        word = str(name_of(number)).removeprefix(prefix).lower()
    except ValueError:
        return f"#{number}"  # from a newer daemon
    return UNKNOWN if word == "unspecified" else word


def device_word(name: str) -> str:
    """Shortens a device's name: the beginning of a UUID is accepted wherever a device is named."""
    matched = _UUID.fullmatch(short_name(name))
    return f"{matched[1]}-{matched[2]}" if matched else short_name(name) or UNKNOWN


def count(number: float) -> str:
    """Writes a large number with one decimal and k, M or G; factors of 1,000."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= limit * 0.9995:
            return f"{number / limit:.1f}{unit}"
    return f"{number:g}"


def size(byte_count: int) -> str:
    """Writes a number of bytes with kB, MB or GB; factors of 1,000."""
    return f"{byte_count} B" if byte_count < 1000 else f"{count(byte_count)[:-1]} {count(byte_count)[-1]}B"


def clock(length: Duration) -> str:
    """Writes a length of time as m:ss or h:mm:ss."""
    seconds = length.seconds
    hours, minutes = divmod(seconds // 60, 60)
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def brief(length: Duration) -> str:
    """Writes a length of time as finely as it matters: "33 ms", "2.4 s" or "1:30"; a negative one with its sign."""
    milliseconds = length.ToNanoseconds() / 1e6
    if abs(milliseconds) < 1000:
        return f"{milliseconds:.0f} ms" if abs(milliseconds) >= 1 or not milliseconds else f"{milliseconds:.1f} ms"
    return f"{round(milliseconds / 1000, 1):g} s" if abs(milliseconds) < 60_000 else clock(length)


def about(length: Duration) -> str:
    """Writes an estimate no finer than it is: "about 40 s", "about 2 min" or "about 3 h"."""
    seconds = length.seconds + (length.nanos > 0)
    if seconds <= 50:
        return f"about {max(10, -(-seconds // 10) * 10)} s"
    return f"about {round(seconds / 60)} min" if seconds < 90 * 60 else f"about {round(seconds / 3600)} h"


def moment(time: Timestamp) -> str:
    """Writes an instant in the user's own time zone."""
    if not time.seconds:
        return UNKNOWN
    from datetime import UTC

    return time.ToDatetime(tzinfo=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def rendition_words(rendition: media_pb2.Rendition) -> str:
    """Describes a rendition, "720p: 1280x720 h264 2.5M" for instance."""
    video = rendition.WhichOneof("video")
    if video != "encode":
        return f"{rendition.id}: {'video passed through' if video else 'no video'}"
    encode = rendition.encode
    width, height = encode.width or "", encode.height or ""
    parts = [f"{width}x{height}" if width or height else "source size", video_codec(encode.codec or 1)]
    if encode.WhichOneof("rate_control") == "bit_rate_bps":
        parts.append(f"{count(encode.bit_rate_bps)}bit/s")
    elif encode.WhichOneof("rate_control") == "quality":
        parts.append(f"quality {encode.quality}")
    return f"{rendition.id}: {' '.join(parts)}"


def facts_words(facts: media_pb2.InputFacts) -> str:
    """Describes an input, "1920x1080 h264 30 fps, aac, 1:30" for instance."""
    if not facts.width:
        return UNKNOWN
    parts = [f"{facts.width}x{facts.height} {video_codec(facts.video_codec)}"]
    if facts.HasField("frame_rate") and facts.frame_rate.denominator:
        parts[0] += f" {facts.frame_rate.numerator / facts.frame_rate.denominator:.4g} fps"
    if facts.audio_codec:
        parts.append(clean(facts.audio_codec))
    if facts.HasField("duration"):
        parts.append(clock(facts.duration))
    return ", ".join(parts)
