"""The playlists of live HLS presentations: joined over attempts while they go on, and ended when nothing more comes.

A continuing attempt's ffmpeg writes playlists of its own. What players read is made of those and of what was there
before, which is kept as it was found: so the same comes of it whoever makes it, and an agent that is away loses
nothing, its successor makes up for it.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.hls import MASTER_PLAYLIST, PLAYLIST, ended_playlist, own_playlist, playlist_before
from agents.pipelines.playlists import Playlist, Segment, end_of, join_playlists, parse_playlist, write_playlist
from agents.sessions.live_masters import update_master
from agents.sessions.playlist_asides import remove_asides
from agents.sessions.playlist_guard import is_segment
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.pipelines.command import HlsPresentation

_LOG = logging.getLogger(__name__)
_MODE = 0o644
_GAP = timedelta(milliseconds=100)
"""Between what two attempts made on one timeline: sound begins up to this much before its picture."""
_LOOKED_AT = 10_000
"""Of a playlist's last segments whether they are whole, at the end: of a month of them it would take half a minute."""
_KEPT_AFTER_LISTING = 3
"""Segments that stay for clients whose playlist is old."""


def keep_earlier(presentations: Sequence[HlsPresentation]) -> timedelta:
    """Keeps the playlists of earlier attempts as they are, before another goes on. Blocks; may be repeated.

    Returns:
        Where on the timeline it goes on: behind all of them.

    Raises:
        OSError: When the disk is full or refuses.
    """
    ends = [timedelta()]
    for presentation in presentations:
        if presentation.part is None:
            continue
        for name in presentation.variants:
            folder = Path(presentation.folder) / name
            ends.append(end_of(_playable(_found(folder, presentation), folder)))
            kept = folder / playlist_before(presentation.part)
            if not folder.is_dir():
                continue
            listed = _read(folder / PLAYLIST)
            if kept.exists() and not (listed is not None and listed.ended):
                continue
            found = replace(_playable(_found(folder, presentation), folder), ended=False)
            if not kept.exists():
                write_durably(kept, write_playlist(found).encode(), mode=_MODE)
            if listed is not None:
                # Players that were told of an end are told that it goes on; none is open whose end is told.
                write_durably(folder / PLAYLIST, write_playlist(found).encode(), mode=_MODE)
    return max(ends) + _GAP if max(ends) else timedelta()


def end_as_they_are(presentations: Sequence[HlsPresentation]) -> None:
    """Ends playlists on a disk that takes nothing more: mostly there is room behind the last line of a file.

    Torn segments stay listed, and what cannot be ended even so stays open. Blocks for the disk.
    """
    for presentation in presentations:
        for name in presentation.variants:
            playlist = Path(presentation.folder) / name / PLAYLIST
            with contextlib.suppress(OSError):
                text = playlist.read_text("utf-8", errors="replace")
                with playlist.open("a") as file:
                    file.write(ended_playlist(text).removeprefix(text))


class LivePlaylists:
    """The playlists of one attempt."""

    def __init__(self, presentations: Sequence[HlsPresentation]) -> None:
        """Looks at nothing yet.

        Args:
            presentations: What it writes.
        """
        self._presentations = presentations
        self._seen: dict[Path, int] = {}

    @property
    def any(self) -> bool:
        """Whether there are any to be looked after."""
        return bool(self._presentations)

    def update(self) -> None:
        """Joins what is new with what was there before, and names it. Blocks; may be called again and again.

        Raises:
            OSError: When the disk is full or refuses.
        """
        for presentation in self._presentations:
            self._join_all(presentation)
            if self._news(presentation):
                update_master(presentation, ended=False)

    def follow(self) -> None:
        """Updates them while their attempt runs. Blocks.

        That a disk refuses is only said in the log: it must not keep anybody from looking after the attempt, which is
        ended by whoever watches the disk.
        """
        try:
            self.update()
        except OSError as error:
            _LOG.warning("Cannot write playlists: %s: %s", error.strerror, error.filename)

    def end(self) -> None:
        """Says that nothing more comes, and takes away what nobody goes on with. Blocks; may be repeated.

        Raises:
            OSError: When the disk is full or refuses.
        """
        for presentation in self._presentations:
            self._join_all(presentation)
            for name in presentation.variants:
                playlist = Path(presentation.folder) / name / PLAYLIST
                with contextlib.suppress(FileNotFoundError):
                    _end(playlist)
            update_master(presentation, ended=True)
            remove_asides(presentation)

    def _join_all(self, presentation: HlsPresentation) -> None:
        if presentation.part is not None:
            for name in presentation.variants:
                self._join(Path(presentation.folder) / name, presentation)

    def _news(self, presentation: HlsPresentation) -> bool:
        """Tells whether a playlist that players read, or the master, was written since it was last asked."""
        folder = Path(presentation.folder)
        watched = [folder / MASTER_PLAYLIST, *(folder / name / PLAYLIST for name in presentation.variants)]
        if presentation.part is not None:
            watched.append(folder / own_playlist(MASTER_PLAYLIST, presentation.part))
        news = False
        for path in watched:
            with contextlib.suppress(FileNotFoundError):
                written = path.stat().st_mtime_ns
                news = news or self._seen.get(path) != written
                self._seen[path] = written
        return news

    def _join(self, folder: Path, presentation: HlsPresentation) -> None:
        assert presentation.part is not None
        own = folder / own_playlist(PLAYLIST, presentation.part)
        try:
            written = own.stat().st_mtime_ns
        except FileNotFoundError:
            return
        listed = _read(folder / PLAYLIST)
        if self._seen.get(own) == written or (listed is not None and listed.ended):
            return  # Of one that has ended what it was joined of may be gone, or have been torn by a full disk.
        joined = _joined(folder, presentation.part, presentation.window)
        if joined is None or (listed is not None and _end_number(joined) < _end_number(listed)):
            return  # A full disk has cut what ffmpeg wrote.
        write_durably(folder / PLAYLIST, write_playlist(replace(joined, ended=False)).encode(), mode=_MODE)
        _remove_passed(folder, presentation.part, joined)
        self._seen[own] = written


def _end(playlist: Path) -> None:
    text = playlist.read_text("utf-8", errors="replace")
    found = parse_playlist(text)
    playable = found and _playable(found, playlist.parent)
    ended = ended_playlist(text if playable is None or playable == found else write_playlist(playable))
    if ended != text:
        write_durably(playlist, ended.encode(), mode=_MODE)


def _playable(playlist: Playlist, folder: Path) -> Playlist:
    """Leaves out segments that a full disk or a kill has torn: ffmpeg lists them all the same."""
    kept: list[Segment] = []
    torn = False
    first_looked_at = len(playlist.segments) - _LOOKED_AT
    for number, segment in enumerate(playlist.segments):
        if number >= first_looked_at and not is_segment(folder / segment.uri):
            torn = True
            continue
        kept.append(replace(segment, discontinuity=segment.discontinuity or torn))
        torn = False
    return replace(playlist, segments=tuple(kept)) if len(kept) < len(playlist.segments) else playlist


def _found(folder: Path, presentation: HlsPresentation) -> Playlist:
    """Gives the playlist as the latest earlier attempt has left it."""
    assert presentation.part is not None
    listed = _read(folder / PLAYLIST)
    if listed is not None and listed.ended:
        return listed  # as a whole; what it was joined of may be gone
    for part in range(presentation.part - 1, 0, -1):
        if (joined := _joined(folder, part, presentation.window)) is not None:
            return joined
        if (kept := _read(folder / playlist_before(part))) is not None:
            return kept
    return listed or Playlist()


def _joined(folder: Path, part: int, window: int | None) -> Playlist | None:
    """Gives the playlist as it is with what an attempt has written. None: it has written nothing."""
    own = _read(folder / own_playlist(PLAYLIST, part))
    if own is None:
        return None
    return join_playlists(_read(folder / playlist_before(part)) or Playlist(), own, window=window)


def _end_number(playlist: Playlist) -> int:
    """Gives the number of the segment that would come next."""
    return playlist.media_sequence + len(playlist.segments)


def _read(path: Path) -> Playlist | None:
    try:
        return parse_playlist(path.read_text("utf-8", errors="replace"))
    except FileNotFoundError:
        return None


def _remove_passed(folder: Path, part: int, joined: Playlist) -> None:
    """Removes segments of earlier attempts that have left the window for long; each ffmpeg removes its own alone."""
    before = _read(folder / playlist_before(part))
    if before is None:
        return
    gone = joined.media_sequence - before.media_sequence - _KEPT_AFTER_LISTING
    for segment in before.segments[: max(gone, 0)]:
        if "/" not in segment.uri:
            (folder / segment.uri).unlink(missing_ok=True)
