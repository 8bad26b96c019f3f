"""Files that a full disk, or a kill, has cut off where no player copes with it: in an index.

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
    from collections.abc import Iterator

    from agents.pipelines.command import OutputMove
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import LaunchRecord

BOX = struct.Struct(">I4s")
"""Length and type of an ISO box."""
LONG_BOX = struct.Struct(">I4sQ")
"""With a length of 64 bits, where the first is 1."""
FIRST = (b"ftyp", b"styp")
INDEXES = (b"moov", b"moof")
_BLOCK_BYTES = 1024 * 1024
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
        with opened_file(path, move) as descriptor:
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
    for at, length, kind in boxes_of(descriptor, size):
        indexed = indexed or (kind == b"moov" and at + length <= size)
        last, end = (at, kind), at + length
    if end < size:
        # Zeros, where a disk had made room and nothing was written there before the machine went down.
        size = content_end(descriptor, last[0], size)
    return last[0] if indexed and last[1] in INDEXES and end > size else None


def fragment_indexes_bytes(path: str, move: OutputMove | None) -> int:
    """Tells how large the indexes of an MP4's fragments are together. Blocks for the disk.

    Args:
        path: Absolute path of the file. It need not be there, or be an MP4: then there are none.
        move: Where the file that it is of goes. None: it is an artifact.
    """
    try:
        with opened_file(path, move) as descriptor:
            boxes = boxes_of(descriptor, os.fstat(descriptor).st_size)
            return sum(length for _, length, kind in boxes if kind == b"moof")
    except OSError:
        return 0


def content_end(descriptor: int, begin: int, size: int) -> int:
    """Tells where a file's last byte ends that is not zero, or where to begin when there is none behind that."""
    end = size
    while end > begin:
        at = max(begin, end - _BLOCK_BYTES)
        if kept := os.pread(descriptor, end - at, at).rstrip(b"\0"):
            return at + len(kept)
        end = at
    return begin


def boxes_of(descriptor: int, size: int, begin: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Lists the boxes of an open MP4, as far as they can be followed, by place, length and type. Others have none."""
    at = begin
    while at + BOX.size <= size:
        length, kind = BOX.unpack(os.pread(descriptor, BOX.size, at))
        if length == 1 and at + LONG_BOX.size <= size:
            length = LONG_BOX.unpack(os.pread(descriptor, LONG_BOX.size, at))[2]
        if length < BOX.size or (at == begin and kind not in FIRST):
            return
        yield at, length, kind
        at += length


@contextlib.contextmanager
def opened_file(path: str, move: OutputMove | None) -> Iterator[int]:
    """Opens a file of ours, wherever its path leads by then. Blocks for the disk.

    Raises:
        OSError: When it is not there, is no file, or is not ours.
    """
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
