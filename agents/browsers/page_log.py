"""The console log of a page: what it said and what befell it, bounded, without secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.runtime.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gpu_balancer.runtime.clock import Clock

_LARGEST_BYTES = 1024 * 1024
_LONGEST_TEXT = 2000


class PageLog:
    """Appends lines to a file, "2026-01-31T12:00:00.000Z console error: …", until it is full."""

    def __init__(self, path: Path, *, secrets: Iterable[str], clock: Clock) -> None:
        """Opens the file, which may have lines of an earlier agent."""
        self._file = path.open("ab")
        self._size = self._file.tell()
        self._redactor = Redactor(secrets)
        self._clock = clock
        self._left_out = 0
        self.opened_ms = clock.now().timestamp() * 1000
        """When it was opened, in milliseconds since 1970."""

    @property
    def is_full(self) -> bool:
        """Whether nothing is written any more."""
        return self._size >= _LARGEST_BYTES

    def write(self, kind: str, text: str) -> None:
        """Writes a line, or counts it when the file is full.

        Args:
            kind: "console error", "dialog", "popup", "request failed" and so on.
            text: What was said. Cut, in one line, its secrets hidden.
        """
        if self.is_full or self._file.closed:
            self._left_out += 1
            return
        # Redacted before it is cut, lest half a secret be shown.
        shown = self._redactor.redact(text[: 2 * _LONGEST_TEXT])[:_LONGEST_TEXT]
        shown = shown.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n")
        self._append(kind, shown)

    def close(self) -> None:
        """Tells what was left out, and closes the file."""
        if self._file.closed:
            return
        if self._left_out:
            self._append("log", f"{self._left_out} further messages were left out")
        self._file.close()

    def _append(self, kind: str, text: str) -> None:
        time = self._clock.now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = f"{time} {kind}: {text}\n".encode(errors="replace")
        self._file.write(line)
        self._file.flush()
        self._size += len(line)
