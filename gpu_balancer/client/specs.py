"""From what people write to the contract's messages: inputs, renditions, outputs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from google.protobuf.duration_pb2 import Duration

from gpu_balancer.client.spelling import RenditionSpelling, parse_rendition
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")

VIDEO_CODECS = {
    "h264": media_pb2.VIDEO_CODEC_H264,
    "hevc": media_pb2.VIDEO_CODEC_HEVC,
    "av1": media_pb2.VIDEO_CODEC_AV1,
    "vp8": media_pb2.VIDEO_CODEC_VP8,
    "vp9": media_pb2.VIDEO_CODEC_VP9,
    "mpeg2": media_pb2.VIDEO_CODEC_MPEG2,
    "mpeg4": media_pb2.VIDEO_CODEC_MPEG4,
    "mjpeg": media_pb2.VIDEO_CODEC_MJPEG,
    "other": media_pb2.VIDEO_CODEC_OTHER,
}
"""Short names of the video codecs."""


def input_uri(source: str | os.PathLike[str]) -> str:
    """Makes an input's URI of a path or URL; a relative path becomes absolute, because the daemon has its own folder.

    Raises:
        ValueError: When it is empty.
    """
    text = os.fspath(source)
    if not text:
        raise ValueError("Cannot use an input without a name. Try the path of a file or a URL.")
    return text if _URL.match(text) else str(Path(text).expanduser().absolute())


def local_path(given: media_pb2.Input) -> Path | None:
    """Tells the path that an input names, whether there is anything or not. None: it names none."""
    if given.WhichOneof("source") != "uri":
        return None
    if given.uri.startswith("file://"):
        return Path(unquote(urlsplit(given.uri).path))
    return Path(given.uri) if given.uri.startswith("/") else None


def local_file(given: media_pb2.Input) -> Path | None:
    """Tells the existing regular file of this machine that an input names, or None."""
    path = local_path(given)
    return path if path is not None and path.is_file() else None


def to_duration(length: timedelta | None) -> Duration | None:
    """Makes the message of a length of time; None stays unset."""
    if length is None:
        return None
    duration = Duration()
    duration.FromTimedelta(length)
    return duration


def make_rendition(spelling: RenditionSpelling | str, rendition_id: str) -> media_pb2.Rendition:
    """Makes the message of a rendition under an id."""
    told = parse_rendition(spelling) if isinstance(spelling, str) else spelling
    if told.passthrough:
        return media_pb2.Rendition(id=rendition_id, passthrough=media_pb2.VideoPassthrough())
    encoding = media_pb2.VideoEncoding(codec=VIDEO_CODECS[told.codec], width=told.size.width, height=told.size.height)
    if told.bit_rate_bps is not None:
        encoding.bit_rate_bps = told.bit_rate_bps
    elif told.quality is not None:
        encoding.quality = told.quality
    return media_pb2.Rendition(id=rendition_id, encode=encoding)


def make_renditions(told: Iterable[RenditionSpelling | str | media_pb2.Rendition]) -> list[media_pb2.Rendition]:
    """Makes messages of renditions, each with an id of its own, in the given order.

    Args:
        told: Spellings as in `parse_rendition`, or messages; a message without an id is given one.

    Raises:
        ValueError: When a spelling is wrong or two renditions were given the same id.
    """
    made: list[media_pb2.Rendition] = []
    taken: set[str] = set()
    for one in told:
        rendition = media_pb2.Rendition()
        if isinstance(one, media_pb2.Rendition):
            rendition.CopyFrom(one)
        else:
            spelling = parse_rendition(one) if isinstance(one, str) else one
            rendition = make_rendition(spelling, spelling.id or "")
        if rendition.id in taken:
            raise ValueError(f"Cannot use two renditions named {rendition.id!r}. Try NAME=1280x720 with two names.")
        rendition.id = rendition.id or _free_id(rendition, taken)
        taken.add(rendition.id)
        made.append(rendition)
    return made


def _free_id(rendition: media_pb2.Rendition, taken: set[str]) -> str:
    """Names a rendition for its size; with its codec, then a number, when that name is taken."""
    encode = rendition.encode
    if rendition.WhichOneof("video") == "passthrough":
        plain = "copy"
    elif rendition.WhichOneof("video") is None:
        plain = "audio"
    elif encode.HasField("height"):
        plain = f"{encode.height}p"
    elif encode.HasField("width"):
        plain = f"{encode.width}w"
    else:
        plain = "source"
    codec = next((name for name, number in VIDEO_CODECS.items() if number == encode.codec), "h264")
    choices = [plain, f"{plain}-{codec}", *(f"{plain}-{number}" for number in range(2, len(taken) + 3))]
    return next(choice for choice in choices if choice not in taken)
