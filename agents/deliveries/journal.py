"""The journal of copies: one file for each attempt, begun durably, then only added to.

The first line says what is to be copied where; each further line is something that happened. A line more is cheap
where a session left thousands of segments; writing the whole state anew for each would not be. Lines begin with the
newline, so a line that a power cut tore does not spoil the next. Losing the last lines costs nothing but a second look
at the destination, so only what lets files be deleted is flushed.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import TypeAdapter, ValidationError

from agents.deliveries.names import check_session
from agents.deliveries.status import DeliveryState
from gpu_balancer.runtime.durable_file import flush_folder, write_durably

if TYPE_CHECKING:
    from pathlib import Path

_LOG = logging.getLogger(__name__)
_FILE_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,62})\.([1-9][0-9]{0,8})\.jsonl")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileEntry:
    """An artifact as it was when its copies were asked for."""

    path: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What is to be copied where."""

    version: Literal[1] = 1
    session: str
    attempt: int
    folder: str
    """The artifacts folder."""
    begin_time: datetime
    destinations: tuple[str, ...]
    files: tuple[FileEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyEntry:
    """A copy's status changed."""

    kind: Literal["copy"] = "copy"
    path: str
    destination: str
    state: DeliveryState
    location: str = ""
    try_count: int = 0
    message: str = ""
    update_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SpillEntry:
    """An artifact is copied from another folder from now on."""

    kind: Literal["spill"] = "spill"
    path: str
    folder: str
    size_bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseEntry:
    """The session's own folder may be gone from now on."""

    kind: Literal["release"] = "release"


Entry = CopyEntry | SpillEntry | ReleaseEntry
_HEADER = TypeAdapter(Header)
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


class Journal:
    """The files of a folder. Every method blocks for the disk."""

    def __init__(self, root: Path) -> None:
        """Takes the folder; `found` or `begin` makes it."""
        self._root = root

    def found(self) -> list[tuple[Header, list[Entry]]]:
        """Reads everything. What cannot be read is left as it is and told."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        read = []
        for path in sorted(self._root.iterdir()):
            if path.name.endswith(".part"):
                path.unlink(missing_ok=True)
            elif _FILE_NAME.fullmatch(path.name) and (content := _read(path)) is not None:
                read.append(content)
        return read

    def begin(self, header: Header, entries: Iterable[Entry]) -> None:
        """Begins a file, durably.

        Raises:
            OSError: When the disk is full or refuses; then there is none.
        """
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        lines = (_HEADER.dump_json(header), *(b"\n" + _ENTRY.dump_json(entry) for entry in entries))
        write_durably(self._path(header.session, header.attempt), b"".join(lines))

    def add(self, session: str, attempt: int, entry: Entry, *, durably: bool) -> None:
        """Adds a line.

        Args:
            session: Of which session.
            attempt: Which attempt of it.
            entry: What happened.
            durably: Flushes it, and with it all before it.

        Raises:
            OSError: When the disk is full or refuses.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._path(session, attempt), flags)
        try:
            os.write(descriptor, b"\n" + _ENTRY.dump_json(entry))
            if durably:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, session: str, attempt: int) -> None:
        """Removes a file; one that is not there is no mistake.

        Raises:
            OSError: When the disk refuses.
        """
        self._path(session, attempt).unlink(missing_ok=True)
        flush_folder(self._root)

    def _path(self, session: str, attempt: int) -> Path:
        return self._root / f"{check_session(session)}.{int(attempt)}.jsonl"


def _read(path: Path) -> tuple[Header, list[Entry]] | None:
    try:
        first, *lines = path.read_bytes().split(b"\n")
        header = _HEADER.validate_json(first)
    except (OSError, ValidationError) as error:
        _LOG.error("Cannot read the copies noted in %s: %s. It is left as it is.", path, type(error).__name__)
        return None
    if path.name != f"{header.session}.{header.attempt}.jsonl":
        _LOG.error("Cannot use the copies noted in %s: they are another session's. It is left as it is.", path)
        return None
    entries = []
    for number, line in enumerate(lines, start=2):
        if not line:
            continue
        try:
            entries.append(_ENTRY.validate_json(line))
        except ValidationError:
            _LOG.warning("Line %d of %s is torn; it is left out", number, path)
    return header, entries
