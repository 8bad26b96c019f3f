"""Reads how far a program is from the file that it writes for `-progress`, as it grows.

A file, not a pipe: a pipe that nobody reads while the agent is away would stop the encoder after 64 KiB.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents.pipelines.progress import parse_progress
from agents.sessions.bounded_files import bound_file, first_data_offset

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agents.pipelines.progress import Progress

_LIMIT_BYTES = 1024 * 1024
_KEEP_BYTES = 16 * 1024
_READ_BYTES = 256 * 1024


class ProgressFile:
    """One attempt's progress, read from where the last reading ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset: int | None = None
        self._rest = ""
        self._written_s: float | None = None

    @property
    def written_s(self) -> float | None:
        """When what was last read had been written, in seconds of the wall clock since 1970. None: nothing was read."""
        return self._written_s

    def read(self, previous: Progress | None) -> Progress | None:
        """Reads what is new.

        Args:
            previous: What was known before.

        Returns:
            What is known now; `previous` itself when nothing is new.

        Raises:
            OSError: When the file is there and cannot be read.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # the program has not made it yet
            return previous
        try:
            if self._offset is None:
                self._offset = first_data_offset(descriptor)
            while data := os.pread(descriptor, _READ_BYTES, self._offset):
                self._offset += len(data)
                self._written_s = os.fstat(descriptor).st_mtime
                text = self._rest + data.decode("utf-8", "replace").replace("\0", "")
                previous, self._rest = parse_progress(text, previous)
        finally:
            os.close(descriptor)
        return previous

    def bound(self) -> None:
        """Gives the disk back what was read, of a file that has grown large.

        Raises:
            OSError: When the file cannot be cut.
        """
        bound_file(self._path, limit_bytes=_LIMIT_BYTES, keep_bytes=_KEEP_BYTES)


def bytes_on_disk(artifacts: Path, files: Iterable[str]) -> int:
    """Sums the sizes of what a program has written: ffmpeg itself knows its first output only, and no HLS.

    Args:
        artifacts: A folder whose files count, also those in folders inside it.
        files: Further files, which may be missing.
    """
    total = 0
    for where, _, names in os.walk(artifacts):
        total += sum(_size(os.path.join(where, name)) for name in names)  # noqa: PTH118 - os.walk speaks strings
    return total + sum(_size(path) for path in files)


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0
