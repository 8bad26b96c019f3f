"""HLS playlists of one rendition as values: read, joined behind a discontinuity, kept to a window, written.

Why not ffmpeg's own `append_list`: it writes one EXT-X-MAP for all segments, so what another encoder made before could
not be decoded any more; it counts no discontinuities that leave the window; and an older ffmpeg forgets what it does
not know. So an attempt that continues another one writes a playlist of its own, and the two are joined here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta

_START = "#EXTM3U"
_VERSION = "#EXT-X-VERSION:"
_TARGET = "#EXT-X-TARGETDURATION:"
_SEQUENCE = "#EXT-X-MEDIA-SEQUENCE:"
_DISCONTINUITIES = "#EXT-X-DISCONTINUITY-SEQUENCE:"
_EVENT = "#EXT-X-PLAYLIST-TYPE:EVENT"
_INDEPENDENT = "#EXT-X-INDEPENDENT-SEGMENTS"
_DISCONTINUITY = "#EXT-X-DISCONTINUITY"
_MAP = "#EXT-X-MAP:"
_END = "#EXT-X-ENDLIST"
_LENGTH = re.compile(r"#EXTINF:(\d+(?:\.\d+)?),")
_NUMBERS = (_VERSION, _TARGET, _SEQUENCE, _DISCONTINUITIES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One segment."""

    uri: str
    tags: tuple[str, ...]
    """The lines about it alone: how long it is, and others."""
    map: str | None = None
    """The line that names its header. None: it needs none."""
    discontinuity: bool = False
    """Whether it does not go on where the one before ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Playlist:
    """A playlist of one rendition."""

    version: int = 3
    target_duration: int = 0
    """Seconds."""
    media_sequence: int = 0
    """Number of its first segment."""
    discontinuity_sequence: int = 0
    """How many discontinuities have left it."""
    event: bool = False
    """Whether nothing ever leaves it."""
    independent: bool = False
    """Whether each segment can be decoded by itself."""
    segments: tuple[Segment, ...] = ()
    ended: bool = False
    """Whether nothing more comes."""


def parse_playlist(text: str) -> Playlist | None:
    """Reads a playlist of one rendition as ffmpeg or this module writes it. None: it is none, or is cut off."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != _START:
        return None
    numbers = dict.fromkeys(_NUMBERS, 0)
    segments: list[Segment] = []
    tags: list[str] = []
    header: str | None = None
    discontinuity = False
    for line in lines[1:]:
        name = next((name for name in _NUMBERS if line.startswith(name)), None)
        if name is not None:
            value = line.removeprefix(name)
            numbers[name] = int(value) if value.isdecimal() else 0
        elif line.startswith(_MAP):
            header = line
        elif line == _DISCONTINUITY:
            discontinuity = True
        elif not line.startswith("#"):
            segments.append(Segment(uri=line, tags=tuple(tags), map=header, discontinuity=discontinuity))
            tags, discontinuity = [], False
        elif line not in (_EVENT, _INDEPENDENT, _END):
            tags.append(line)
    return Playlist(
        version=numbers[_VERSION],
        target_duration=numbers[_TARGET],
        media_sequence=numbers[_SEQUENCE],
        discontinuity_sequence=numbers[_DISCONTINUITIES],
        event=_EVENT in lines,
        independent=_INDEPENDENT in lines,
        segments=tuple(segments),
        ended=_END in lines,
    )


def write_playlist(playlist: Playlist) -> str:
    """Writes a playlist."""
    lines = [_START, f"{_VERSION}{playlist.version}", f"{_TARGET}{playlist.target_duration}"]
    lines.append(f"{_SEQUENCE}{playlist.media_sequence}")
    lines += [f"{_DISCONTINUITIES}{playlist.discontinuity_sequence}"] if playlist.discontinuity_sequence else []
    lines += [_EVENT] if playlist.event else []
    lines += [_INDEPENDENT] if playlist.independent else []
    header: str | None = None
    for segment in playlist.segments:
        lines += [_DISCONTINUITY] if segment.discontinuity else []
        if segment.map is not None and segment.map != header:
            lines.append(segment.map)
        header = segment.map
        lines += [*segment.tags, segment.uri]
    lines += [_END] if playlist.ended else []
    return "\n".join(lines) + "\n"


def join_playlists(before: Playlist, after: Playlist, *, window: int | None) -> Playlist:
    """Goes on with a playlist behind a discontinuity.

    Args:
        before: What there was. It takes no further segment.
        after: What comes behind it; of its own beginning as much may have left it as its numbers tell.
        window: How many segments are kept. None: all.

    Returns:
        Both as one, its end open unless that of the latter is not.
    """
    if not before.segments and not before.media_sequence:
        return after
    slid = after.media_sequence > 0
    came = tuple(
        replace(segment, discontinuity=segment.discontinuity or (number == 0 and not slid))
        for number, segment in enumerate(after.segments)
    )
    # What has left the latter came behind all of the former.
    sequence = before.media_sequence + (len(before.segments) + after.media_sequence if slid else 0)
    passed = _discontinuities(before.segments) + 1 + after.discontinuity_sequence if slid else 0
    listed = came if slid else (*before.segments, *came)
    surplus = 0 if window is None else max(len(listed) - window, 0)
    return Playlist(
        version=max(before.version, after.version),
        target_duration=max(before.target_duration, after.target_duration),
        media_sequence=sequence + surplus,
        discontinuity_sequence=before.discontinuity_sequence + passed + _discontinuities(listed[:surplus]),
        event=before.event and after.event,
        independent=before.independent and after.independent,
        segments=listed[surplus:],
        ended=after.ended,
    )


def end_of(playlist: Playlist) -> timedelta:
    """Tells by when a playlist's timeline has ended: exactly when nothing has left it, else rather too late."""
    listed = [float(found[1]) for segment in playlist.segments for tag in segment.tags if (found := _LENGTH.match(tag))]
    return timedelta(seconds=sum(listed) + playlist.media_sequence * (playlist.target_duration + 1))


def _discontinuities(segments: tuple[Segment, ...]) -> int:
    return sum(segment.discontinuity for segment in segments)
