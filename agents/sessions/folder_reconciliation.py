"""What becomes of an attempt's folder that an agent finds at its start: a total function of what can be seen of it.

An agent can be killed between any two steps of its own, a disk can damage any file, and processes live or die without
it. So records, exit file and processes are looked at apart, and what follows from them together stands here and
nowhere else; docs/reconciliation.md shows it as a table, and a test compares the two cell by cell.

What runs is either watched on or ended, and nothing that might run is taken for gone. It does no I/O.
"""

from __future__ import annotations

from enum import StrEnum
from typing import assert_never


class LaunchSays(StrEnum):
    """What the launch record of a folder says."""

    TRANSCODE = "transcode"
    RECORDING = "recording"
    ABSENT = "absent"
    """As in the folder of an attempt that never came here and never may."""
    DAMAGED = "damaged"
    """It cannot be read, or is of a newer agent."""


class StatusSays(StrEnum):
    """What the status of a folder says."""

    LIVE = "live"
    ENDED = "ended"
    DAMAGED = "damaged"
    """It is missing, cannot be read, is another attempt's, or is of a newer agent."""


class ProcessesSay(StrEnum):
    """Which processes of an attempt live, known by the lock that they hold."""

    SHIM = "shim"
    """Alone, or with its program and others. Also one that is just beginning and has not said yet who it is."""
    PROGRAM = "program"
    """It has outlived its shim, which alone could have written down how it ends."""
    OTHERS = "others"
    """Neither shim nor program are known to live, but something that they started holds the lock."""
    NONE = "none"


class ExitSays(StrEnum):
    """What the exit file says."""

    WRITTEN = "written"
    BLANK = "blank"


class Outcome(StrEnum):
    """What is done."""

    WATCH = "watch"
    """The agent goes on as if it had launched it."""
    END_UNWATCHED = "end, then tell"
    """No shim lives that could write how the program ends: it is ended in good order and counts as failed."""
    END_STRAYS = "end strays, then tell"
    """The program has ended and its status is known; what still holds the lock is killed, then the status is told."""
    DIRECT = "direct"
    """The recording goes on where its own state says, between two takes for instance."""
    CONCLUDE_EXIT = "tell by exit"
    """It ended while no agent was there; the exit status tells how."""
    CONCLUDE_LOST = "tell as lost"
    """Nothing lives and nobody saw the end: the machine went down, or nothing had been run yet."""
    END_DAMAGED = "end, tell as damaged"
    """It cannot be watched: what lives of it is ended, however long that takes."""
    KEEP = "keep its end"
    """It has ended and told so."""
    KEEP_AND_END = "keep its end, end strays"
    """It has ended and told so; whatever still holds the lock is killed."""
    LEAVE = "leave"
    """Nothing of it lives and nothing can be told of it: it is not known here, and its folder stays for people."""


def reconcile_folder(
    *, launch: LaunchSays, status: StatusSays, processes: ProcessesSay, exit_file: ExitSays
) -> Outcome:
    """Tells what becomes of an attempt.

    Args:
        launch: What its launch record says.
        status: What its status says.
        processes: Which of its processes live.
        exit_file: What its exit file says.
    """
    none_alive = processes is ProcessesSay.NONE
    if status is StatusSays.ENDED:
        return Outcome.KEEP if none_alive else Outcome.KEEP_AND_END
    if status is StatusSays.DAMAGED and none_alive:
        return Outcome.LEAVE
    match launch:
        case LaunchSays.ABSENT | LaunchSays.DAMAGED:
            return Outcome.END_DAMAGED
        case LaunchSays.RECORDING:
            return Outcome.DIRECT
        case LaunchSays.TRANSCODE:
            return _watchable(processes, exit_file)
        case _:
            assert_never(launch)


def _watchable(processes: ProcessesSay, exit_file: ExitSays) -> Outcome:
    """Tells what becomes of a transcode that has not told its end."""
    written = exit_file is ExitSays.WRITTEN
    match processes:
        case ProcessesSay.SHIM:
            return Outcome.WATCH
        case ProcessesSay.PROGRAM | ProcessesSay.OTHERS:
            return Outcome.END_STRAYS if written else Outcome.END_UNWATCHED
        case ProcessesSay.NONE:
            return Outcome.CONCLUDE_EXIT if written else Outcome.CONCLUDE_LOST
        case _:
            assert_never(processes)
