"""The files that sessions leave: listing and reading them, and nothing else on the machine.

Paths come from clients. They are walked one name at a time from an open folder, never following a symbolic link, so
that neither `..` nor a link that appears in the middle leads out. A reader gets the bytes that were there when it
began: the announced size holds while the file grows.
"""

from __future__ import annotations

import asyncio
import mimetypes
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation, invalid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CHUNK_BYTES = 256 * 1024
_DEFAULT_TYPE = "application/octet-stream"
_TYPES = {
    ".m3u8": "application/vnd.apple.mpegurl",
    ".m4s": "video/iso.segment",
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".ts": "video/mp2t",
    ".m4a": "audio/mp4",
    ".aac": "audio/aac",
    ".vtt": "text/vtt",
    ".json": "application/json",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactFile:
    """A file among a session's artifacts."""

    path: str
    """Relative to the artifacts folder, with "/"."""
    size_bytes: int
    media_type: str
    update_time: datetime


def media_type(path: str) -> str:
    """Tells the IANA media type of a path by its extension."""
    extension = os.path.splitext(path)[1].lower()  # noqa: PTH122 - a text of a client, not a path of this machine
    return _TYPES.get(extension) or mimetypes.types_map.get(extension) or _DEFAULT_TYPE


def list_artifacts(folder: Path) -> tuple[ArtifactFile, ...]:
    """Lists a folder's regular files, also those in folders inside it, by path. Links and temporary files are left out.

    Args:
        folder: The artifacts folder; a missing one is empty.
    """
    found = []
    for where, names, files in os.walk(folder, followlinks=False):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            if name.startswith(".") or name.endswith(".tmp"):
                continue
            path = os.path.join(where, name)  # noqa: PTH118 - os.walk speaks strings
            try:
                facts = os.lstat(path)
            except FileNotFoundError:  # an HLS segment that has just left its window
                continue
            if stat.S_ISREG(facts.st_mode):
                found.append(_describe(os.path.relpath(path, folder), facts))
    return tuple(sorted(found, key=lambda artifact: artifact.path))


async def read_artifact(
    folder: Path, path: str, *, offset_bytes: int = 0, limit_bytes: int | None = None
) -> AsyncIterator[ArtifactFile | bytes]:
    """Reads a file or a range of it.

    Args:
        folder: The artifacts folder.
        path: Which file, relative, with "/".
        offset_bytes: Where to begin.
        limit_bytes: At most this many bytes. None: up to the present end.

    Yields:
        First what the file is, then its bytes in pieces of at most 256 KiB.

    Raises:
        RequestFailure: ARTIFACT_NOT_FOUND, RANGE_INVALID when it begins behind the end, or INVALID_REQUEST for a path
            that is none.
    """
    descriptor = await asyncio.to_thread(_open_inside, folder, path)
    try:
        artifact = _describe(path, os.fstat(descriptor))
        if offset_bytes > artifact.size_bytes:
            raise RequestFailure(
                reason=Reason.RANGE_INVALID,
                message=f"Cannot read {path} from byte {offset_bytes}: it has {artifact.size_bytes} bytes.",
                metadata={"size_bytes": str(artifact.size_bytes)},
            )
        yield artifact
        remaining = artifact.size_bytes - offset_bytes
        remaining = remaining if limit_bytes is None else min(remaining, limit_bytes)
        while remaining > 0:
            piece = await asyncio.to_thread(os.pread, descriptor, min(CHUNK_BYTES, remaining), offset_bytes)
            if not piece:  # cut short meanwhile
                return
            yield piece
            offset_bytes += len(piece)
            remaining -= len(piece)
    finally:
        os.close(descriptor)


def _describe(path: str, facts: os.stat_result) -> ArtifactFile:
    return ArtifactFile(
        path=path,
        size_bytes=facts.st_size,
        media_type=media_type(path),
        update_time=datetime.fromtimestamp(facts.st_mtime, UTC),
    )


def _open_inside(folder: Path, path: str) -> int:
    """Opens a regular file below a folder without ever following a link."""
    names = path.split("/")
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        description = f"{path!r} is no path inside a session's artifacts. Try one that ListArtifacts gives."
        raise invalid(Violation(field="name", description=description))
    missing = RequestFailure(
        reason=Reason.ARTIFACT_NOT_FOUND, message=f"Cannot read {path}: the session has no such artifact."
    )
    descriptors = []
    try:
        descriptors.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for name in names[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptors.append(os.open(name, flags, dir_fd=descriptors[-1]))
        # O_NONBLOCK: opening a FIFO that somebody put there must not hang.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = os.open(names[-1], flags, dir_fd=descriptors[-1])
    except OSError:
        raise missing from None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise missing
    return file
