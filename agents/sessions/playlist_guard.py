"""Keeps HLS presentations from being wrecked by a full disk, which ffmpeg's muxer for them does not notice.

On a full disk it goes on for ever, puts empty segments in place, and replaces its playlists by empty ones, at its end
the master too: all that was made until then is lost to players. So an attempt that writes HLS is ended when its disk
has hardly any room, and the last whole playlists that were seen are put back where empty ones stand: by a second link
to each, since others take whatever room there is. What a better version needs it takes from segments that no playlist
lists.
"""

from __future__ import annotations

import contextlib
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.hls import MASTER_PLAYLIST, PLAYLIST, ended_playlist, kept_playlist
from gpu_balancer.runtime.disk_room import measure_room
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from collections.abc import Sequence

_MODE = 0o644
_HEAD = "#EXTM3U"
_END = "#EXT-X-ENDLIST"
_LENGTH = re.compile(r"^#EXTINF:(\d+(?:\.\d+)?),", re.MULTILINE)
_NUMBERED = re.compile(r"(segment\S*_)(\d+)(\.\w+)")
_VARIANT = "#EXT-X-STREAM-INF:"
_DISCONTINUITY = "#EXT-X-DISCONTINUITY"
_ROOM_BYTES = 256 * 1024
_ROOM_S = 3.0
"""Seconds of what is written that must still fit: until the next look, and what the encoder holds back."""
_PACKET_BYTES = 188
"""Of a transport stream."""
_BOX = struct.Struct(">I4s")
"""Length and type of an ISO box. Those of a segment have no 64-bit lengths."""
_LONGEST_BYTES = 8 * 1024 * 1024
"""Of a playlist that is remembered: one of a month in segments of 4 s."""


class PlaylistGuard:
    """The playlists of one attempt."""

    def __init__(self, folders: Sequence[str]) -> None:
        """Looks at nothing yet.

        Args:
            folders: Absolute paths of its presentations.
        """
        self._folders = tuple(Path(folder) for folder in folders)
        self._seen: dict[Path, int] = {}
        self._whole: dict[Path, str] = {}

    def look(self, bytes_per_second: float) -> bool:
        """Remembers playlists that are whole. Blocks for the disk.

        Args:
            bytes_per_second: How much the attempt writes.

        Returns:
            Whether there is room to go on.

        Raises:
            OSError: When a disk cannot be looked at.
        """
        for path in (*self._playlists(), *self._masters()):
            self._remember(path)
        needed = _ROOM_BYTES + _ROOM_S * bytes_per_second
        return all(measure_room(folder).free_bytes >= needed for folder in self._folders if folder.exists())

    def restore(self, *, full: bool) -> None:
        """Puts whole playlists back where empty ones stand, without segments that are missing or torn, and ended.

        May be repeated. Each gets its last whole version by a rename, which takes no room, and then a better one.

        Args:
            full: Whether the disk was full, so that also what a whole playlist lists may be torn.

        Raises:
            OSError: When the disk is full or refuses. All that needs no room is done then.
        """
        masters = self._masters()
        playlists = dict.fromkeys((*self._playlists(), *(path for path in self._whole if path not in masters)))
        torn = [path for path in playlists if not is_whole(_read(path))]
        for path in (*torn, *masters):
            self._put_back(path)
        try:
            for path in playlists:
                found = _read(path)
                text = found if is_whole(found) else self._whole.get(path)
                if text is None or not (full or path in torn):
                    continue
                # Also of a whole one: it may be what a former run put back, which had no room to write a better one.
                whole = ended_playlist(_playable(_continued(text, path.parent), path.parent))
                if whole != found:
                    _remove_unlisted(path.parent, whole)
                    write_durably(path, whole.encode(), mode=_MODE)
            for path in masters:
                text = self._whole.get(path)
                if text is not None and not _is_good(path, _read(path)):
                    write_durably(path, text.encode(), mode=_MODE)
        finally:
            for path in (*playlists, *masters):
                with contextlib.suppress(OSError):
                    _kept(path).unlink(missing_ok=True)

    def _masters(self) -> list[Path]:
        return [folder / MASTER_PLAYLIST for folder in self._folders]

    def _playlists(self) -> list[Path]:
        return [path for folder in self._folders for path in sorted(folder.glob(f"*/{PLAYLIST}"))]

    def _remember(self, path: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            told = path.stat()
            if self._seen.get(path) == told.st_mtime_ns or told.st_size > _LONGEST_BYTES:
                return
            text = _read(path)
            if _is_good(path, text):
                self._whole[path], self._seen[path] = text, told.st_mtime_ns
                _keep(path, told.st_ino)

    def _put_back(self, path: Path) -> None:
        if _is_good(path, _read(path)) or not _is_good(path, _read(_kept(path))):
            return
        with contextlib.suppress(OSError):
            _kept(path).replace(path)


def _kept(path: Path) -> Path:
    return path.with_name(kept_playlist(path.name))


def _keep(path: Path, inode: int) -> None:
    """Links to a playlist as it is, for an agent that comes when it was emptied. ffmpeg never writes into one again."""
    kept = _kept(path)
    new = kept.with_name(f"{kept.name}.new")
    # Where there are no links, only this agent remembers.
    with contextlib.suppress(OSError):
        new.unlink(missing_ok=True)
        os.link(path, new, follow_symlinks=False)
        if new.stat().st_ino == inode:
            new.replace(kept)
        new.unlink(missing_ok=True)


def _is_good(path: Path, text: str) -> bool:
    """Tells whether there is nothing to put back: at its very start a master names no variant, and nothing is lost."""
    return is_whole(text) and (path.name != MASTER_PLAYLIST or _VARIANT in text)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def is_whole(text: str) -> bool:
    """Tells whether a playlist begins and ends as one does that was written to its end."""
    return text.startswith(_HEAD) and text.endswith("\n")


def _remove_unlisted(folder: Path, playlist: str) -> None:
    """Removes segments that a playlist does not list: nobody will ever play them."""
    listed = set(playlist.splitlines())
    for segment in folder.glob("segment*"):
        if segment.name not in listed:
            segment.unlink(missing_ok=True)


def _continued(text: str, folder: Path) -> str:
    """Adds what came after a playlist was last seen whole: ffmpeg had listed it in the one that it emptied.

    How long each segment is nobody knows any more: as long as most are.
    """
    lines = text.splitlines()
    last = _NUMBERED.fullmatch(next((line for line in reversed(lines) if line and not line.startswith("#")), ""))
    lengths = sorted(float(length) for length in _LENGTH.findall(text))
    if last is None or not lengths or _END in lines:
        return text
    found = [_NUMBERED.fullmatch(path.name) for path in folder.glob(f"{last[1]}*{last[3]}")]
    later = sorted((int(one[2]), one[0]) for one in found if one is not None and int(one[2]) > int(last[2]))
    for before, (number, name) in zip([int(last[2]), *(number for number, _ in later)], later, strict=False):
        if number > before + 1:
            lines.append(_DISCONTINUITY)  # what was between them was torn, and is removed
        lines += [f"#EXTINF:{lengths[len(lengths) // 2]:.6f},", name]
    return "\n".join(lines) + "\n"


def _playable(text: str, folder: Path) -> str:
    """Leaves out segments that cannot be played, with what is said of them. What comes behind them does not go on."""
    kept: list[str] = []
    told: list[str] = []
    torn = False
    for line in text.splitlines():
        told.append(line)
        if line and not line.startswith("#"):
            whole = is_segment(folder / line)
            if whole:
                kept += [_DISCONTINUITY] if torn and _DISCONTINUITY not in told else []
                kept += told
            told, torn = [], not whole
    return "\n".join([*kept, *told]) + "\n"


def is_segment(path: Path) -> bool:
    """Tells whether a segment is there as a whole: its packets, or its boxes, end where the file ends."""
    try:
        return _is_complete(path)
    except OSError:
        return False


def _is_complete(path: Path) -> bool:
    size = path.stat().st_size
    if path.suffix == ".ts":
        return size > 0 and size % _PACKET_BYTES == 0
    with path.open("rb") as file:
        at = 0
        while at < size:
            file.seek(at)
            head = file.read(_BOX.size)
            length = _BOX.unpack(head)[0] if len(head) == _BOX.size else 0
            if length < _BOX.size:
                return False
            at += length
    return at == size > 0
