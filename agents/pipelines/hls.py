"""HLS: one muxer that writes a playlist per rendition and the master playlist.

Sound that several renditions share is a playlist of its own, which they refer to: a stream goes into one variant only,
and encoding it once per rendition would cost more than it is worth. ffmpeg lists such sound in the master playlist also
as a variant without pictures, for listeners with little bandwidth. Sound that no two renditions share is packed with
their video.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

from agents.pipelines.job import HlsOutput, HlsSegmentFormat
from agents.pipelines.muxers import Muxer, specifiers

if TYPE_CHECKING:
    from agents.pipelines.streams import AudioStream, RenditionStreams, Stream

MASTER_PLAYLIST = "master.m3u8"
"""Name of the master playlist in the output's folder."""
PLAYLIST = "index.m3u8"
"""Name of each rendition's playlist, in a folder of its own."""
_INIT_SEGMENT = "init.mp4"
_END = "#EXT-X-ENDLIST"
_KEPT_AFTER_LISTING = 3
"""Segments that stay for clients whose playlist is old."""


def hls_muxer(
    output: HlsOutput,
    folder: str,
    renditions: tuple[RenditionStreams, ...],
    streams: tuple[Stream, ...],
    *,
    take: int | None = None,
) -> tuple[Muxer, tuple[str, ...]]:
    """Makes the muxer of an HLS presentation.

    Args:
        output: What is asked for.
        folder: Absolute path of its folder.
        renditions: What goes in.
        streams: Their streams, each once, video first.
        take: Which take of a recording it is, from 1. One after the first goes on in the playlists behind a
            discontinuity, and none says that they have an end (see `ended_playlist`). None: it is no recording.

    Returns:
        The muxer, and the folders that it needs, parents first.
    """
    fragmented = output.segment_format is HlsSegmentFormat.FMP4
    names, variants = _variants(renditions, streams)
    seconds = output.segment_duration.total_seconds()
    flags = ["temp_file"]
    if all(rendition.video is None or rendition.video.encoding is not None for rendition in renditions):
        flags.append("independent_segments")
    if take is not None:
        flags += ["omit_endlist", *(["append_list"] if take > 1 else [])]
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
        *((("hls_fmp4_init_filename", _INIT_SEGMENT),) if fragmented else ()),
        ("hls_segment_filename", f"{folder}/%v/segment_%05d.{'m4s' if fragmented else 'ts'}"),
        ("hls_flags", "+".join(flags)),
        ("master_pl_name", MASTER_PLAYLIST),
        ("var_stream_map", " ".join(variants)),
    )
    muxer = Muxer(format="hls", options=options, url=f"{folder}/%v/{PLAYLIST}", streams=streams)
    return muxer, (folder, *(f"{folder}/{name}" for name in names))


def ended_playlist(text: str) -> str:
    """Says in a playlist of one rendition that nothing more will come. What says so already, stays as it is."""
    if _END in text.splitlines():
        return text
    return f"{text}{'' if text.endswith(chr(10)) or not text else chr(10)}{_END}\n"


def _variants(renditions: tuple[RenditionStreams, ...], streams: tuple[Stream, ...]) -> tuple[list[str], list[str]]:
    """Gives the folder names and the variants, in the language of `var_stream_map`."""
    pictured = [rendition for rendition in renditions if rendition.video is not None]
    if not pictured:
        sounds: dict[Stream, str] = {}
        for rendition in renditions:
            if rendition.audio is not None:
                sounds.setdefault(rendition.audio, rendition.rendition.id)
        names = list(sounds.values())
        told = specifiers(tuple(sounds), streams)
        return names, [f"{place},name:{name}" for place, name in zip(told, names, strict=True)]
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
    return names, variants


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
