"""Room on a disk that is kept for what must be written when the disk is full.

A file that fills the disk cannot be removed in good order while the program that owns it cannot write down that it may
be. So a little room is taken beforehand, given up at that moment, and taken again when there is plenty.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_PLENTY = 4
"""The reserve is taken where so many times its size is free."""


class DiskReserve:
    """A file that is there for its size alone. Blocks for the disk."""

    def __init__(self, path: Path, *, size_bytes: int) -> None:
        """Takes nothing yet.

        Args:
            path: The file, in a folder that exists.
            size_bytes: How much room it keeps.
        """
        self.path = path
        """The file."""
        self._size_bytes = size_bytes
        self._held = False
        self._door = threading.Lock()

    def take(self) -> None:
        """Takes the room where there is plenty and it is not taken already; otherwise it is left for another time."""
        with self._door, contextlib.suppress(OSError):
            if self._held:
                return
            if self.path.exists() and self.path.stat().st_blocks * 512 >= self._size_bytes:
                self._held = True
                return
            status = os.statvfs(self.path.parent)
            if status.f_bavail * status.f_frsize < _PLENTY * self._size_bytes:
                return
            self._allocate()
            self._held = True

    def give_up(self) -> bool:
        """Frees the room. Returns False when there was none."""
        with self._door:
            self._held = False
            try:
                self.path.unlink()
            except OSError:
                return False
            return True

    def _allocate(self) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, self._size_bytes)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
