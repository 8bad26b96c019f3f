"""Files written so that they are there whole, durably and with the right bytes, or not at all.

A copy is written under a hidden name, flushed, read back and compared, and only then gets its own name, as a second
link, which fails when the name is taken: looking first would race with other agents. What a killed agent left
unfinished has a name that the next try finds and replaces. Folders below a root are opened one name at a time, never
through a link.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from agents.deliveries.source import CHUNK_BYTES
from agents.deliveries.status import CalledOff

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agents.deliveries.source import Source

NO_HARD_LINKS = (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EACCES)
"""What file systems answer that cannot make a second link."""
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class SourceError(Exception):
    """The artifact's disk failed, not the one that is written to. Has that error."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(str(cause))
        self.cause = cause


@contextlib.contextmanager
def folder_below(root: Path, names: Sequence[str], *, mode: int) -> Iterator[int]:
    """Opens a folder below a root that exists; folders that are missing in between are made, durably.

    Args:
        root: Where to begin.
        names: Names of folders, checked before.
        mode: Permission bits of new ones.

    Yields:
        The open folder.

    Raises:
        OSError: When the root is missing, or a name is taken by something else, or the disk refuses.
    """
    with contextlib.ExitStack() as stack:
        folder = os.open(root, _FOLDER_FLAGS)
        stack.callback(os.close, folder)
        for name in names:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=folder)
                os.fsync(folder)
            folder = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)
            stack.callback(os.close, folder)
        yield folder


def unfinished_name(name: str, attempt: int) -> str:
    """Gives the hidden name under which a copy is written. It may be removed by whoever is to write the same copy."""
    # A digest, because the name itself may be as long as names can be.
    return f".{hashlib.sha256(name.encode()).hexdigest()[:24]}.{attempt}.part"


def write_copy(artifact: Source, source: int, name: str, folder: int, *, called_off: threading.Event) -> None:
    """Writes a whole copy and reads it back. Nothing of it is left when that fails. What had the name is removed.

    Args:
        artifact: What is copied.
        source: The same, open.
        name: A hidden name.
        folder: The open folder to write in.
        called_off: Ends it.

    Raises:
        SourceLost: When the artifact changed meanwhile.
        SourceError: When the artifact cannot be read.
        OSError: When the copy cannot be written, or reads back differently.
        CalledOff: When it was called off.
    """
    remove(name, folder)
    file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
    try:
        digest, size = _fill(source, file, called_off)
        artifact.check(source)
        os.fsync(file)
        # What is read back must come from the disk, not from memory.
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
        if os.fstat(file).st_size != size or _digest_of(file, called_off) != digest:
            raise OSError(errno.EIO, "what was written reads back differently")
    except BaseException:
        with contextlib.suppress(OSError):
            remove(name, folder)
        raise
    finally:
        os.close(file)


def give_name(unfinished: str, name: str, folder: int) -> None:
    """Gives a copy its own name, durably.

    Raises:
        FileExistsError: When the name is taken; then the copy is where it was.
        OSError: When the disk refuses.
    """
    try:
        os.link(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except OSError as error:
        if error.errno not in NO_HARD_LINKS:
            raise
        # exFAT and some network file systems: there only looking first is left.
        if exists(name, folder):
            raise FileExistsError(errno.EEXIST, "is taken", name) from None
        os.rename(unfinished, name, src_dir_fd=folder, dst_dir_fd=folder)
    else:
        os.unlink(unfinished, dir_fd=folder)
    os.fsync(folder)


def exists(name: str, folder: int) -> bool:
    """Tells whether a name is taken, by whatever."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def remove(name: str, folder: int) -> None:
    """Removes a file; one that is not there is no mistake."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def digest_of_source(source: int, called_off: threading.Event) -> str:
    """Gives the SHA-256 of an open artifact.

    Raises:
        SourceError: When it cannot be read.
        CalledOff: When it was called off.
    """
    try:
        return _digest_of(source, called_off)
    except OSError as error:
        raise SourceError(error) from error


def holds(name: str, folder: int, *, size_bytes: int, sha256: str, called_off: threading.Event) -> bool:
    """Tells whether a name is that of a regular file with just these bytes.

    Raises:
        OSError: When it cannot be read.
        CalledOff: When it was called off.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not hang.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.EACCES, errno.ENXIO):
            return False
        raise
    try:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode) or facts.st_size != size_bytes:
            return False
        return _digest_of(file, called_off) == sha256
    finally:
        os.close(file)


def _chunks(file: int, called_off: threading.Event) -> Iterator[bytes]:
    offset = 0
    while chunk := os.pread(file, CHUNK_BYTES, offset):
        if called_off.is_set():
            raise CalledOff
        yield chunk
        offset += len(chunk)


def _digest_of(file: int, called_off: threading.Event) -> str:
    digest = hashlib.sha256()
    for chunk in _chunks(file, called_off):
        digest.update(chunk)
    return digest.hexdigest()


def _fill(source: int, file: int, called_off: threading.Event) -> tuple[str, int]:
    """Copies bytes. Returns their SHA-256 and how many they are."""
    digest, size = hashlib.sha256(), 0
    chunks = _chunks(source, called_off)
    while True:
        try:
            chunk = next(chunks, b"")
        except OSError as error:
            raise SourceError(error) from error
        if not chunk:
            return digest.hexdigest(), size
        digest.update(chunk)
        rest = memoryview(chunk)
        while rest:
            written = os.write(file, rest)
            rest = rest[written:]
        size += len(chunk)
