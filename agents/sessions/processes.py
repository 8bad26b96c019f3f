"""The processes of one attempt: whether any lives, and ways to signal them that can hit nobody else.

A process id alone is no identity: it can be given to another process at any moment, even with the same start tick. So
a process is held by a pidfd, and it is ours because it has the attempt's lock file open, which it can only have
inherited from the agent that launched it. The lock being free proves that all of them are gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import select
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

    from agents.sessions.folder import AttemptFolder
    from gpu_balancer.runtime.clock import Clock

_KILL_AGAIN_S = 0.05


class AttemptProcesses:
    """Handles of an attempt's shim and program. A context manager: it gives the pidfds back, and ends no process."""

    def __init__(self, folder: AttemptFolder, shim: int | None = None) -> None:
        """Takes hold of an attempt's processes.

        Args:
            folder: The attempt's folder.
            shim: Process id of the shim when it is the agent's own child, not reaped yet. None: it is looked for when
                needed.
        """
        self._folder = folder
        self._is_child = shim is not None
        self._shim_fd = None if shim is None else os.pidfd_open(shim)
        self._program_fd: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for descriptor in self._held():
            os.close(descriptor)
        self._shim_fd = self._program_fd = None

    @property
    def shim_fd(self) -> int | None:
        """A pidfd that becomes readable when the shim ends. None: the shim was not found (yet)."""
        if self._shim_fd is None and (pid := self._folder.shim_pid()) is not None:
            self._shim_fd = self._open(pid)
        return self._shim_fd

    @property
    def program_fd(self) -> int | None:
        """A pidfd of the program. None: it was not found (yet)."""
        if self._program_fd is None and (pid := self._folder.program_pid()) is not None:
            self._program_fd = self._open(pid)
        return self._program_fd

    def any_alive(self) -> bool:
        """Tells whether any process of the attempt lives, and reaps the shim when it is a child that has ended."""
        self._reap()
        try:
            lock = os.open(self._folder.lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            # Somebody has removed the folder under a live attempt: only what is held already can be told from others.
            return any(not _has_ended(held) for held in self._held())
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        else:
            # Explicitly: a child that another thread is forking just now would otherwise keep it for a moment.
            fcntl.flock(lock, fcntl.LOCK_UN)
            return False
        finally:
            os.close(lock)

    def shim_alive(self) -> bool | None:
        """Tells whether the shim lives. None: it cannot be told, because the shim was not found (yet)."""
        shim = self.shim_fd
        return None if shim is None else not _has_ended(shim)

    def signal_program(self, number: signal.Signals) -> bool:
        """Sends a signal to the program, not to the shim.

        Returns:
            Whether it was sent. False: the program has not begun yet, or has ended.
        """
        program = self.program_fd
        return program is not None and _send(program, number)

    def continue_program(self) -> bool:
        """Lets the program go on if somebody has stopped it; nothing else happens to it.

        Returns:
            As `signal_program`.
        """
        return self.signal_program(signal.SIGCONT)

    def kill_but_shim(self) -> None:
        """Kills everything of the attempt but its shim, which then writes how the program ended."""
        self._kill(spared=self._folder.shim_pid())

    def kill_all(self) -> None:
        """Kills everything of the attempt."""
        self._kill(spared=None)

    def _reap(self) -> None:
        if not self._is_child or self._shim_fd is None:
            return
        with contextlib.suppress(ChildProcessError):
            self._is_child = os.waitid(os.P_PIDFD, self._shim_fd, os.WEXITED | os.WNOHANG) is None

    def _held(self) -> tuple[int, ...]:
        return tuple(held for held in (self._shim_fd, self._program_fd) if held is not None)

    def _kill(self, *, spared: int | None) -> None:
        if not self._folder.lock.exists():
            for held in self._held():
                _send(held, signal.SIGKILL)
            return
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) in (spared, os.getpid()):
                continue
            descriptor = self._open(int(entry.name))
            if descriptor is None:
                continue
            try:
                _send(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def _open(self, pid: int) -> int | None:
        """Opens a pidfd of a process of this attempt. None: there is none, or it is somebody else's."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        # In this order: what is seen in /proc while the pidfd still says "alive" is about the process it holds.
        if self._holds_lock(pid) and not _has_ended(descriptor):
            return descriptor
        os.close(descriptor)
        return None

    def _holds_lock(self, pid: int) -> bool:
        try:
            ours = self._folder.lock.stat()
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    theirs = entry.stat()
                    if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino):
                        return True
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return False
        return False


async def end_processes(folder: AttemptFolder, *, within: timedelta, clock: Clock) -> bool:
    """Kills everything of an attempt and awaits that its lock is free.

    Args:
        folder: The attempt's folder, which need not exist.
        within: How long a process may take to go; one that waits for a disk cannot be killed before.
        clock: For the time that it takes.

    Returns:
        Whether nothing of it lives.
    """
    give_up_s = clock.monotonic_s() + within.total_seconds()
    with AttemptProcesses(folder) as processes:
        while await asyncio.to_thread(processes.any_alive):
            if clock.monotonic_s() >= give_up_s:
                return False
            await asyncio.to_thread(processes.kill_all)
            await asyncio.sleep(_KILL_AGAIN_S)
    return True


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _send(pidfd: int, number: signal.Signals) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True
