"""Muxers, and the two ways to write one: as an output of ffmpeg's own, or as one of several behind `tee`.

ffmpeg encodes once per output, so outputs that share an encoded stream become one: the `tee` muxer, which hands every
packet to several muxers. Its arguments are a language of their own, escaped twice over: the list of muxers is split at
"|", each of them at ":" and "]", and both times quotes and backslashes are taken off.

Each muxer behind `tee` says `onfail=abort`, although documented as the default: ffmpeg 5.1 otherwise carries on
without the one that failed and ends with 0. Headers need no bitstream filters: asked for globally (which MP4 and FLV
need), they are put into transport streams by the muxer itself; `dump_extra` there would even break copied streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.pipelines.streams import VideoStream

if TYPE_CHECKING:
    from agents.pipelines.streams import Stream
    from agents.pipelines.video_encoders import Options

_MUXER_SEPARATORS = "|"
_OPTION_SEPARATORS = ":]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Muxer:
    """One container on its way to one place."""

    format: str
    """ffmpeg's name of the container."""
    options: Options
    """Of the muxer and of the protocol that it writes through."""
    url: str
    """Path or URL."""
    streams: tuple[Stream, ...]
    """What goes in: video first, then sound."""


def plain_arguments(muxer: Muxer) -> tuple[str, ...]:
    """Writes a muxer as the end of an output of ffmpeg's own."""
    options = [text for name, value in muxer.options for text in (f"-{name}", value)]
    return ("-f", muxer.format, *options, muxer.url)


def tee_arguments(muxers: tuple[Muxer, ...], streams: tuple[Stream, ...]) -> tuple[str, ...]:
    """Writes several muxers as one output.

    Args:
        muxers: At least two.
        streams: All streams of the output, in the order in which they are mapped.

    Returns:
        Its last arguments.
    """
    slaves = "|".join(_escape(_slave(muxer, streams), _MUXER_SEPARATORS) for muxer in muxers)
    return ("-flags", "+global_header", "-f", "tee", slaves)


def tee_text(text: str) -> str:
    """Gives a path or URL as it stands in the arguments of `tee`."""
    return _escape(text, _MUXER_SEPARATORS)


def _slave(muxer: Muxer, streams: tuple[Stream, ...]) -> str:
    options = [("f", muxer.format), ("onfail", "abort")]
    if set(muxer.streams) != set(streams):
        options.append(("select", ",".join(specifiers(muxer.streams, streams))))
    options += muxer.options
    told = ":".join(f"{name}={_escape(value, _OPTION_SEPARATORS)}" for name, value in options)
    return f"[{told}]{muxer.url}"


def specifiers(chosen: tuple[Stream, ...], streams: tuple[Stream, ...]) -> list[str]:
    """Names streams as ffmpeg does, "v:0" and "a:0", by their place among all streams of an output.

    Args:
        chosen: The ones to name.
        streams: All, in the order in which they are mapped.

    Returns:
        One name for each, in the order of `chosen`.
    """
    video = [stream for stream in streams if isinstance(stream, VideoStream)]
    audio = [stream for stream in streams if not isinstance(stream, VideoStream)]
    return [
        f"v:{video.index(stream)}" if isinstance(stream, VideoStream) else f"a:{audio.index(stream)}"
        for stream in chosen
    ]


def _escape(text: str, separators: str) -> str:
    return "".join(f"\\{character}" if character in f"\\' {separators}" else character for character in text)
