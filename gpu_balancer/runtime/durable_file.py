"""Files that are either the old ones or the new ones after a crash, never a part of either.

A file is written beside its place, flushed to the disk, renamed over it, and the folder is flushed, because a rename
alone may be lost with the power. Half-written neighbours left by a crash are named `.NAME.*.part`.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from pathlib import Path


def write_durably(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Writes a whole file so that a crash leaves the old content or the new one. Blocks for the disk.

    Args:
        path: Where the file is to stand; its folder must exist. A symbolic link there is replaced, not followed.
        data: The whole content.
        mode: Permission bits of the new file, whatever the umask says.

    Raises:
        OSError: When the folder is missing, not writable or full. The old file then stands untouched.
    """
    part = path.with_name(f".{path.name}.{random_id(length=8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        raise
    flush_folder(path.parent)


def replace_durably(path: Path, data: bytes) -> None:
    """Writes an existing file anew, keeping its permission bits and, where the kernel lets us, its owner.

    A symbolic link is followed, so that settings linked from elsewhere stay linked.

    Raises:
        OSError: As for `write_durably`, and when there is no file yet.
    """
    target = path.resolve(strict=True)
    before = target.stat()
    write_durably(target, data, mode=before.st_mode & 0o7777)
    after = target.stat()
    if (after.st_uid, after.st_gid) != (before.st_uid, before.st_gid):
        # Only root may give a file away; for anybody else the new file is the writer's, as with every editor.
        with contextlib.suppress(PermissionError):
            os.chown(target, before.st_uid, before.st_gid)


def flush_folder(folder: Path) -> None:
    """Makes the names in a folder durable: what was created, renamed or removed there survives a power cut.

    Raises:
        OSError: When the folder cannot be opened or flushed.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_file(path: Path) -> None:
    """Has the disk keep what a file holds, as long as it is now. Blocks for the disk, and for nothing else.

    Raises:
        OSError: When it cannot be opened or flushed, as what is no file: a symbolic link there, or a pipe.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
