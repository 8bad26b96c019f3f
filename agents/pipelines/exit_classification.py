"""What became of an ffmpeg that ended: told from its exit code, from whether it was being stopped, and from its log.

An exit code alone means little. ffmpeg gives 255 for a signal and 0 when its input breaks off in the middle; ffmpeg 9
gives other failures as 256 less the system's error number (228 for a full disk), ffmpeg 5.1 gives 1 for all of them.
So the first row that fits decides:

| being stopped | exit code          | log shows               | outcome                                             |
|---------------|--------------------|-------------------------|-----------------------------------------------------|
| any           | not seen           | anything                | FAILED: KILLED                                      |
| any           | 137 (SIGKILL)      | anything                | FAILED: KILLED, also by our own ladder: what it was |
|               |                    |                         | writing was not completed and may be unreadable     |
| yes           | 0 or 255           | an output that failed   | FAILED: DISK_FULL, OUTPUT_…                         |
| yes           | 255                | anything else           | STOPPED                                             |
| yes           | 0                  | and nothing was made    | STOPPED: it had yet to open its input, and gives 0  |
| yes           | 0                  | anything else           | COMPLETED: it was done before the signal came       |
| yes           | 143 (SIGTERM)      | and nothing was made    | STOPPED: it had yet to listen to signals            |
| no            | 0                  | an output that failed   | FAILED: DISK_FULL, OUTPUT_…                         |
| no            | 0                  | and nothing was made    | FAILED: the reason in the log, else NO_OUTPUT       |
| no            | 0                  | an input that broke off | FAILED: INPUT_LOST; a publisher left: COMPLETED     |
| no            | 0                  | anything else           | COMPLETED                                           |
| any           | any other          | a reason that is known  | FAILED: that reason; of a capture, first of all     |
|               |                    |                         | DISPLAY_LOST, SOUND_LOST, a watermark that is gone  |
| any           | 228                | nothing that is known   | FAILED: DISK_FULL                                   |
| any           | 132, 134, 135, 139 | nothing that is known   | FAILED: FFMPEG_CRASHED                              |
| no            | 255                | nothing that is known   | FAILED: KILLED, by a signal of somebody else        |
| any           | any other          | nothing that is known   | FAILED: FFMPEG_FAILED with the log's first error    |

A negative code is a signal's, as Python gives it, and read as 128 and the signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from agents.pipelines.capture_reasons import find_capture_reason
from agents.pipelines.exit_reasons import FailureReason, Finding, find_first_error, find_input_end, find_reason

if TYPE_CHECKING:
    from collections.abc import Sequence

_INTERRUPTED = 255
_KILLED = 128 + 9
_TERMINATED = 128 + 15
_DISK_FULL = 256 - 28
_CRASHES = {132: "an illegal instruction", 134: "an abort", 135: "a bus error", 139: "a segmentation fault"}
_REPORTS = "Error closing progress log"
_OUTPUT_REASONS = (
    FailureReason.DISK_FULL,
    FailureReason.OUTPUT_UNREACHABLE,
    FailureReason.OUTPUT_UNWRITABLE,
)


class ExitOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    """All done."""
    STOPPED = "stopped"
    """Ended by a stop, outputs completed."""
    FAILED = "failed"
    """Ended short of its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an ffmpeg."""

    kind: ExitOutcome
    failure_reason: FailureReason | None = None
    """Set when it failed."""
    message: str
    """For people; when it failed: "Cannot X: Y. Try Z." """


def classify_exit(
    *,
    exit_code: int | None,
    stopping: bool,
    log_tail: Sequence[str],
    made_output: bool,
    published: bool = False,
    input_name: str | None = None,
    captured: bool = False,
    pushes: bool = False,
) -> Outcome:
    """Tells what became of an ffmpeg. Total: every combination has an answer.

    Args:
        exit_code: Its exit code; 128 and the signal, or the negative signal, when one ended it. None: not seen.
        stopping: Whether it had been asked to stop.
        log_tail: The last lines of its log, with levels, secrets redacted or not. 200 lines are plenty.
        made_output: Whether it wrote a frame, or for a job without video any sound.
        published: Whether its input was published to it: then the end of the input looks like an I/O error.
        input_name: Its input as it stands in the log, redacted alike. Tells inputs from outputs in the log of
            ffmpeg 5.1, where both are named alone. None: a bare name is taken for the input's. Of a capture: the
            watermark's.
        captured: Whether it captured a display. Being stopped is then how it ends in order.
        pushes: Whether an output is pushed to a server.

    Returns:
        The outcome; see the module's table.
    """
    # Its reports go to another disk than its outputs, mostly, and nothing depends on the last of them.
    log_tail = [line for line in log_tail if _REPORTS not in line]
    code = exit_code if exit_code is None or exit_code >= 0 else 128 - exit_code
    if code is None:
        return _failed(FailureReason.KILLED, _UNSEEN)
    if code == _KILLED:
        return _failed(FailureReason.KILLED, _KILLED_BY_US if stopping else _KILLED_BY_OTHERS)
    found = find_capture_reason(log_tail, watermark=input_name) if captured else None
    found = found or find_reason(
        log_tail, made_output=made_output, published=published, input_name=input_name, pushes=pushes
    )
    if code in (0, _INTERRUPTED) and (code == 0 or stopping):
        return _ended_in_order(code, found, log_tail, made_output, published=published, stopping=stopping)
    if code == _TERMINATED and stopping and not made_output:
        # The signal came before it had begun to listen.
        return _STOPPED
    if found is not None:
        return _failed(found.reason, found.message)
    if code == _DISK_FULL:
        return _failed(FailureReason.DISK_FULL, "Cannot write an output: the disk is full. Try freeing space.")
    if code in _CRASHES:
        message = f"Cannot go on: ffmpeg crashed with {_CRASHES[code]}. Try another device, or another ffmpeg."
        return _failed(FailureReason.FFMPEG_CRASHED, message)
    if code == _INTERRUPTED:
        return _failed(FailureReason.KILLED, _SIGNALLED_BY_OTHERS)
    error = find_first_error(log_tail) or f"it ended with exit code {code} and gave no reason"
    return _failed(FailureReason.FFMPEG_FAILED, f"Cannot run the session: {error}. Try the log for more.")


def _ended_in_order(
    code: int, found: Finding | None, log_tail: Sequence[str], made_output: bool, *, published: bool, stopping: bool
) -> Outcome:
    if found is not None and found.reason in _OUTPUT_REASONS:
        return _failed(found.reason, found.message)
    if stopping:
        return _STOPPED if code == _INTERRUPTED or not made_output else _COMPLETED
    if not made_output:
        if found is not None:
            return _failed(found.reason, found.message)
        return _failed(FailureReason.NO_OUTPUT, _NOTHING_MADE)
    lost = find_input_end(log_tail, published=published)
    if lost is not None:
        return _failed(lost.reason, lost.message)
    return _COMPLETED


def _failed(reason: FailureReason, message: str) -> Outcome:
    return Outcome(kind=ExitOutcome.FAILED, failure_reason=reason, message=message)


_COMPLETED = Outcome(kind=ExitOutcome.COMPLETED, message="All done.")
_STOPPED = Outcome(kind=ExitOutcome.STOPPED, message="Ended by a stop; what was made until then is complete.")

_UNSEEN = (
    "Cannot tell how ffmpeg ended: nobody was there to see it, as after a power cut. Try the session again; "
    "its files may be incomplete."
)
_KILLED_BY_US = (
    "Cannot complete the outputs: ffmpeg did not end in time after the stop and was killed. Try the session again; "
    "its files may be incomplete."
)
_KILLED_BY_OTHERS = (
    "Cannot go on: ffmpeg was killed, by the kernel for want of memory or by somebody. Try the kernel's log, and fewer "
    "or smaller renditions."
)
_SIGNALLED_BY_OTHERS = (
    "Cannot go on: ffmpeg was ended by a signal that this agent did not send. Try finding out who ends processes here."
)
_NOTHING_MADE = (
    "Cannot make anything of the input: ffmpeg read it to its end and found no frame. Try a smaller start offset, or "
    "check the input."
)
