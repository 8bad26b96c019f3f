"""What the header of fragmented MP4 tells a master playlist: how large pictures are, and which codecs there are.

Only what is told without doubt: H.264 and AAC. Of other codecs a master playlist says nothing, as it may.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BOX = struct.Struct(">I4s")
_SAMPLES = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_VISUAL_BYTES, _SOUND_BYTES = 78, 28
"""Of sample entries, before the boxes in them."""
_PICTURES = (b"avc1", b"avc3", b"hvc1", b"hev1", b"av01", b"vp09")
_LEAST_AVCC_BYTES = 4
_OBJECT_TYPE, _SPECIFIC = 0x40, 5
"""MPEG-4 sound, and the tag of the descriptor that tells which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitFacts:
    """What a header tells."""

    size: tuple[int, int] | None = None
    """Width and height. None: there are no pictures, or it cannot be told."""
    codecs: tuple[str, ...] = ()
    """By RFC 6381, of all tracks. Empty: that of one cannot be told."""


def init_facts(content: bytes) -> InitFacts:
    """Reads a header. One that is damaged tells nothing."""
    size: tuple[int, int] | None = None
    codecs: list[str | None] = []
    for kind, entry in _entries(content, _SAMPLES):
        if kind in _PICTURES and len(entry) >= _VISUAL_BYTES:
            size = (int.from_bytes(entry[24:26], "big"), int.from_bytes(entry[26:28], "big"))
        codecs.append(_codec(kind, entry))
    known = tuple(codec for codec in codecs if codec is not None)
    return InitFacts(size=size, codecs=known if len(known) == len(codecs) else ())


def _boxes(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + _BOX.size <= len(content):
        length, kind = _BOX.unpack_from(content, at)
        if length < _BOX.size or at + length > len(content):
            return
        yield kind, content[at + _BOX.size : at + length]
        at += length


def _entries(content: bytes, path: tuple[bytes, ...]) -> Iterator[tuple[bytes, bytes]]:
    for kind, inner in _boxes(content):
        if kind != path[0]:
            continue
        if len(path) > 1:
            yield from _entries(inner, path[1:])
        else:
            yield from _boxes(inner[8:])  # behind its version and the number of entries


def _codec(kind: bytes, entry: bytes) -> str | None:
    if kind in (b"avc1", b"avc3"):
        avcc = dict(_boxes(entry[_VISUAL_BYTES:])).get(b"avcC", b"")
        return f"{kind.decode()}.{avcc[1:4].hex()}" if len(avcc) >= _LEAST_AVCC_BYTES else None
    if kind == b"mp4a":
        esds = dict(_boxes(entry[_SOUND_BYTES:])).get(b"esds", b"")
        return _sound_codec(esds[4:])
    return None


def _sound_codec(descriptors: bytes) -> str | None:
    """Finds the kind of AAC in the descriptors, each a tag, a length in groups of seven bits, and content."""
    at, kind = 0, None
    while at < len(descriptors):
        tag, at = descriptors[at], at + 1
        while at < len(descriptors) and descriptors[at] & 0x80:
            at += 1
        at += 1
        if tag == 3:  # the outermost; an id and flags come before what is in it
            at += 3
        elif tag == 4 and at < len(descriptors):  # what the decoder must know; 13 bytes first
            kind, at = descriptors[at], at + 13
        elif tag == _SPECIFIC and at < len(descriptors):
            return f"mp4a.40.{descriptors[at] >> 3}" if kind == _OBJECT_TYPE and descriptors[at] >> 3 < 31 else None
        else:
            return None
    return None
