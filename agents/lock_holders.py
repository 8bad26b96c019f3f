"""The processes that have a lock file open: whether any lives, and ways to signal them that can hit nobody else.

A process id alone is no identity: it can be given to another process at any moment, even with the same start tick. So
a process is held by a pidfd, and it is ours because it has the lock file open, which it can only have inherited from
the agent that started it. The lock being free proves that all of them are gone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
from pathlib import Path


def is_held(lock: Path) -> bool:
    """Tells whether any process holds a lock file.

    Raises:
        FileNotFoundError: When the file is not there.
    """
    descriptor = open_lock(lock)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        # Explicitly: a child that another thread is forking just now would otherwise keep it for a moment.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    finally:
        os.close(descriptor)


def open_lock(lock: Path, flags: int = 0) -> int:
    """Opens a lock file: for writing, which NFS wants of who tries to have it alone, unless its disk takes none.

    Args:
        lock: The file.
        flags: Further flags of open(2). A file made by it is its user's alone.

    Raises:
        OSError: When it cannot be opened.
    """
    flags |= os.O_CLOEXEC
    try:
        return os.open(lock, os.O_RDWR | flags, 0o600)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return os.open(lock, os.O_RDONLY | flags)


def open_holder(pid: int, lock: Path) -> int | None:
    """Opens a pidfd of a process that has a lock file open. None: there is none, or it is somebody else's."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    # In this order: what is seen in /proc while the pidfd still says "alive" is about the process it holds.
    if has_open(pid, lock) and not has_ended(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def kill_holders(lock: Path, *, spared: int | None = None) -> None:
    """Kills every process that has a lock file open, but the agent itself.

    Args:
        lock: The file, which exists.
        spared: Process id of one that is left alone. None: nobody is.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) in (spared, os.getpid()):
            continue
        kill(int(entry.name), lock)


def kill(pid: int, lock: Path) -> None:
    """Kills a process, if it has a lock file open."""
    descriptor = open_holder(pid, lock)
    if descriptor is None:
        return
    try:
        send(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def lockers(lock: Path) -> tuple[int, ...]:
    """Lists the processes that hold a lock file locked, but the agent itself. One that has it open alone is none.

    Raises:
        FileNotFoundError: When the file is not there.
    """
    ours = lock.stat()
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return tuple(pid for pid in pids if pid != os.getpid() and _has_locked(pid, ours))


def has_ended(pidfd: int) -> bool:
    """Tells whether the process of a pidfd has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def send(pidfd: int, number: signal.Signals) -> bool:
    """Sends a signal. Returns False when the process has ended, or is by now somebody's whom one may not signal."""
    try:
        signal.pidfd_send_signal(pidfd, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def has_open(pid: int, lock: Path) -> bool:
    """Tells whether a process has a file open, as far as one may look."""
    try:
        ours = lock.stat()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                theirs = entry.stat()
                if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
                    return True
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    return False


def _has_locked(pid: int, file: os.stat_result) -> bool:
    """Tells whether a process holds a file locked, as far as one may look."""
    process = Path(f"/proc/{pid}")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
        for entry in (process / "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                theirs = entry.stat()
                if (theirs.st_dev, theirs.st_ino) != (file.st_dev, file.st_ino):
                    continue
                # proc_pid_fdinfo(5): a descriptor's own locks stand in lines of their own.
                if b"\nlock:" in (process / "fdinfo" / entry.name).read_bytes():
                    return True
    return False
