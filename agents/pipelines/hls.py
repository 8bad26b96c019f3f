"""HLS: one muxer that writes a playlist per rendition and the master playlist.

Sound that several renditions share is a playlist of its own, which they refer to: a stream goes into one variant only,
and encoding it once per rendition would cost more than it is worth. ffmpeg lists such sound in the master playlist also
as a variant without pictures, for listeners with little bandwidth. Sound that no two renditions share is packed with
their video.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.command import HlsPresentation
from agents.pipelines.input_options import seconds_text
from agents.pipelines.job import HlsOutput, HlsSegmentFormat
from agents.pipelines.muxers import Muxer, specifiers

if TYPE_CHECKING:
    from agents.pipelines.streams import AudioStream, RenditionStreams, Stream

MASTER_PLAYLIST = "master.m3u8"
"""Name of the master playlist in the output's folder."""
PLAYLIST = "index.m3u8"
"""Name of each rendition's playlist, in a folder of its own."""
_END = "#EXT-X-ENDLIST"
_ASIDE = re.compile(
    r"\.(index|master)((-before)?-\d+\.m3u8(\.tmp)?|-kept\.m3u8(\.new)?|(-before-\d+)?\.m3u8\.\w+\.part)"
)
"""Of continuing attempts; what is kept for a full disk; and what was half-written when an agent was killed."""
_KEPT_AFTER_LISTING = 3
"""Segments that stay for clients whose playlist is old."""


def hls_muxer(
    output: HlsOutput,
    folder: str,
    renditions: tuple[RenditionStreams, ...],
    streams: tuple[Stream, ...],
    *,
    live: bool = False,
    take: int = 1,
    part: int | None = None,
    starts_at: timedelta = timedelta(),
) -> tuple[Muxer, HlsPresentation]:
    """Makes the muxer of an HLS presentation.

    Args:
        output: What is asked for.
        folder: Absolute path of its folder.
        renditions: What goes in.
        streams: Their streams, each once, video first.
        live: Whether something may go on with it when ffmpeg has ended: then no playlist says that it has an end (see
            `ended_playlist`).
        take: Which take of a recording it is, from 1. One after the first goes on in the playlists behind a
            discontinuity.
        part: Number of the attempt, when it continues earlier ones: it writes segments, headers and playlists of names
            that none of them used. None: it begins anew.
        starts_at: Where on the timeline it goes on with what there is. A discontinuity allows its timestamps to begin
            anew, but ffmpeg itself drops the segment behind one that does.

    Returns:
        The muxer, and what it makes.
    """
    fragmented = output.segment_format is HlsSegmentFormat.FMP4
    names, variants, sounds = _variants(renditions, streams)
    seconds = output.segment_duration.total_seconds()
    flags = ["temp_file"]
    if all(rendition.video is None or rendition.video.encoding is not None for rendition in renditions):
        flags.append("independent_segments")
    flags += ["omit_endlist"] if live else []
    flags += ["append_list"] if take > 1 else []
    listed: int | None = None
    if output.dvr_window is None:
        kept = [("hls_list_size", "0"), ("hls_playlist_type", "event")]
    else:
        listed = max(1, math.ceil(output.dvr_window.total_seconds() / seconds))
        flags.append("delete_segments")
        kept = [("hls_list_size", str(listed)), ("hls_delete_threshold", str(_KEPT_AFTER_LISTING))]
    options = (
        ("hls_time", f"{seconds:g}"),
        *kept,
        ("hls_segment_type", "fmp4" if fragmented else "mpegts"),
        *((("hls_fmp4_init_filename", _init_name(part, len(names))),) if fragmented else ()),
        ("hls_segment_filename", f"{folder}/%v/segment{_told(part)}_%05d.{'m4s' if fragmented else 'ts'}"),
        ("hls_flags", "+".join(flags)),
        *(_resumption(starts_at, fragmented) if starts_at else ()),
        ("master_pl_name", own_playlist(MASTER_PLAYLIST, part)),
        ("var_stream_map", " ".join(variants)),
    )
    url = f"{folder}/%v/{own_playlist(PLAYLIST, part)}"
    muxer = Muxer(format="hls", options=options, url=url, streams=streams)
    return muxer, HlsPresentation(folder=folder, variants=tuple(names), window=listed, part=part, sounds=sounds)


def presentation_folders(presentation: HlsPresentation) -> tuple[str, ...]:
    """Gives the folders that a presentation needs, parents first."""
    return (presentation.folder, *(f"{presentation.folder}/{name}" for name in presentation.variants))


def own_playlist(name: str, part: int | None) -> str:
    """Names the playlist that an attempt writes: the one that players read, unless it continues earlier attempts.

    That of one that does is hidden, so that clients are not shown it, and is joined with earlier ones.
    """
    return name if part is None else f".{name.removesuffix('.m3u8')}-{part}.m3u8"


def own_segments(part: int | None) -> str:
    """Gives a pattern of the segments that an attempt writes in the folder of a rendition, unfinished ones included."""
    return f"segment{_told(part)}_*"


def is_aside(name: str) -> bool:
    """Tells whether a file lies beside the playlists that players read only while attempts go on with them."""
    return _ASIDE.fullmatch(name) is not None


def kept_playlist(name: str) -> str:
    """Names a second link to the last whole version of a playlist."""
    return f".{name.removesuffix('.m3u8')}-kept.m3u8"


def playlist_before(part: int) -> str:
    """Names the copy of a playlist as a continuing attempt found it."""
    return f".{PLAYLIST.removesuffix('.m3u8')}-before-{part}.m3u8"


def _resumption(starts_at: timedelta, fragmented: bool) -> tuple[tuple[str, str], ...]:
    """Has timestamps begin where those before have ended, and has segments say so."""
    option = "movflags=+frag_discont" if fragmented else "mpegts_flags=+initial_discontinuity"
    return ("hls_segment_options", option), ("output_ts_offset", seconds_text(starts_at))


def _init_name(part: int | None, variants: int) -> str:
    """Names headers. Of several variants ffmpeg wants their names in any but its own default."""
    return f"init{_told(part)}{'' if part is None or variants == 1 else '-%v'}.mp4"


def _told(part: int | None) -> str:
    return "" if part is None else f"-{part}"


def ended_playlist(text: str) -> str:
    """Says in a playlist of one rendition that nothing more will come. What says so already, stays as it is."""
    if _END in text.splitlines():
        return text
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{_END}\n"


def _variants(
    renditions: tuple[RenditionStreams, ...], streams: tuple[Stream, ...]
) -> tuple[list[str], list[str], tuple[tuple[str, str], ...]]:
    """Gives the folder names, the variants in the language of `var_stream_map`, and whose sound is which other."""
    pictured = [rendition for rendition in renditions if rendition.video is not None]
    if not pictured:
        sounds: dict[Stream, str] = {}
        for rendition in renditions:
            if rendition.audio is not None:
                sounds.setdefault(rendition.audio, rendition.rendition.id)
        names = list(sounds.values())
        told = specifiers(tuple(sounds), streams)
        return names, [f"{place},name:{name}" for place, name in zip(told, names, strict=True)], ()
    uses = Counter(rendition.audio for rendition in renditions if rendition.audio is not None)
    packed = all(rendition.audio is None or uses[rendition.audio] == 1 for rendition in pictured) and all(
        rendition.video is not None for rendition in renditions
    )
    groups = {} if packed else _groups(renditions, uses)
    names, variants = [], []
    for rendition in pictured:
        assert rendition.video is not None
        parts = specifiers((rendition.video,), streams)
        if rendition.audio is not None and packed:
            parts += specifiers((rendition.audio,), streams)
        elif rendition.audio is not None:
            parts.append(f"agroup:{groups[rendition.audio]}")
        names.append(rendition.rendition.id)
        variants.append(",".join([*parts, f"name:{rendition.rendition.id}"]))
    for audio, name in groups.items():
        names.append(name)
        variants.append(f"{specifiers((audio,), streams)[0]},agroup:{name},name:{name}")
    heard = tuple((one.rendition.id, groups[one.audio]) for one in pictured if one.audio in groups)
    return names, variants, heard


def _groups(renditions: tuple[RenditionStreams, ...], uses: Counter[AudioStream]) -> dict[AudioStream, str]:
    """Names every distinct sound: after the rendition that is nothing but it, else "audio" with a number."""
    taken = {rendition.rendition.id for rendition in renditions}
    groups: dict[AudioStream, str] = {}
    for audio in uses:
        own = [one.rendition.id for one in renditions if one.video is None and one.audio == audio]
        name, number = own[0] if own else "audio", 1
        while not own and (name in taken or name in groups.values()):
            number += 1
            name = f"audio-{number}"
        groups[audio] = name
    return groups
