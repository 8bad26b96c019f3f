"""Artifacts as they are read for copying: never through a link, and only while they are what they were.

Paths are walked one name at a time from an open folder. A file's size and time of change are noted when its session
ends; one that differs later was written to by somebody, and its copy could not be told from a wrong one.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.deliveries.names import path_parts
from agents.deliveries.status import CalledOff, SourceLost

if TYPE_CHECKING:
    import threading
    from collections.abc import Iterator

CHUNK_BYTES = 1024 * 1024
_LINKS = (errno.ELOOP, errno.EMLINK)
"""What O_NOFOLLOW answers for a link; as a folder, Linux says ENOTDIR."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A file to be copied."""

    folder: Path
    path: str
    """Relative to the folder, with "/"."""
    size_bytes: int
    modified_ns: int

    @contextlib.contextmanager
    def opened(self) -> Iterator[int]:
        """Opens it for reading. Blocks for the disk.

        Raises:
            SourceLost: When it is gone or was changed.
            OSError: When the disk refuses.
        """
        descriptor = _open_inside(self.folder, self.path)
        try:
            self.check(descriptor)
            yield descriptor
        finally:
            os.close(descriptor)

    def check(self, descriptor: int) -> None:
        """Looks whether the open file is still what it was. To be asked again when all of it was read.

        Raises:
            SourceLost: When it is not.
        """
        facts = os.fstat(descriptor)
        if (facts.st_size, facts.st_mtime_ns) != (self.size_bytes, self.modified_ns):
            raise SourceLost(
                f"Cannot copy {self.path}: it was changed after its session ended. Try to fetch it as it is."
            )


def look_at(folder: Path, path: str) -> Source:
    """Notes a file as it is now. Blocks for the disk.

    Raises:
        SourceLost: When there is no such file, or its path leads out of the folder or over a link.
        OSError: When the disk refuses.
    """
    descriptor = _open_inside(folder, path)
    try:
        facts = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return Source(folder=folder, path=path, size_bytes=facts.st_size, modified_ns=facts.st_mtime_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """Digests of a file, as hexadecimal digits."""

    sha256: str
    etags: frozenset[str]
    """The ETags that S3-compatible stores give it: the MD5 of its bytes, and the one of its parts' MD5s."""


def digest_of(descriptor: int, *, part_bytes: int, called_off: threading.Event) -> Digest:
    """Reads an open file from its beginning to its end. Blocks for the disk.

    Args:
        descriptor: The file.
        part_bytes: Size of the parts in which it is uploaded; the ETag depends on it.
        called_off: Ends the reading.

    Returns:
        Its digests. The ETag of parts is as Amazon S3 makes it: MD5 of the parts' MD5s, "-", number of parts.

    Raises:
        CalledOff: When it was called off.
        OSError: When the disk refuses.
    """
    whole, simple, part = hashlib.sha256(), _md5(), _md5()
    parts: list[bytes] = []
    offset, in_part = 0, 0
    while chunk := os.pread(descriptor, min(CHUNK_BYTES, part_bytes - in_part), offset):
        if called_off.is_set():
            raise CalledOff
        whole.update(chunk)
        simple.update(chunk)
        part.update(chunk)
        offset, in_part = offset + len(chunk), in_part + len(chunk)
        if in_part == part_bytes:
            parts.append(part.digest())
            part, in_part = _md5(), 0
    if in_part:
        parts.append(part.digest())
    joined = _md5(b"".join(parts)).hexdigest()
    return Digest(sha256=whole.hexdigest(), etags=frozenset({simple.hexdigest(), f"{joined}-{len(parts)}"}))


def _md5(content: bytes = b"") -> hashlib._Hash:
    return hashlib.md5(content, usedforsecurity=False)


def _open_inside(folder: Path, path: str) -> int:
    try:
        parts = path_parts(path)
    except ValueError as error:
        raise SourceLost(f"Cannot copy an artifact: {error}.") from None
    with contextlib.ExitStack() as stack:

        def opened(name: str | Path, flags: int, parent: int | None = None) -> int:
            descriptor = os.open(name, flags | os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
            stack.callback(os.close, descriptor)
            return descriptor

        try:
            parent = opened(folder, os.O_DIRECTORY)
            for name in parts[:-1]:
                parent = opened(name, os.O_DIRECTORY | os.O_NOFOLLOW, parent)
            # O_NONBLOCK: opening a FIFO must not hang.
            file = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
        except (FileNotFoundError, NotADirectoryError):
            raise SourceLost(f"Cannot copy {path}: it is gone. Nothing can be done.") from None
        except PermissionError:
            raise SourceLost(f"Cannot copy {path}: the agent's user may not read it.") from None
        except OSError as error:
            if error.errno in _LINKS:
                raise SourceLost(f"Cannot copy {path}: it is a link, and links are not followed.") from None
            raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise SourceLost(f"Cannot copy {path}: it is no regular file.")
    return file
