"""Gives processes precedence over others on busy cores.

Each process that leads a session is an autogroup of its own (sched(7)), so `nice` counts only inside of it, and against
everybody else the autogroup's own nice value does. What is recorded cannot wait: a picture that comes late is lost.

Where that is not allowed, or the kernel has no autogroups, nothing is changed: root may, and so may whoever has
CAP_SYS_NICE, or the limits RLIMIT_NICE (30 or more) and RLIMIT_RTPRIO (1 or more).
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_PREFERRED, _USUAL = "-10", "0"
_LOOKING = "dmx"
"""What ffmpeg begins the names of the threads with that take in an input each."""
_LOWEST = os.sched_param(1)


def give_precedence(leader: int) -> bool:
    """Gives a session of processes precedence. Returns whether it has it.

    Args:
        leader: Process id of the one that leads it, or of any other of them.
    """
    return _set_autogroup(leader, _PREFERRED)


def take_precedence() -> None:
    """Gives it to this process, if it leads its session: whoever looks after what has it needs it as well."""
    if os.getsid(0) == os.getpid():
        give_precedence(os.getpid())


def withdraw_precedence(member: int) -> bool:
    """Makes a session of processes one like any other. Returns whether it is.

    Args:
        member: Process id of one of them.
    """
    return _set_autogroup(member, _USUAL)


def look_in_real_time(ffmpeg: int) -> bool:
    """Runs what takes in an ffmpeg's inputs before everything else: it has little to do, and that at exact times.

    Args:
        ffmpeg: Process id.

    Returns:
        Whether it does so; an ffmpeg that does not tell which threads those are is left as it is.
    """
    looking = [thread for thread in Path(f"/proc/{ffmpeg}/task").glob("*") if _name(thread).startswith(_LOOKING)]
    try:
        for thread in looking:
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, _LOWEST)
    except OSError:
        return False
    return bool(looking)


def run_in_real_time() -> bool:
    """Runs this process, and the threads that it starts, as `look_in_real_time` does. Returns whether it may."""
    try:
        os.sched_setscheduler(0, os.SCHED_RR, _LOWEST)
    except OSError:
        return False
    return True


def _set_autogroup(member: int, nice: str) -> bool:
    try:
        Path(f"/proc/{member}/autogroup").write_text(nice, "ascii")
    except OSError:
        return False
    return True


def _name(thread: Path) -> str:
    with contextlib.suppress(OSError):
        return (thread / "comm").read_text("utf-8", "replace")
    return ""
