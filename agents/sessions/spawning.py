"""Starts the shim of an attempt as a process that nobody owns but itself.

Not through asyncio's child transport, which kills its child when the loop closes. `subprocess.Popen` with a session of
its own outlives the agent; its end is seen through a pidfd. Every descriptor but the attempt's lock, the session's
fence and what the program is given by name is closed in it, so that a surviving session keeps no port or socket of the
agent open.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agents.sessions.folder import AttemptFolder

SHIM = Path(__file__).with_name("shim.sh")


class AlreadySpawnedError(Exception):
    """A process of the attempt lives."""


def spawn_shim(
    folder: AttemptFolder,
    argv: Sequence[str],
    env: Mapping[str, str],
    *,
    fence: int | None = None,
    inherited: tuple[int, ...] = (),
    among_others: bool = False,
) -> int:
    """Starts the shim with a program. It inherits the agent's CPU affinity.

    Args:
        folder: The attempt's folder, which exists.
        argv: Program and arguments.
        env: Variables to set on top of the agent's own.
        fence: Descriptor of the held fence of the session, which its processes inherit. None: it writes no outputs.
        inherited: Descriptors that the program is to have besides, under the same numbers.
        among_others: Whether other processes of the attempt may live already, as those of a display do.

    Returns:
        Process id of the shim, a child of the agent that `AttemptProcesses` reaps.

    Raises:
        AlreadySpawnedError: When a process of the attempt lives that may not; then nothing was started.
        OSError: When the system cannot start a process.
    """
    lock = os.open(folder.lock, os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if among_others else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadySpawnedError(f"Cannot start {folder.key}: its processes live.") from None
        shim = subprocess.Popen(
            ["/bin/sh", str(SHIM), str(folder.path), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder.path,
            env={**os.environ, **env, **({} if folder.mark is None else folder.mark.environment)},
            pass_fds=(lock, *inherited) if fence is None else (lock, fence, *inherited),
            start_new_session=True,
        )
        # Popen takes a child that outlives it for a mistake. This one is meant to, and is reaped by its pidfd.
        shim.returncode = 0
        return shim.pid
    finally:
        os.close(lock)
