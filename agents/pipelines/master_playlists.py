"""HLS master playlists as values: read, the more complete of two chosen, variants added and their bit rates told.

Why not ffmpeg's own alone: it leaves out every variant of which it knows no bit rate, so the playlist of a copied
rendition names nothing until the end; it tells for pictures whose sound is apart the rate of one of them; and what an
encoder may at most make has little to do with what it makes. RFC 8216 wants the peak of what was made, or of something
alike (section 4.3.4.2).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agents.pipelines.init_segments import InitFacts

_START = "#EXTM3U"
_VARIANT = "#EXT-X-STREAM-INF:"
_MEDIA = "#EXT-X-MEDIA:"
_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"]*"|[^,]*)')
_PEAK, _AVERAGE = "BANDWIDTH", "AVERAGE-BANDWIDTH"
_LISTED = re.compile(r"^#EXTINF:(\d+(?:\.\d+)?),.*\n(?:#.*\n)*([^#\s].*)$", re.MULTILINE)
_LEAST_TARGETS, _MOST_TARGETS = 0.5, 1.5
"""Target durations that segments in a row must take together to have a part in the peak, by RFC 8216."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """What a playlist of one rendition takes."""

    peak_bps: int
    average_bps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One variant."""

    uri: str
    attributes: Mapping[str, str]
    """As they are written, in their order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MasterPlaylist:
    """A master playlist."""

    head: tuple[str, ...] = (_START,)
    """The lines before its variants; among them the sounds that variants refer to."""
    variants: tuple[Variant, ...] = ()


def parse_master(text: str) -> MasterPlaylist:
    """Reads a master playlist as ffmpeg or this module writes it. What is none has no variants."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != _START:
        return MasterPlaylist()
    head: list[str] = []
    variants: list[Variant] = []
    told: str | None = None
    for line in lines:
        if line.startswith(_VARIANT):
            told = line.removeprefix(_VARIANT)
        elif line.startswith("#"):
            head.append(line)
        elif told is not None:
            variants.append(Variant(uri=line, attributes=_attributes(told)))
            told = None
    return MasterPlaylist(head=tuple(head), variants=tuple(variants))


def write_master(master: MasterPlaylist) -> str:
    """Writes a master playlist."""
    lines = list(master.head)
    for variant in master.variants:
        told = ",".join(f"{name}={value}" for name, value in variant.attributes.items())
        lines += [f"{_VARIANT}{told}", variant.uri]
    return "\n".join(lines) + "\n"


def fuller_master(first: MasterPlaylist, second: MasterPlaylist) -> MasterPlaylist:
    """Gives the one that names more variants, or tells more of them; the first when they are alike."""
    return max(first, second, key=lambda master: (len(master.variants), _known(master)))


def complete_master(
    master: MasterPlaylist, uris: Sequence[str], *, sounds: Mapping[str, str], facts: Mapping[str, InitFacts]
) -> MasterPlaylist:
    """Adds variants that are not named.

    Args:
        master: What there is.
        uris: Of the playlists that are to be named, in order.
        sounds: The playlist of the sound of those that have it apart.
        facts: What is known of what a playlist plays.

    Returns:
        It with all of them, each without its rate.
    """
    named = {variant.uri for variant in master.variants}
    apart = dict.fromkeys(sounds[uri] for uri in uris if sounds.get(uri) in uris)
    head = list(master.head)
    for sound in apart:
        if not any(_is_sound(line, sound) for line in head):
            name = _folder(sound)
            head.append(f'{_MEDIA}TYPE=AUDIO,GROUP-ID="group_{name}",NAME="{name}",DEFAULT=YES,URI="{sound}"')
    whole = replace(master, head=tuple(head))
    added = [
        Variant(uri=uri, attributes=_described(whole, facts.get(uri), sounds.get(uri), facts))
        for uri in uris
        if uri not in named and uri not in apart
    ]
    return replace(whole, variants=(*whole.variants, *added))


def told_rates(master: MasterPlaylist, rates: Mapping[str, Rate], *, ended: bool) -> MasterPlaylist:
    """Tells the rates of variants as they were measured.

    Args:
        master: What there is.
        rates: Of playlists, by URI.
        ended: Whether everything was measured. Otherwise a rate that was measured before only rises, and one that does
            not stays as it is: whoever plays has read it already.

    Returns:
        It without variants whose rate nobody knows.
    """
    told = (replace(variant, attributes=_told(master, variant, rates, ended=ended)) for variant in master.variants)
    return replace(master, variants=tuple(variant for variant in told if _PEAK in variant.attributes))


def listed_segments(text: str) -> tuple[tuple[str, float], ...]:
    """Reads URIs and seconds of segments from a playlist of one rendition, or from its end."""
    return tuple((found[2].strip(), float(found[1])) for found in _LISTED.finditer(text))


def measured_rate(segments: Sequence[tuple[int, float]]) -> Rate | None:
    """Measures segments.

    Args:
        segments: Bytes and seconds of each, in order.

    Returns:
        Their rate: the peak as RFC 8216 wants it, of segments in a row that take about as long as the longest. None:
        there are none, or they take no time.
    """
    total_s = sum(seconds for _, seconds in segments)
    if total_s <= 0:
        return None
    target_s = max(seconds for _, seconds in segments)
    average = sum(size for size, _ in segments) * 8 / total_s
    peak = average
    for first in range(len(segments)):
        size, length_s = 0, 0.0
        for more, seconds in segments[first:]:
            size, length_s = size + more, length_s + seconds
            if length_s > _MOST_TARGETS * target_s:
                break
            if length_s >= _LEAST_TARGETS * target_s:
                peak = max(peak, size * 8 / length_s)
    return Rate(peak_bps=max(1, round(peak)), average_bps=max(1, round(average)))


def _attributes(text: str) -> dict[str, str]:
    return {found[1]: found[2] for found in _ATTRIBUTE.finditer(text)}


def _known(master: MasterPlaylist) -> int:
    return sum(len(variant.attributes.keys() - {_PEAK, _AVERAGE}) for variant in master.variants)


def _folder(uri: str) -> str:
    return uri.partition("/")[0]


def _is_sound(line: str, uri: str) -> bool:
    return line.startswith(_MEDIA) and _attributes(line.removeprefix(_MEDIA)).get("URI") == f'"{uri}"'


def _described(
    master: MasterPlaylist, own: InitFacts | None, sound: str | None, facts: Mapping[str, InitFacts]
) -> dict[str, str]:
    attributes = {}
    if own is not None and own.size is not None:
        attributes["RESOLUTION"] = f"{own.size[0]}x{own.size[1]}"
    played = [own, *([facts.get(sound)] if sound is not None else [])]
    if all(one is not None and one.codecs for one in played):
        codecs = dict.fromkeys(codec for one in played if one is not None for codec in one.codecs)
        attributes["CODECS"] = f'"{",".join(codecs)}"'
    group = None if sound is None else _group(master, sound)
    return attributes if group is None else attributes | {"AUDIO": group}


def _group(master: MasterPlaylist, sound: str) -> str | None:
    found = (line for line in master.head if _is_sound(line, sound))
    return next((_attributes(line.removeprefix(_MEDIA)).get("GROUP-ID") for line in found), None)


def _told(master: MasterPlaylist, variant: Variant, rates: Mapping[str, Rate], *, ended: bool) -> Mapping[str, str]:
    parts = [variant.uri, *_sounds_of(master, variant)]
    found = [rates[uri] for uri in parts if uri in rates]
    if len(found) < len(parts):
        return variant.attributes
    peak, average = sum(rate.peak_bps for rate in found), sum(rate.average_bps for rate in found)
    if not ended and _AVERAGE in variant.attributes and int(variant.attributes.get(_PEAK, "0")) >= peak:
        return variant.attributes
    others = {name: value for name, value in variant.attributes.items() if name not in (_PEAK, _AVERAGE)}
    return {_PEAK: str(peak), _AVERAGE: str(average), **others}


def _sounds_of(master: MasterPlaylist, variant: Variant) -> list[str]:
    """Gives the playlists of a variant's sound that are not its own."""
    group = variant.attributes.get("AUDIO")
    told = [_attributes(line.removeprefix(_MEDIA)) for line in master.head if line.startswith(_MEDIA)]
    uris = [media["URI"].strip('"') for media in told if media.get("GROUP-ID") == group and "URI" in media]
    return [] if group is None or variant.uri in uris else uris[:1]
