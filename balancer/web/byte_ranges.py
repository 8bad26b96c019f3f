"""HTTP ranges and validators (RFC 9110, sections 8.8, 13 and 14), as far as one range at a time goes. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SINGLE = re.compile(r"bytes\s*=\s*(?P<first>\d{0,19})\s*-\s*(?P<last>\d{0,19})", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """What a Range header asks for. Either `first` is given, or `suffix_length`."""

    first: int | None
    last: int | None
    """The last byte itself. None: to the end."""
    suffix_length: int | None = None
    """The last bytes of the whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes that are there."""

    offset: int
    length: int


def parse_range(header: str | None) -> ByteRange | None:
    """Reads a Range header.

    Returns:
        The range. None: there is none, or one that a server may pass over (other units, several ranges, nonsense); the
        whole is sent then.
    """
    match = _SINGLE.fullmatch(header.strip()) if header else None
    if match is None:
        return None
    first, last = match["first"], match["last"]
    if not first:
        return ByteRange(first=None, last=None, suffix_length=int(last)) if last else None
    if last and int(last) < int(first):
        return None
    return ByteRange(first=int(first), last=int(last) if last else None)


def span_of(wanted: ByteRange, size: int) -> Span | None:
    """Finds the bytes of a range in a file.

    Returns:
        The bytes, at least one. None: the range has none of the file's.
    """
    if wanted.first is None:
        length = min(wanted.suffix_length or 0, size)
        return Span(offset=size - length, length=length) if length else None
    if wanted.first >= size:
        return None
    last = size - 1 if wanted.last is None else min(wanted.last, size - 1)
    return Span(offset=wanted.first, length=last - wanted.first + 1)


def entity_tag(size: int, modified_ns: int, *, final: bool) -> str:
    """Makes the validator of a file: a weak one while it may still change within a clock tick."""
    return f'{"" if final else "W/"}"{size:x}-{modified_ns:x}"'


def matches_any(header: str, tag: str) -> bool:
    """Tells whether an If-None-Match header names a tag; weakness does not count there."""
    if header.strip() == "*":
        return True
    return tag.removeprefix("W/") in [one.strip().removeprefix("W/") for one in header.split(",")]


def is_unchanged(if_range: str | None, tag: str) -> bool:
    """Tells whether a range may be sent under an If-Range header: only under the very same, strong validator."""
    return if_range is None or (if_range.strip() == tag and not tag.startswith("W/"))
