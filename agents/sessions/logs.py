"""Reading a program's log: the end of it, or all that is kept, or on and on while it is written; secrets hidden.

ffmpeg prints URLs with their stream keys, so no line leaves without passing the redactor. The head of a long log is a
hole (see `bounded_files`), and a line is cut at 4096 characters, so that no log can fill memory.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING

from agents.sessions.bounded_files import first_data_offset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from datetime import timedelta
    from pathlib import Path

    from gpu_balancer.runtime.redaction import Redactor

LOG_LIMIT_BYTES = 8 * 1024 * 1024
LOG_KEEP_BYTES = 4 * 1024 * 1024
_READ_BYTES = 64 * 1024
_LINE_CHARACTERS = 4096
_TAIL_BYTES = 1024 * 1024
_LINE_END = re.compile(rb"\r\n|\n|\r")


class LogReader:
    """Reads whole lines from where it stands. A context manager."""

    def __init__(self, path: Path, redactor: Redactor, *, tail_lines: int | None = None) -> None:
        """Opens a log.

        Args:
            path: The log.
            redactor: Hides secrets.
            tail_lines: Begins with this many last lines. None: with the first that is kept.

        Raises:
            OSError: When there is none.
        """
        self._redactor = redactor
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._rest = b""
        self._offset = first_data_offset(self._descriptor)
        self._headless = self._offset > 0
        if tail_lines is not None:
            self._seek_tail(tail_lines)

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def read(self, *, last: bool = False) -> tuple[str, ...]:
        """Reads the next lines, at most 64 KiB of them.

        Args:
            last: Whether nothing more will be written, so that a line without its end counts too.

        Returns:
            Lines without their ends, secrets hidden; none when there are no more for now.
        """
        while True:
            data = self._next_bytes()
            lines = self._split(data, last=last and not data)
            if lines or not data:
                return lines

    def _next_bytes(self) -> bytes:
        if os.fstat(self._descriptor).st_size < self._offset:
            # Cut, on a file system without holes: what is kept of it begins anew.
            self._offset, self._rest, self._headless = 0, b"", True
        data = os.pread(self._descriptor, _READ_BYTES, self._offset)
        self._offset += len(data)
        return data

    def _split(self, data: bytes, *, last: bool) -> tuple[str, ...]:
        pieces = _LINE_END.split(self._rest + data)
        self._rest = pieces.pop()
        if self._rest and (last or len(self._rest) > _READ_BYTES):
            pieces.append(self._rest)
            self._rest = b""
        if self._headless and pieces:
            # The first line behind a hole has lost its beginning.
            del pieces[0]
            self._headless = False
        return tuple(self._shown(piece) for piece in pieces if piece.strip(b"\0"))

    def _shown(self, piece: bytes) -> str:
        return self._redactor.redact(piece.strip(b"\0").decode("utf-8", "replace"))[:_LINE_CHARACTERS]

    def _seek_tail(self, lines: int) -> None:
        end = os.fstat(self._descriptor).st_size
        start = max(end - _TAIL_BYTES, self._offset)
        data = os.pread(self._descriptor, end - start, start)
        ends = [match.end() for match in _LINE_END.finditer(data)]
        if data and (not ends or ends[-1] != len(data)):
            ends.append(len(data))
        if lines < len(ends):
            self._offset = start + ends[-lines - 1]
            self._headless = False
        elif start > self._offset:
            self._offset = start
            self._headless = True


def read_tail(path: Path, redactor: Redactor, lines: int) -> tuple[str, ...]:
    """Reads the last lines of a log; none when there is no log.

    Args:
        path: The log.
        redactor: Hides secrets.
        lines: How many at most.
    """
    try:
        reader = LogReader(path, redactor, tail_lines=lines)
    except OSError:
        return ()
    with reader:
        found: list[str] = []
        while read := reader.read(last=True):
            found += read
        return tuple(found[-lines:])


async def follow_log(
    path: Path,
    redactor: Redactor,
    *,
    tail_lines: int | None,
    ended: Callable[[], bool] | None,
    interval: timedelta,
) -> AsyncIterator[tuple[str, ...]]:
    """Reads a log, batch by batch.

    Args:
        path: The log.
        redactor: Hides secrets.
        tail_lines: Begins with this many last lines. None: with the first that is kept.
        ended: Tells whether nothing more will be written; then all that is there is given. None: it is so already.
        interval: How long to wait when there is nothing new.

    Yields:
        Batches of lines, none of them empty.

    Raises:
        OSError: When there is no log.
    """
    with LogReader(path, redactor, tail_lines=tail_lines) as reader:
        while True:
            # Asked before reading: what is written until the end is then read for certain.
            over = ended is None or ended()
            while lines := await asyncio.to_thread(reader.read, last=over):
                yield lines
            if over:
                return
            await asyncio.sleep(interval.total_seconds())
