"""Why recordings fail, apart from what their ffmpeg says: stable reasons, each with words for people.

What a page, a browser or a display says of itself comes with its own reason and words; what is here has none.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from agents.pipelines.outputs import TAKES_FOLDER
from agents.sessions.attempt import Failure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import timedelta
    from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)

PAGE_CRASHED = Failure(
    reason="PAGE_CRASHED",
    message="Cannot go on recording: the page crashed. What was recorded until then is kept. Try a page that needs "
    "less memory.",
)
BROWSER_LOST = Failure(
    reason="BROWSER_LOST",
    message="Cannot go on recording: the browser ended, was killed, by the kernel for want of memory for instance, or "
    "hung for half a minute. What was recorded until then is kept. Try the kernel's log.",
)
DISPLAY_LOST = Failure(
    reason="DISPLAY_LOST",
    message="Cannot go on recording: the display's X server, or the gate before it, ended or was killed. What was "
    "recorded until then is kept. Try again.",
)
MACHINE_LOST = Failure(
    reason="PROCESS_LOST",
    message="Cannot go on recording: ffmpeg went away without a trace, as when the machine goes down. What was "
    "recorded until then is kept. Try again.",
)
STAGE_BROKEN = Failure(
    reason="BROWSER_FAILED",
    message="Cannot record: driving the browser failed in a way that nobody thought of. Try again; the agent's log has "
    "the details.",
)
STATE_DAMAGED = Failure(
    reason="RECORD_DAMAGED",
    message="Cannot go on recording: what the agent wrote down of it cannot be read any more. Try again, and see "
    "whether the disk of the state folder works.",
)
NO_PICTURE = Failure(
    reason="NO_FIRST_FRAME",
    message="Cannot record: no picture was written in time. Try the session's log, or a longer first_frame_timeout_s "
    "in [inputs].",
)

CAPTURE_STALLED = Failure(
    reason="STALLED",
    message="Cannot go on recording: nothing was written for too long, although the recording did not rest. What was "
    "recorded until then is kept. Try again, or a longer stalled_timeout_s in [sessions].",
)
OUTPUT_STALLED = Failure(
    reason="OUTPUT_STALLED",
    message="Cannot go on recording: an output has taken nothing for too long. What was recorded until then is kept. "
    "Try whether the disk answers, and the server that is pushed to reads.",
)
DISK_LOW = Failure(
    reason="DISK_LOW",
    message="Cannot go on recording: hardly any room is left on the disk, so the recording was ended while its files "
    "could be finished. Try deleting sessions, or freeing space; [disk] least_mib says how much is kept free.",
)
DISK_LOW_BEFORE = Failure(
    reason="DISK_LOW",
    message="Cannot record: hardly any room is left on the disk. Try deleting sessions, or freeing space; [disk] "
    "least_mib says how much is kept free.",
)
"""Nothing was recorded yet."""


def memory_exceeded(taken_mib: int, bound_mib: int) -> Failure:
    """Makes the failure of a display that takes more memory than it may."""
    return Failure(
        reason="MEMORY_EXCEEDED",
        message=f"Cannot go on: its display has taken {taken_mib:,} MiB of memory, and {bound_mib:,} are the "
        "most that one may. Whatever was recorded until then is kept. Try a page that needs less, or a larger "
        "largest_memory_mib in [recordings].",
    )


def storage_exceeded(taken_mib: int, bound_mib: int) -> Failure:
    """Makes the failure of a browser that takes more disk than it may."""
    return Failure(
        reason="STORAGE_EXCEEDED",
        message=f"Cannot go on: its browser has taken {taken_mib:,} MiB of disk, and {bound_mib:,} are the "
        "most that one may. Whatever was recorded until then is kept. Try a page that stores less, or a larger "
        "largest_folder_mib in [recordings].",
    )


def told_failure(reason: str, message: str) -> Failure:
    """Makes the failure of something that gives its own reason and words."""
    return Failure(reason=reason, message=message)


def start_failure(error: OSError) -> Failure:
    """Makes the failure of a take that could not be started."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        message = f"Cannot record: the disk is full{where}. Try to delete sessions or to free space."
        return Failure(reason="DISK_FULL", message=message)
    return Failure(reason="OUTPUT_UNWRITABLE", message=f"Cannot record: {error.strerror}{where}. Try the agent's log.")


def playlist_torn(path: Path) -> Failure:
    """Makes the failure of a take that would write over what earlier ones have recorded."""
    return Failure(
        reason="OUTPUT_UNWRITABLE",
        message=f"Cannot go on recording: the playlist {path} was damaged since the take before, and its segments "
        "would be written over. What was recorded until then is kept. Try to keep others out of that folder.",
    )


def capture_ended(exit_code: int | None, log_tail: Sequence[str]) -> Failure:
    """Makes the failure of an ffmpeg that ended in order although nobody had asked it to."""
    return Failure(
        reason="CAPTURE_ENDED",
        message="Cannot go on recording: ffmpeg ended by itself. What was recorded until then is kept. Try the "
        "session's log.",
        exit_code=exit_code,
        log_tail=tuple(log_tail),
    )


def not_finished(error: Exception, kept: Path) -> Failure:
    """Makes the failure of a recording of which no file could be finished."""
    message = f"Cannot finish the files: {error} What was recorded is kept in {kept}."
    return Failure(reason="OUTPUT_UNWRITABLE", message=message)


def cut_short(output: str, length: timedelta, recorded: timedelta) -> Failure:
    """Makes the failure of a file in which much is missing that was recorded.

    Args:
        output: Id of the output.
        length: Of the file.
        recorded: How much its ffmpegs told to have recorded.
    """
    message = (
        f"Cannot finish {output}: only {length.total_seconds():.1f} s of {recorded.total_seconds():.1f} s that were "
        "recorded can be read. The disk has lost the others, or somebody has; what there is of them and could not be "
        f"joined is kept in {TAKES_FOLDER} of the session's artifacts. Try to have the disk checked."
    )
    return Failure(reason="OUTPUT_UNWRITABLE", message=message)
