"""One owner per state folder, held by an advisory lock that the kernel gives back when the owner dies."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class FolderLockedError(Exception):
    """Somebody else owns the folder. The message names the process when it is known."""


class FolderUnusableError(Exception):
    """The folder cannot be made or written. The message says why and what to try."""


@contextmanager
def owned_folder(folder: Path, *, lock_name: str, owner: str) -> Iterator[None]:
    """Makes a folder that only its owner may enter, and owns it until the block ends.

    Args:
        folder: Made with mode 0700 when it is missing.
        lock_name: Name of the lock file in it. It holds the owner's pid, and stays when the lock is given back.
        owner: What owns it, for messages: "balancer" or "agent".

    Raises:
        FolderLockedError: A living process owns it.
        FolderUnusableError: It cannot be made, entered or written.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder / lock_name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise FolderUnusableError(
            f"Cannot use the state folder {folder}: {error.strerror}. Try another one with --state-dir, "
            "or let this user write there."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = lock_holder_pid(descriptor)
            by = f" (process {holder})" if holder else ""
            raise FolderLockedError(
                f"Cannot use the state folder {folder}: another {owner}{by} owns it. Stop that one, or try another "
                "folder with --state-dir."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def lock_owner(path: Path) -> int | None:
    """Tells who owns a folder by its lock file, without owning it.

    Returns:
        The owner's pid; None when nobody alive holds the lock.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return lock_holder_pid(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def lock_holder_pid(descriptor: int) -> int | None:
    """Reads the pid that a lock file holds; None when it holds none."""
    text = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
    return int(text) if text.isdecimal() else None
