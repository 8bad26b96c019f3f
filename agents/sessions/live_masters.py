"""The master playlists of live HLS presentations: whole from the first segment on, with rates as they were measured.

ffmpeg's own names only what it knows a rate of, and tells rates that were measured at its end alone, which a live
presentation may never see. Everything here is taken from what lies in the folder, so the same comes of it whoever
makes it.
"""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.hls import MASTER_PLAYLIST, PLAYLIST, own_playlist
from agents.pipelines.init_segments import init_facts
from agents.pipelines.master_playlists import (
    complete_master,
    fuller_master,
    listed_segments,
    measured_rate,
    parse_master,
    told_rates,
    write_master,
)
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from agents.pipelines.command import HlsPresentation
    from agents.pipelines.init_segments import InitFacts
    from agents.pipelines.master_playlists import MasterPlaylist, Rate

_MODE = 0o644
_TAIL_BYTES = 64 * 1024
"""Of a playlist that are measured while it goes on: some hundred segments. All of one of a month would take seconds."""
_INIT_BYTES = 1024 * 1024
"""Of a header that is looked at; they have a few thousand."""
_MAP = re.compile(r'^#EXT-X-MAP:URI="([^"/]+)"', re.MULTILINE)


def update_master(presentation: HlsPresentation, *, ended: bool) -> None:
    """Makes the master playlist whole and tells its rates. Blocks for the disk; may be repeated.

    Args:
        presentation: Whose.
        ended: Whether nothing more comes: then everything is measured.

    Raises:
        OSError: When the disk is full or refuses.
    """
    folder = Path(presentation.folder)
    place = folder / MASTER_PLAYLIST
    found = _text(place)
    found_any = bool(found)
    master = parse_master(found)
    if presentation.part is not None:
        own = _text(folder / own_playlist(MASTER_PLAYLIST, presentation.part))
        found_any = found_any or bool(own)
        own = own.replace(f"/{own_playlist(PLAYLIST, presentation.part)}", f"/{PLAYLIST}")
        master = fuller_master(master, parse_master(own))
    if not found_any and not ended:
        return  # ffmpeg is about to write one, which knows more than can be told from here
    # What has left a window cannot be measured any more.
    told = _measured(folder, presentation, master, everything=ended, exact=ended and presentation.window is None)
    if told.variants and (text := write_master(told)) != found:
        write_durably(place, text.encode(), mode=_MODE)


def _measured(
    folder: Path, presentation: HlsPresentation, master: MasterPlaylist, *, everything: bool, exact: bool
) -> MasterPlaylist:
    rates: dict[str, Rate] = {}
    for name in presentation.variants:
        uri = _uri(name)
        if (rate := _rate(folder / uri, everything=everything)) is not None:
            rates[uri] = rate
    named = {variant.uri for variant in master.variants}
    facts = {uri: _facts(folder / uri) for uri in rates} if rates.keys() - named else {}
    sounds = {_uri(name): _uri(sound) for name, sound in presentation.sounds}
    ready = [uri for uri in rates if sounds.get(uri, uri) in rates]
    return told_rates(complete_master(master, ready, sounds=sounds, facts=facts), rates, ended=exact)


def _rate(playlist: Path, *, everything: bool) -> Rate | None:
    sizes: list[tuple[int, float]] = []
    for uri, seconds in listed_segments(_text(playlist, last=None if everything else _TAIL_BYTES)):
        with contextlib.suppress(FileNotFoundError):
            sizes.append(((playlist.parent / uri).stat().st_size, seconds))
    return measured_rate(sizes)


def _facts(playlist: Path) -> InitFacts:
    header = _MAP.search(_text(playlist))
    content = b""
    if header is not None:
        with contextlib.suppress(FileNotFoundError), (playlist.parent / header[1]).open("rb") as file:
            content = file.read(_INIT_BYTES)
    return init_facts(content)


def _text(path: Path, *, last: int | None = None) -> str:
    """Reads a playlist, or its end. One that is not there is empty."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        if last is not None:
            file.seek(max(path.stat().st_size - last, 0))
        return file.read().decode("utf-8", errors="replace")
    return ""


def _uri(name: str) -> str:
    return f"{name}/{PLAYLIST}"
