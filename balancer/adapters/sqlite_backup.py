"""Copies of the store that are made before its schema changes: whole, durable, and the newest few of them kept.

A migration is one transaction, so a crash in its middle leaves the old schema. What no transaction helps against is a
migration that is wrong, or the wish to go back to the program from before: for that there is the copy.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from gpu_balancer.runtime.durable_file import flush_folder

if TYPE_CHECKING:
    from pathlib import Path

_KEPT = 2
_MIB = 1024 * 1024


class BackupError(Exception):
    """The store cannot be copied; it was not changed. The message says why and what to try."""


def back_up(connection: sqlite3.Connection, path: Path, *, version: int) -> Path:
    """Copies a store, and removes older copies but the newest ones. Blocks for the disk.

    Args:
        connection: To the store.
        path: Its file; the copy is made beside it.
        version: Of its schema, which names the copy.

    Returns:
        The copy, readable by its owner only.

    Raises:
        BackupError: There is no room, or the disk refuses. Nothing of the copy is left then.
    """
    copy = path.with_name(f"{path.name}.backup-v{version}")
    part = copy.with_name(f"{copy.name}.part")
    try:
        _write(connection, part)
        part.replace(copy)
        flush_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        _remove(part)
        size_mib = _size_bytes(path) // _MIB + 1
        raise BackupError(
            f"Cannot copy {path} before its schema is brought up to date: {_told(error)}. The store was not changed. "
            f"Try to make {size_mib} MiB of room on its disk, or start the program that was used before."
        ) from error
    _remove_older(path, copy)
    return copy


def _write(connection: sqlite3.Connection, part: Path) -> None:
    _remove(part)
    # The client's words may hold stream keys.
    os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
    with closing(sqlite3.connect(part, isolation_level=None)) as target:
        connection.backup(target)
        # One file that can be moved about by itself, whatever mode it was copied in.
        target.execute("PRAGMA journal_mode = DELETE")
    descriptor = os.open(part, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_older(path: Path, newest: Path) -> None:
    """Removes all but the newest copies, by time: somebody may have gone back to an older schema."""
    found = [one for one in path.parent.glob(f"{path.name}.backup-v*") if one.suffix != ".part" and one != newest]
    with contextlib.suppress(OSError):
        found.sort(key=lambda one: one.stat().st_mtime_ns, reverse=True)
        for old in found[_KEPT - 1 :]:
            old.unlink(missing_ok=True)


def _remove(part: Path) -> None:
    for leftover in (part, part.with_name(f"{part.name}-journal")):
        with contextlib.suppress(OSError):
            leftover.unlink(missing_ok=True)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _told(error: sqlite3.Error | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return "the disk is full" if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL" else str(error)
