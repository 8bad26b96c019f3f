"""Finds and kills every process of a display, also those that let go of its lock file.

Chromium's zygotes and crash handlers close what they inherited, and a program may start others that do. So a process is
a display's when it has the display's lock open, or carries its mark (see `process_marks`), or belongs to its user when
it has one of its own.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.lock_holders import has_ended, is_held, kill_holders, send
from agents.process_marks import living, mark_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.process_marks import Mark

_PROC = Path("/proc")
_ROOT = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMarks:
    """What tells a display's processes."""

    mark: Mark
    user_id: int | None
    """Their own user. None: they run as the agent's, which tells nothing."""
    lock: Path
    """File that they have open. Need not exist."""


def kill_marked(marks: ProcessMarks) -> frozenset[int]:
    """Kills every process of a display that there is now.

    Args:
        marks: What tells them.

    Returns:
        Process ids of those that were alive, but of those that only the lock tells: their owner keeps the ids. To be
        called until it is empty and the lock is free: a process may start another while it is killed.
    """
    killed = kill_where(lambda pid: belongs(pid, marks))
    with contextlib.suppress(FileNotFoundError):
        if is_held(marks.lock):
            kill_holders(marks.lock)
    if killed and marks.user_id is not None:
        _kill_user(marks.user_id)
    return killed


def kill_where(chosen: Callable[[int], bool]) -> frozenset[int]:
    """Kills the living processes that are chosen, but never the agent.

    Args:
        chosen: Looks at a process by its id. Asked again once the process cannot be mistaken for another any more.
    """
    return frozenset(pid for pid in living() if chosen(pid) and _kill(pid, chosen))


def belongs(pid: int, marks: ProcessMarks) -> bool:
    """Tells whether a process is a display's by mark or user. A process that has ended is nobody's."""
    if marks.user_id is not None and marks.user_id in user_ids_of(pid):
        return True
    return mark_of(pid) == marks.mark


def user_ids_of(pid: int) -> frozenset[int]:
    """Reads the real, effective, saved and file system user of a living process. Empty: it has ended.

    The owner of its folder in /proc would not do: that is root for a process which nobody may look into.
    """
    fields = _status(pid)
    if fields.get("State", "Z")[0] in "ZX":
        return frozenset()
    return frozenset(int(text) for text in fields.get("Uid", "").split())


def is_gone(pid: int) -> bool:
    """Tells whether a process id names no living process: nobody, or one that waits for its parent."""
    return not user_ids_of(pid)


def _status(pid: int) -> dict[str, str]:
    try:
        lines = (_PROC / str(pid) / "status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _kill(pid: int, chosen: Callable[[int], bool]) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        # In this order: what is seen while the pidfd still says "alive" is about the process it holds.
        return chosen(pid) and not has_ended(descriptor) and send(descriptor, signal.SIGKILL)
    finally:
        os.close(descriptor)


def _kill_user(user_id: int) -> None:
    """Kills all processes of a user at once, so that one which starts others quicker than they are found has no chance.

    The signal goes to everybody whom the user may signal, which is why the user itself has to send it.
    """
    if user_id != _ROOT and os.geteuid() == _ROOT:
        subprocess.run(
            ["/bin/sh", "-c", "kill -KILL -1"],
            user=user_id,
            group=user_id,
            extra_groups=[],
            env={},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
