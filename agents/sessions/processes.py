"""The processes of one attempt: whether any lives, and ways to signal them that can hit nobody else.

They are known by the attempt's lock file, see `lock_holders`. That of a recording is the lock file of its display too:
X server, browser and sound server are the attempt's processes like its shim and program.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Self

from agents.lock_holders import has_ended, is_held, kill_holders, open_holder, send
from agents.sessions.blockage import awaited_sockets
from agents.sessions.connection_cut import cut_connection

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
            return is_held(self._folder.lock)
        except FileNotFoundError:
            # Somebody has removed the folder under a live attempt: only what is held already can be told from others.
            return any(not has_ended(held) for held in self._held())

    def shim_alive(self) -> bool | None:
        """Tells whether the shim lives. None: it cannot be told, because the shim was not found (yet)."""
        shim = self.shim_fd
        return None if shim is None else not has_ended(shim)

    def signal_program(self, number: signal.Signals) -> bool:
        """Sends a signal to the program, not to the shim.

        Returns:
            Whether it was sent. False: the program has not begun yet, or has ended.
        """
        program = self.program_fd
        return program is not None and send(program, number)

    def continue_program(self) -> bool:
        """Lets the program, and its shim, go on if somebody has stopped them; nothing else happens to them.

        Returns:
            As `signal_program`.
        """
        if (shim := self.shim_fd) is not None:
            send(shim, signal.SIGCONT)
        return self.signal_program(signal.SIGCONT)

    def cut_inputs(self) -> None:
        """Closes the network connections that the program waits to read from, as far as the system lets us.

        Without the right to (Yama, a container without CAP_SYS_PTRACE) nothing happens.
        """
        program, pid = self.program_fd, self._folder.program_pid()
        if program is None or pid is None or has_ended(program):
            return
        for descriptor in awaited_sockets(pid):
            cut_connection(program, descriptor)

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
                send(held, signal.SIGKILL)
            return
        kill_holders(self._folder.lock, spared=spared)

    def _open(self, pid: int) -> int | None:
        """Opens a pidfd of a process of this attempt. None: there is none, or it is somebody else's."""
        return open_holder(pid, self._folder.lock)


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
