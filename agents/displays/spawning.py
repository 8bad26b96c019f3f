"""Starts the processes of a display, each detached from the agent, and tells which of them live.

As with sessions, nothing here may end with the agent: `subprocess.Popen` with a session of its own instead of asyncio's
child transport. Each process holds the display's lock, runs as the display's user with no further groups, and knows
nothing of the agent's environment but what `environment` gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from agents.lock_holders import has_ended, open_holder
from agents.precedence import give_precedence

if TYPE_CHECKING:
    from pathlib import Path

    from agents.displays.display_folder import DisplayFolder

X_SERVER = "x_server"
WINDOW_MANAGER = "window_manager"
SOUND_SERVER = "sound_server"
SOUND_LISTENER = "sound_listener"
CAPTURE_GATE = "capture_gate"
BROWSER = "browser"
"""Name of the process without which a display with a browser is dead."""
_UMASK = 0o077

Inheriting = Callable[[], AbstractContextManager[Sequence[int]]]
"""Opens descriptors for a process that is being started, and closes them here when it has them."""


def _nothing() -> AbstractContextManager[Sequence[int]]:
    return nullcontext(())


class DisplayEndedError(Exception):
    """A display's processes are being ended: no further one is started."""


class DisplayProcesses:
    """The processes of one display, from its making, or its adoption, to its end."""

    def __init__(
        self, folder: DisplayFolder, *, work: Path, user_id: int | None, environment: Mapping[str, str]
    ) -> None:
        """Knows no process yet.

        Args:
            folder: The display's folder, which exists.
            work: Where they run.
            user_id: As whom. None: the agent's own user.
            environment: Their whole environment.
        """
        self.folder = folder
        self.work = work
        self.user_id = user_id
        self.environment = dict(environment)
        self._alive: dict[str, int] = {}
        self._process_ids: dict[str, int] = {}
        self._preferred = False
        self._ended = False
        self._replaced: list[int] = []
        """Pidfds of those whose name another one has by now."""

    async def spawn(
        self,
        argv: Sequence[str],
        *,
        name: str,
        environment: Mapping[str, str] | None = None,
        as_agent: bool = False,
        inheriting: Inheriting = _nothing,
    ) -> int:
        """Starts a process. It inherits the agent's CPU affinity, and writes to the display's log.

        Args:
            argv: Absolute path of the program, and its arguments.
            name: What it is for; one word, unique on the display.
            environment: Variables on top of the display's.
            as_agent: As the agent's own user, for a program of ours that gives its rights up itself.
            inheriting: What else of the agent's it gets.

        Returns:
            Its process id.

        Raises:
            DisplayEndedError: When the display is being ended.
            OSError: When it cannot be started, or what it is to inherit not be opened.
        """
        if self._ended:
            raise DisplayEndedError(f"Cannot start {name} on display {self.folder.id}: the display is being ended.")
        user_id = None if as_agent else self.user_id
        variables = {**self.environment, **(environment or {})}
        return await asyncio.to_thread(self._start, list(argv), variables, name, user_id, inheriting)

    def adopt(self) -> None:
        """Takes hold of the processes that an earlier agent started and that live."""
        for name, pid in self.folder.read_processes():
            descriptor = open_holder(pid, self.folder.lock)
            if descriptor is not None:
                self._hold(name, pid, descriptor)

    def prefer(self) -> None:
        """Gives the processes, and those that are still to be started, precedence: somebody wants the display."""
        self._preferred = True
        # The browser first, which was started last: without CAP_SYS_ADMIN the kernel takes one such change in 0.1 s.
        for name, process_id in reversed(tuple(self._process_ids.items())):
            if self.is_alive(name):
                give_precedence(process_id)

    def is_alive(self, name: str) -> bool:
        """Tells whether a process lives."""
        descriptor = self._alive.get(name)
        return descriptor is not None and not has_ended(descriptor)

    def all_alive(self) -> bool:
        """Tells whether every process that was started, or adopted, lives."""
        return all(not has_ended(descriptor) for descriptor in tuple(self._alive.values()))

    def reap(self) -> bool:
        """Lets the system forget children that have ended.

        Returns:
            Whether no child is left. What an earlier agent started is nobody's child here.
        """
        left = False
        for descriptor in (*self._alive.values(), *self._replaced):
            with contextlib.suppress(ChildProcessError):
                left |= os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG) is None
        return not left

    def end(self) -> None:
        """Starts no further process. To be called before they are killed."""
        self._ended = True

    def close(self) -> None:
        """Gives the pidfds back, and ends no process."""
        self.reap()
        for descriptor in (*self._alive.values(), *self._replaced):
            os.close(descriptor)
        self._alive.clear()
        self._replaced.clear()

    def _start(
        self,
        argv: list[str],
        environment: dict[str, str],
        name: str,
        user_id: int | None,
        inheriting: Inheriting,
    ) -> int:
        lock = os.open(self.folder.lock, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Whoever looks whether the lock is held has it for a moment, no longer.
            fcntl.flock(lock, fcntl.LOCK_SH)
            with self.folder.log.open("ab") as log, inheriting() as inherited:
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.work,
                    env=environment,
                    pass_fds=(lock, *inherited),
                    start_new_session=True,
                    user=user_id,
                    group=user_id,
                    extra_groups=None if user_id is None else (),
                    umask=_UMASK,
                )
            # Popen takes a child that outlives it for a mistake. This one is meant to, and is reaped by its pidfd.
            process.returncode = 0
            self._hold(name, process.pid, os.pidfd_open(process.pid))
            # Noted before it is asked: whoever prefers the display at this moment, in another thread, finds it.
            if self._preferred:
                give_precedence(process.pid)
            self.folder.add_process(name, process.pid)
            return process.pid
        finally:
            # Last, so that a free lock means that nobody is being started either.
            os.close(lock)

    def _hold(self, name: str, process_id: int, descriptor: int) -> None:
        """Takes hold of a process. One that had its name may not have ended yet, and is still to be reaped."""
        if (before := self._alive.get(name)) is not None:
            self._replaced.append(before)
        self._alive[name] = descriptor
        self._process_ids[name] = process_id
