"""Playlists that a further take would begin anew, writing over the segments that they listed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.hls import PLAYLIST, own_playlist, own_segments
from agents.sessions.playlist_guard import is_whole

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agents.pipelines.command import HlsPresentation

_SUFFIXES = (".m4s", ".ts")
_UNLISTED = 1
"""Segments that may be there before the first playlist is: an ffmpeg that was killed just then."""


def find_torn_playlist(presentations: Iterable[HlsPresentation]) -> Path | None:
    """Looks for a playlist that is gone or damaged while its segments are there. ffmpeg would number them from 0 again.

    Args:
        presentations: What the take before has written, and the next one goes on with.

    Raises:
        OSError: When a folder or a playlist cannot be read.
    """
    for presentation in presentations:
        part = presentation.part
        name = own_playlist(PLAYLIST, part)
        for variant in presentation.variants:
            folder = Path(presentation.folder) / variant
            finished = [path for path in folder.glob(own_segments(part)) if path.suffix in _SUFFIXES]
            if len(finished) > _UNLISTED and not _is_playlist(folder / name):
                return folder / name
    return None


def _is_playlist(path: Path) -> bool:
    try:
        text = path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return False
    return is_whole(text) and "#EXTINF:" in text
