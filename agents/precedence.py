"""Gives processes precedence over others on busy cores.

Each process that leads a session is an autogroup of its own (sched(7)), so `nice` counts only inside of it, and against
everybody else the autogroup's own nice value does. What is recorded cannot wait: a picture that comes late is lost.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

_NICE = "-10"


def give_precedence(leader: int) -> None:
    """Gives a session of processes precedence. Does nothing where that is not allowed, or the kernel has no autogroups.

    Args:
        leader: Process id of the one that leads it.
    """
    with contextlib.suppress(OSError):
        Path(f"/proc/{leader}/autogroup").write_text(_NICE, "ascii")
