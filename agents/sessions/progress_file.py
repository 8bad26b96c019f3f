"""Reads how far a program is from the file that it writes for `-progress`, as it grows.

A file, not a pipe: a pipe that nobody reads while the agent is away would stop the encoder after 64 KiB.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from agents.pipelines.progress import parse_progress
from agents.sessions.growing_text import GrowingText

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agents.pipelines.progress import Progress


class ProgressFile:
    """One attempt's progress, read from where the last reading ended."""

    def __init__(self, path: Path) -> None:
        self._text = GrowingText(path)
        self._rest = ""

    @property
    def unread_s(self) -> float:
        """For how many seconds what was last read had lain there when it was read."""
        return self._text.unread_s

    def read(self, previous: Progress | None) -> Progress | None:
        """Reads what is new.

        Args:
            previous: What was known before.

        Returns:
            What is known now; `previous` itself when nothing is new.

        Raises:
            OSError: When the file is there and cannot be read.
        """
        if text := self._text.read():
            previous, self._rest = parse_progress(self._rest + text, previous)
        return previous

    def bound(self) -> None:
        """Gives the disk back what was read, of a file that has grown large.

        Raises:
            OSError: When the file cannot be cut.
        """
        self._text.bound()


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
