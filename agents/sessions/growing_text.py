"""Reads a text file as it grows, and gives the disk back what was read of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents.sessions.bounded_files import bound_file, first_data_offset
from agents.sessions.file_ages import written_ago_s

if TYPE_CHECKING:
    from pathlib import Path

_READ_BYTES = 256 * 1024
_LIMIT_BYTES = 1024 * 1024
_KEEP_BYTES = 16 * 1024
_LONGEST_UNREAD_S = 2.0
"""Seconds: everybody reads more often. A stamp that tells of hours is of another clock."""


class GrowingText:
    """One file, read from where the last reading ended."""

    def __init__(self, path: Path) -> None:
        """Reads nothing yet; the file may be missing, now and later."""
        self._path = path
        self._offset: int | None = None
        self._unread_s = 0.0

    @property
    def unread_s(self) -> float:
        """For how many seconds what was last read had lain there when it was read."""
        return self._unread_s

    def read(self) -> str:
        """Gives what is new.

        Raises:
            OSError: When the file is there and cannot be read.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ""
        pieces = []
        try:
            if self._offset is None:
                self._offset = first_data_offset(descriptor)
            while data := os.pread(descriptor, _READ_BYTES, self._offset):
                self._offset += len(data)
                self._unread_s = written_ago_s(os.fstat(descriptor).st_mtime, most_s=_LONGEST_UNREAD_S)
                pieces.append(data)
        finally:
            os.close(descriptor)
        return b"".join(pieces).decode("utf-8", "replace").replace("\0", "")

    def bound(self) -> None:
        """Gives the disk back what was read, of a file that has grown large.

        Raises:
            OSError: When the file cannot be cut.
        """
        bound_file(self._path, limit_bytes=_LIMIT_BYTES, keep_bytes=_KEEP_BYTES)
