"""Checks of a session's input, as far as they need no look at the media: that is the agent's part.

Descriptions never quote a URI: it may hold credentials.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from balancer.domain.workload import CHROMAS
from balancer.servicers.contract_words import INGEST_PROTOCOLS, VIDEO_CODEC_WORDS
from balancer.servicers.violations import DAY, SECOND, Violations
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from gpu_balancer.v1.media_pb2 import Ingest, Input, InputFacts

MAX_URI_CHARACTERS = 4_096
MAX_INPUT_SIDE = 16_384
MAX_PICTURE_PIXELS = 16_384 * 8_704
"""Of one picture: the largest of HEVC's level 7.2 (ITU-T H.265, table A.8)."""
HIGHEST_INPUT_FRAME_RATE = 1_000
MAX_REPEATS = 1_000_000

_LIVE_SCHEMES = frozenset({"rtmp", "rtmps", "rtsp", "srt"})
_FETCHED_SCHEMES = frozenset({"http", "https"})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_UNFIT = re.compile(r"[\x00-\x20\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UPLOAD = re.compile(r"uploads/[a-z0-9]{1,64}", re.ASCII)
_FORMAT_NAME = re.compile(r"[A-Za-z0-9_.,+ -]{0,128}", re.ASCII)
_BIT_DEPTHS = frozenset({8, 10, 12})
_ROTATIONS = (0, 90, 180, 270)


class InputKind(Enum):
    """How an input comes in."""

    FILE = "file"
    ON_DEMAND = "on demand"
    """Over http or https; it may still turn out to be live."""
    LIVE = "live"
    INGEST = "ingest"


def check_input(found: Violations, where: str, given: Input) -> InputKind | None:
    """Notes everything that is wrong with an input.

    Args:
        found: Takes what is wrong.
        where: Path of the input.
        given: The input.

    Returns:
        How it comes in. None: that cannot be told.
    """
    kind = _check_source(found, where, given)
    _check_span(found, where, given, kind)
    _check_repetition(found, where, given, kind)
    facts = f"{where}.declared_facts"
    if given.HasField("declared_facts"):
        check_facts(found, facts, given.declared_facts)
    if kind is InputKind.INGEST:
        _check_ingest_facts(found, facts, given.declared_facts)
    return kind


def check_facts(found: Violations, where: str, facts: InputFacts) -> None:
    """Notes what cannot be true of an input."""
    _check_picture(found, where, facts)
    if facts.HasField("frame_rate"):
        found.check_frame_rate(f"{where}.frame_rate", facts.frame_rate, 0, HIGHEST_INPUT_FRAME_RATE)
        if facts.frame_rate.numerator == 0:
            found.add(f"{where}.frame_rate.numerator", "must not be 0; leave the rate out when it is unknown")
    found.check_enum(f"{where}.video_codec", facts.video_codec, VIDEO_CODEC_WORDS)
    for name in ("audio_codec", "format"):
        if not _FORMAT_NAME.fullmatch(getattr(facts, name)):
            found.add(f"{where}.{name}", "must be a name as ffmpeg knows it, at most 128 characters")
    if facts.HasField("duration"):
        found.check_duration(f"{where}.duration", facts.duration, 0, 366 * DAY)


def _check_picture(found: Violations, where: str, facts: InputFacts) -> None:
    width, height = facts.width, facts.height
    if bool(width) != bool(height):
        found.add(where, "must have both width and height, or neither")
    if width > MAX_INPUT_SIDE:
        found.add(f"{where}.width", f"must be at most {MAX_INPUT_SIDE:,} pixels, not {width:,}")
    if height > MAX_INPUT_SIDE:
        found.add(f"{where}.height", f"must be at most {MAX_INPUT_SIDE:,} pixels, not {height:,}")
    if max(width, height) <= MAX_INPUT_SIDE and width * height > MAX_PICTURE_PIXELS:
        found.add(where, f"must be at most {MAX_PICTURE_PIXELS:,} pixels per picture, not {width:,} × {height:,}")
    if facts.HasField("bit_depth") and facts.bit_depth not in _BIT_DEPTHS:
        found.add(f"{where}.bit_depth", f"must be 8, 10 or 12, not {facts.bit_depth}")
    if facts.chroma and facts.chroma not in CHROMAS:
        found.add(f"{where}.chroma", f"must be one of {', '.join(CHROMAS)}, or empty when unknown")
    if facts.rotation_degrees not in _ROTATIONS:
        found.add(f"{where}.rotation_degrees", f"must be 0, 90, 180 or 270, not {facts.rotation_degrees}")


def are_complete(facts: InputFacts) -> bool:
    """Whether facts tell all that placement needs, so that nobody has to open the input."""
    return bool(facts.width and facts.height and facts.video_codec != media_pb2.VIDEO_CODEC_UNSPECIFIED)


def _check_source(found: Violations, where: str, given: Input) -> InputKind | None:
    match given.WhichOneof("source"):
        case "uri":
            return _check_uri(found, f"{where}.uri", given.uri)
        case "upload":
            if not _UPLOAD.fullmatch(given.upload):
                found.add(f"{where}.upload", 'must be the name of an upload, "uploads/{id}"')
            return InputKind.FILE
        case "ingest":
            _check_ingest(found, f"{where}.ingest", given.ingest)
            return InputKind.INGEST
        case _:
            found.add(where, "must have exactly one source: uri, upload or ingest")
            return None


def _check_uri(found: Violations, where: str, uri: str) -> InputKind | None:
    if not uri:
        found.add(where, "must be an absolute path or a URL, not empty")
    elif len(uri) > MAX_URI_CHARACTERS:
        found.add(where, f"must be at most {MAX_URI_CHARACTERS:,} characters, not {len(uri):,}")
    elif uri.startswith("/"):
        if not _CONTROL.search(uri):
            return InputKind.FILE
        found.add(where, "must not have control characters")
    elif (match := _SCHEME.match(uri)) is None:
        found.add(where, "must be an absolute path, because the daemon has a folder of its own, or a URL")
    else:
        return _check_url(found, where, uri, match[1].lower())
    return None


def _check_url(found: Violations, where: str, uri: str, scheme: str) -> InputKind | None:
    if scheme == "file":
        rest = uri[len("file://") :]
        if _CONTROL.search(uri) or not rest.removeprefix("localhost").startswith("/"):
            found.add(where, "must be file:// with an absolute path, without a host or control characters")
            return None
        return InputKind.FILE
    if scheme not in _LIVE_SCHEMES and scheme not in _FETCHED_SCHEMES:
        known = ", ".join(sorted(_LIVE_SCHEMES | _FETCHED_SCHEMES | {"file"}))
        found.add(where, f"must use one of the protocols {known}, not {scheme[:20]}")
        return None
    check_host(found, where, uri)
    return InputKind.LIVE if scheme in _LIVE_SCHEMES else InputKind.ON_DEMAND


def check_host(found: Violations, where: str, url: str) -> None:
    """Notes a URL without a usable host or port, or with characters that no URL has. Quotes nothing of it."""
    if _UNFIT.search(url):
        found.add(where, "must not have spaces or control characters; write a space as %20")
        return
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        found.add(where, "must be a URL with a host, and a port of 1 to 65535 if it has one")


def _check_ingest(found: Violations, where: str, ingest: Ingest) -> None:
    found.check_enum(f"{where}.protocol", ingest.protocol, INGEST_PROTOCOLS)
    if ingest.HasField("publisher_timeout"):
        found.check_duration(f"{where}.publisher_timeout", ingest.publisher_timeout, SECOND, DAY)


def _check_ingest_facts(found: Violations, where: str, facts: InputFacts) -> None:
    """Nothing can be probed before somebody publishes."""
    why = "must be declared for an ingest: nobody can look at it before it is published"
    if not (facts.width or facts.height):
        found.add(f"{where}.width", why)
        found.add(f"{where}.height", why)
    if not facts.HasField("frame_rate"):
        found.add(f"{where}.frame_rate", why)


def _check_span(found: Violations, where: str, given: Input, kind: InputKind | None) -> None:
    if given.HasField("start_offset"):
        length = found.check_duration(f"{where}.start_offset", given.start_offset, 0, 366 * DAY)
        if length and kind in (InputKind.LIVE, InputKind.INGEST):
            found.add(f"{where}.start_offset", "must not be given for a live input: what is past is gone")
    if given.HasField("duration"):
        found.check_duration(f"{where}.duration", given.duration, SECOND // 1000, 366 * DAY)


def _check_repetition(found: Violations, where: str, given: Input, kind: InputKind | None) -> None:
    count, forever = given.repeat_count, given.repeat_forever
    if count > MAX_REPEATS:
        found.add(f"{where}.repeat_count", f"must be at most {MAX_REPEATS:,}, not {count:,}; or try repeat_forever")
    if count and forever:
        found.add(f"{where}.repeat_count", "must not be given with repeat_forever")
    if kind not in (InputKind.FILE, None):
        told = "must not be given for this input: only files and uploads can be played again"
        if count:
            found.add(f"{where}.repeat_count", told)
        if forever:
            found.add(f"{where}.repeat_forever", told)
