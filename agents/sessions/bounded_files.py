"""Keeps files that a program writes for hours from filling the disk, without the program noticing.

The head is punched out (FALLOC_FL_PUNCH_HOLE): the file keeps its length and its tail, and the writer its place, but
the disk gets the blocks back. Nothing can be lost between reading and cutting, as with copy-and-truncate. Where the
file system cannot punch holes the file is cut instead, and up to a second of its tail may be lost.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_BLOCK_BYTES = 512
"""Unit of st_blocks, whatever the file system (stat(2))."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


def bound_file(path: Path, *, limit_bytes: int, keep_bytes: int) -> bool:
    """Frees the head of a file when it takes too much disk.

    Args:
        path: The file, which may be missing and may be written at the same time.
        limit_bytes: Disk space above which something is done.
        keep_bytes: How much of its end is kept then.

    Returns:
        Whether something was freed.

    Raises:
        OSError: When the file cannot be opened or cut.
    """
    try:
        if path.stat().st_blocks * _BLOCK_BYTES <= limit_bytes:
            return False
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        found = os.fstat(descriptor)
        if not _punch(descriptor, max(found.st_size - keep_bytes, 0)):
            _cut(descriptor, path, keep_bytes)
        return True
    finally:
        os.close(descriptor)


def first_data_offset(descriptor: int) -> int:
    """Tells where the kept part of a file begins, in bytes; its length when nothing of it is kept."""
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return os.fstat(descriptor).st_size


def _punch(descriptor: int, length: int) -> bool:
    """Frees the first bytes. Returns False where the file system cannot."""
    if length == 0:
        return True
    if _libc.fallocate(descriptor, _PUNCH_HOLE | _KEEP_SIZE, 0, length) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EOPNOTSUPP, errno.ENOSYS):
        return False
    raise OSError(number, os.strerror(number))


def _cut(descriptor: int, path: Path, keep_bytes: int) -> None:
    """Empties the file and appends its tail again, for file systems without holes."""
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, keep_bytes, max(size - keep_bytes, 0))
    os.ftruncate(descriptor, 0)
    with path.open("ab") as file:
        file.write(tail)
