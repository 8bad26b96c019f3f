"""The file of a fence: opened under its name, locked, and with one line in it that says who may write.

Written in place, because a file that took its place would not be locked. What cannot be read names nobody.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from agents.lock_holders import open_lock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_LONGEST_ENTRY = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class FenceEntry:
    """What a fence says."""

    attempt: int
    """The newest attempt: the only one that may write."""
    folder: str
    """Its folder."""
    former: tuple[str, ...] = ()
    """Folders of older attempts that are not known to have ended."""


def open_fence(path: Path, *, create: bool) -> int | None:
    """Opens a fence; gives its descriptor. None: there is none.

    Raises:
        OSError: When it cannot be opened, or is a link.
    """
    try:
        return open_lock(path, os.O_NOFOLLOW | (os.O_CREAT if create else 0))
    except FileNotFoundError:
        return None


@contextmanager
def opened_fence(path: Path) -> Iterator[int | None]:
    """Opens a fence for as long as the block runs; as `open_fence`."""
    descriptor = open_fence(path, create=False)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def lock_alone(descriptor: int) -> bool:
    """Locks an open fence so that nobody else holds it. Returns whether that could be done, at once."""
    return _locked(descriptor, fcntl.LOCK_EX)


def lock_shared(descriptor: int) -> bool:
    """Locks an open fence beside others. Returns whether that could be done, at once."""
    return _locked(descriptor, fcntl.LOCK_SH)


@contextmanager
def locked_entry(descriptor: int) -> Iterator[bool]:
    """Locks what an open fence says, against others who would change it; it can be held by others all the same.

    A lock of another kind, fcntl(2) F_OFD_SETLK, which knows nothing of the one that tells who holds the fence.

    Yields:
        Whether it could be locked, at once.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _range_lock(fcntl.F_WRLCK))
    except (BlockingIOError, PermissionError):
        yield False
        return
    try:
        yield True
    finally:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _range_lock(fcntl.F_UNLCK))


def is_current(descriptor: int, path: Path) -> bool:
    """Tells whether an open fence still has its name: somebody may have removed it meanwhile."""
    ours = os.fstat(descriptor)
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    return (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino)


def read_entry(descriptor: int) -> FenceEntry | None:
    """Reads what a fence says. None: nothing."""
    line = os.pread(descriptor, _LONGEST_ENTRY, 0).partition(b"\n")[0]
    try:
        found = json.loads(line)
        former = tuple(str(folder) for folder in found["former"])
        return FenceEntry(attempt=int(found["attempt"]), folder=str(found["folder"]), former=former)
    except (ValueError, TypeError, KeyError):
        return None


def write_entry(descriptor: int, entry: FenceEntry) -> None:
    """Has a fence say something else, durably. Whoever calls this has its entry locked."""
    line = json.dumps(asdict(entry)).encode() + b"\n"
    os.pwrite(descriptor, line, 0)  # its first line counts, whatever stands behind it until it is cut
    os.ftruncate(descriptor, len(line))
    os.fsync(descriptor)


def _range_lock(kind: int) -> bytes:
    """Makes a `struct flock` for the whole file."""
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
