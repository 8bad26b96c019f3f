"""What is in files: in those that a full disk, or a kill, has cut off, and in those that were made of others.

A fragmented MP4 that ends within media plays up to there. One that ends within the index of a fragment, or of all of
them, is refused as a whole by ffmpeg and by what is built on it, an hour of film for some bytes. Without that piece of
an index it plays, and the media that it was to tell of was not written yet.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from agents.sessions.private_files import is_private, lent

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agents.pipelines.command import OutputMove
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import LaunchRecord

_BOX = struct.Struct(">I4s")
"""Length and type of an ISO box."""
_LONG_BOX = struct.Struct(">I4sQ")
"""With a length of 64 bits, where the first is 1."""
_FIRST = (b"ftyp", b"styp")
_INDEXES = (b"moov", b"moof")
_LONGEST = 0xFFFFFFFF
"""Of a box whose length has 32 bits."""
_BLOCK_BYTES = 1024 * 1024
_WRITTEN = (*_FIRST, *_INDEXES, b"mdat", b"mfra", b"free", b"sidx")
"""What ffmpeg makes a file of."""
_SUFFIXES = (".mp4", ".m4v", ".m4a", ".mov")
_LOG = logging.getLogger(__name__)


def mend_files(launch: LaunchRecord, folder: AttemptFolder) -> None:
    """Cuts torn indexes off everything that an attempt has written and that is a file by itself. Blocks for the disk.

    Args:
        launch: How it was launched.
        folder: Its folder. Nothing of it runs any more.
    """
    for move in launch.every_move:
        mend_file(move.part_path, move)
    for path in folder.artifacts.rglob("*"):
        if path.suffix in _SUFFIXES:
            mend_file(str(path), None)


def mend_file(path: str, move: OutputMove | None) -> bool:
    """Cuts a torn index off a file, if it ends with one. Blocks for the disk; may be repeated.

    Args:
        path: Absolute path of the file, which nobody writes any more. It need not be there, or be an MP4.
        move: Where the file that it is of goes. None: it is an artifact.

    Returns:
        Whether something was cut off.
    """
    try:
        with _opened(path, move) as descriptor:
            end = whole_until(descriptor)
            if end is None:
                return False
            os.ftruncate(descriptor, end)
            os.fsync(descriptor)
    except FileNotFoundError:
        return False
    except OSError as error:
        _LOG.warning("Cannot mend the end of %s: %s", path, error.strerror)
        return False
    _LOG.info("Cut off the torn index at the end of %s", path)
    return True


def whole_until(descriptor: int) -> int | None:
    """Tells where the torn index begins with which an open MP4 ends. None: it ends otherwise, or is none."""
    size, end, indexed = os.fstat(descriptor).st_size, 0, False
    last = (0, b"")
    for at, length, kind in _boxes(descriptor, size):
        indexed = indexed or (kind == b"moov" and at + length <= size)
        last, end = (at, kind), at + length
    if end < size:
        # Zeros, where a disk had made room and nothing was written there before the machine went down.
        size = _content_end(descriptor, last[0], size)
    return last[0] if indexed and last[1] in _INDEXES and end > size else None


def fragment_indexes_bytes(path: str, move: OutputMove | None) -> int:
    """Tells how large the indexes of an MP4's fragments are together. Blocks for the disk.

    Args:
        path: Absolute path of the file. It need not be there, or be an MP4: then there are none.
        move: Where the file that it is of goes. None: it is an artifact.
    """
    try:
        with _opened(path, move) as descriptor:
            boxes = _boxes(descriptor, os.fstat(descriptor).st_size)
            return sum(length for _, length, kind in boxes if kind == b"moof")
    except OSError:
        return 0


def require_all_media(pieces: Sequence[str], made: str, move: OutputMove | None) -> None:
    """Makes sure that an MP4 has all that its pieces have; of other files nothing is known. Blocks for the disk.

    ffmpeg takes what it cannot read for the end, and says that it is done: on a disk that fails, or in a piece with a
    hole.

    Args:
        pieces: Absolute paths of what was joined.
        made: Absolute path of what came of it.
        move: Where that goes. None: it is an artifact.

    Raises:
        OSError: When something is missing, or one of them cannot be read.
    """
    there = sum(media_bytes(piece, move) or 0 for piece in pieces)
    has = media_bytes(made, move)
    if has is not None and has < there:
        raise OSError(None, f"only {has:,} of {there:,} bytes of sound and pictures could be joined")


def media_bytes(path: str, move: OutputMove | None) -> int | None:
    """Tells how much media is in an MP4. Blocks for the disk.

    It is what its whole boxes hold, and what stands behind a place where they cannot be followed, unless that is empty.
    A copy has exactly as much.

    Args:
        path: Absolute path of the file.
        move: Where the file that it is of goes. None: it is an artifact.

    Returns:
        Bytes. None: it is no MP4. Other containers mix it with theirs, which may be half of it.

    Raises:
        OSError: When it cannot be read.
    """
    with _opened(path, move) as descriptor:
        return _media_bytes(descriptor, 0, os.fstat(descriptor).st_size)


def _media_bytes(descriptor: int, begin: int, size: int) -> int | None:
    """Tells how much media a row of boxes holds. None: it is no such row."""
    boxes = [box for box in _boxes(descriptor, size, begin) if sum(box[:2]) <= size]
    if not boxes:
        return None
    media = 0
    for at, length, kind in boxes:
        if kind == b"mdat":
            # What was written in fragments may be one box in the end, with all of them in it as they are.
            payload = at + (_LONG_BOX.size if length > _LONGEST else _BOX.size)
            inside = _media_bytes(descriptor, payload, at + length)
            media += at + length - payload if inside is None else inside
    return media + _unfollowed_bytes(descriptor, sum(boxes[-1][:2]), size)


def _unfollowed_bytes(descriptor: int, begin: int, size: int) -> int:
    """Tells how much there is behind the last whole box, unless it is a torn one, which ends with the file."""
    head = os.pread(descriptor, _BOX.size, begin)
    torn = len(head) < _BOX.size or _BOX.unpack(head)[1] in _WRITTEN
    return 0 if torn else _content_end(descriptor, begin, size) - begin


def _content_end(descriptor: int, begin: int, size: int) -> int:
    """Tells where a file's last byte ends that is not zero, or where to begin when there is none behind that."""
    end = size
    while end > begin:
        at = max(begin, end - _BLOCK_BYTES)
        if kept := os.pread(descriptor, end - at, at).rstrip(b"\0"):
            return at + len(kept)
        end = at
    return begin


def _boxes(descriptor: int, size: int, begin: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Lists the boxes of an open MP4, as far as they can be followed, by place, length and type. Others have none."""
    at = begin
    while at + _BOX.size <= size:
        length, kind = _BOX.unpack(os.pread(descriptor, _BOX.size, at))
        if length == 1 and at + _LONG_BOX.size <= size:
            length = _LONG_BOX.unpack(os.pread(descriptor, _LONG_BOX.size, at))[2]
        if length < _BOX.size or (at == begin and kind not in _FIRST):
            return
        yield at, length, kind
        at += length


@contextlib.contextmanager
def _opened(path: str, move: OutputMove | None) -> Iterator[int]:
    if move is not None and is_private(path, move):
        if not Path(path).exists():
            raise FileNotFoundError
        with lent((), move, written=path) as held:
            yield held[path]
        return
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FileNotFoundError
        yield descriptor
    finally:
        os.close(descriptor)
