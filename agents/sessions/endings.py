"""Decides how an attempt ended, once its processes are gone, and puts its outputs in place.

Called again by a successor when the agent is killed in the middle, it comes to the same end: everything follows from
the folder, and moving files is repeatable.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.exit_classification import ExitOutcome, Outcome, classify_exit
from agents.sessions.attempt import Ending, Failure, StopCause
from agents.sessions.logs import read_tail
from agents.sessions.output_discards import discard_outputs
from agents.sessions.output_moves import OutputMoveError, forget_parts, place_outputs, remove_parts
from agents.sessions.part_failures import together, unfinished_files
from agents.sessions.placed_files import note_placed

if TYPE_CHECKING:
    from datetime import datetime

    from agents.sessions.attempt import AttemptStatus, Condition
    from agents.sessions.fence import FencedError
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import AnyRecord, LaunchRecord
    from gpu_balancer.runtime.redaction import Redactor

_CAUSES = {
    StopCause.NO_PUBLISHER: (
        "NO_PUBLISHER",
        (
            "Cannot transcode: nobody published in time. Try publishing to the session's ingest_url, or a longer "
            "publisher_timeout."
        ),
    ),
    StopCause.WRONG_STREAM_KEY: (
        "WRONG_STREAM_KEY",
        "Cannot transcode: the publisher used another stream key. Try the session's ingest_url as it is.",
    ),
    StopCause.NO_FIRST_FRAME: (
        "NO_FIRST_FRAME",
        (
            "Cannot transcode: no frame was written in time. Try the input in another player, or a longer "
            "first_frame_timeout_s in [inputs]."
        ),
    ),
    StopCause.STALLED: (
        "STALLED",
        (
            "Cannot go on: no frame was written for too long, so the program was ended; what was made until then is "
            "kept. Try whether the input still delivers, or a longer stalled_timeout_s in [sessions]."
        ),
    ),
    StopCause.OUTPUT_STALLED: (
        "OUTPUT_STALLED",
        (
            "Cannot go on: an output has taken nothing for too long, so the program was ended; what was made until "
            "then is kept. Try whether the server that is pushed to reads, and whether the disk answers."
        ),
    ),
    StopCause.DISK_FULL: (
        "DISK_FULL",
        (
            "Cannot write an output: the disk is full. What was made until then is kept. Try freeing space, or an "
            "output elsewhere."
        ),
    ),
    StopCause.DISK_LOW: (
        "DISK_LOW",
        (
            "Cannot go on: hardly any room is left on the disk, so the session was ended while its outputs could be "
            "completed. Try deleting sessions, or freeing space; [disk] least_mib says how much is kept free."
        ),
    ),
    StopCause.SHIM_LOST: (
        "SHIM_LOST",
        (
            "Cannot tell how the program would have ended: the shim that watches it was killed, so it was stopped. Try "
            "again; see the kernel's log for the out-of-memory killer."
        ),
    ),
}
_CLASSIFIED_LINES = 200
_INTERRUPTED = (
    "LAUNCH_INTERRUPTED",
    "Cannot run: the agent ended while it was starting the session; nothing was run. Try again.",
)
_UNSEEN = (
    "PROCESS_LOST",
    "Cannot tell how the program ended: it went away without a trace, as when the machine goes down. Try again.",
)
_DAMAGED = (
    "RECORD_DAMAGED",
    (
        "Cannot go on: what the agent wrote down of the session cannot be read any more, so whatever still ran of it "
        "was ended. Try again, and see whether the disk of the state folder works."
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """How an attempt ended."""

    ending: Ending
    failure: Failure | None = None
    conditions: tuple[Condition, ...] = ()
    """What is to be known of its outputs."""


def conclude(
    folder: AttemptFolder, launch: LaunchRecord, status: AttemptStatus, *, redactor: Redactor, log_tail_lines: int
) -> Conclusion:
    """Decides how an attempt ended and gives complete outputs their names. Blocks for the disk; may be repeated.

    Whoever calls this holds the fence, until the end is told and outputs are tidied up.

    Args:
        folder: The attempt's folder.
        launch: How it was launched.
        status: What is known of it.
        redactor: Hides secrets in the log's tail.
        log_tail_lines: How many last lines a failure carries.
    """
    judged = judge(folder, launch, status, redactor=redactor, log_tail_lines=log_tail_lines)
    if status.discard_outputs:
        discard_outputs(folder, launch)
    elif judged.ending is not Ending.FAILED and not launch.files:
        # What is joined is made first: what there is of it now, a joining that was killed has left.
        try:
            note_placed(folder, launch.output_moves)
            place_outputs(launch.output_moves, all_made=status.stop_cause is None)
        except (OutputMoveError, OSError) as error:
            taken = isinstance(error, OutputMoveError) and error.taken
            code = folder.exit_code()
            shown = read_tail(folder.log, redactor, log_tail_lines)
            return _failed("OUTPUT_EXISTS" if taken else "OUTPUT_UNWRITABLE", str(error), code, shown)
    return judged


def place_late(folder: AttemptFolder, launch: LaunchRecord, status: AttemptStatus) -> Conclusion:
    """Gives what a failed attempt has made its names after all, as none goes on with it. Blocks; may be repeated.

    What goes on with earlier attempts is joined with them instead.

    Returns:
        How the attempt ended, with what could not be named.
    """
    failures = [] if status.failure is None else [status.failure]
    if not launch.files and status.ending is Ending.FAILED:
        try:
            note_placed(folder, launch.output_moves)
            place_outputs(launch.output_moves, all_made=False)
            tidy_outputs(launch, Ending.STOPPED)
        except (OutputMoveError, OSError) as error:
            failures.append(Failure(reason="OUTPUT_UNWRITABLE", message=str(error)))
    return Conclusion(ending=Ending.FAILED, failure=together(failures), conditions=status.conditions)


def judge(
    folder: AttemptFolder, launch: LaunchRecord, status: AttemptStatus, *, redactor: Redactor, log_tail_lines: int
) -> Conclusion:
    """Decides how the program of an attempt ended, and touches nothing. Blocks for the disk; as `conclude`."""
    if status.discard_outputs:
        # However the program ended: the stop was heard, and nothing of it counts.
        return Conclusion(ending=Ending.STOPPED)
    code = folder.exit_code()
    lines = read_tail(folder.log, redactor, _CLASSIFIED_LINES)
    shown = lines[-log_tail_lines:]
    reason = _known_reason(folder, status, code)
    if reason is not None:
        return _failed(*reason, code, shown)
    outcome = _classified(launch, status, code, lines, redactor)
    if outcome.kind is ExitOutcome.FAILED:
        return _failed(str(outcome.failure_reason), outcome.message, code, shown)
    stopped = outcome.kind is ExitOutcome.STOPPED and status.stop_cause is StopCause.ASKED
    return Conclusion(ending=Ending.STOPPED if stopped else Ending.COMPLETED)


def conclude_damaged(folder: AttemptFolder) -> Conclusion:
    """Gives the end of an attempt whose launch record is lost. No line of its log: secrets in it are not known."""
    return _failed(*_DAMAGED, folder.exit_code(), ())


def conclude_unwatchable(folder: AttemptFolder, fault: Exception) -> Conclusion:
    """Gives the end of an attempt over which the agent cannot watch. What the fault says may be secret."""
    message = (
        f"Cannot go on: the agent has failed over it again and again ({type(fault).__name__}), so whatever still ran "
        "of it was ended. That is a mistake of the agent's, of which its log tells more. Try again."
    )
    return _failed("AGENT_FAULT", message, folder.exit_code(), ())


def conclude_fenced(error: FencedError, launch: LaunchRecord, now: datetime) -> Conclusion:
    """Gives the end of an attempt that may not touch its outputs any more. Blocks for the disk."""
    told = unfinished_files(launch, now) if error.untold else ()
    return Conclusion(ending=Ending.FAILED, failure=fenced(error), conditions=told)


def fenced(error: FencedError) -> Failure:
    """Makes the failure of an attempt that may not touch its outputs any more, or of which nobody can tell."""
    left = "stays as it is, until the session is deleted" if error.untold else "is left as the newer one found it"
    return Failure(reason="FENCED", message=f"{error} What it has made {left}.")


def tidy_outputs(launch: AnyRecord, ending: Ending) -> None:
    """Takes away what is not needed any more, once the end is written down. Unfinished files with content are kept."""
    if ending is not Ending.FAILED:
        forget_parts(launch.output_moves)
    remove_parts(launch.every_move, only_empty=True)


def _known_reason(folder: AttemptFolder, status: AttemptStatus, code: int | None) -> tuple[str, str] | None:
    """Gives reason and message of an end that says nothing by its exit status."""
    if status.stop_cause in _CAUSES:
        return _CAUSES[status.stop_cause]
    if code is None and folder.shim_pid() is None and status.running_time is None:
        return _INTERRUPTED
    if code is None and status.stop_cause is None:
        return _UNSEEN
    return None


def _classified(
    launch: LaunchRecord, status: AttemptStatus, code: int | None, lines: tuple[str, ...], redactor: Redactor
) -> Outcome:
    return classify_exit(
        exit_code=code,
        stopping=status.stop_cause is not None,
        log_tail=lines,
        made_output=has_output(launch, status),
        published=launch.ingest_protocol is not None,
        pushes=launch.pushes,
        input_name=None if launch.input_name is None else redactor.redact(launch.input_name),
    )


def has_output(launch: LaunchRecord, status: AttemptStatus) -> bool:
    """Tells whether an attempt has written its first frame, or for a job without video any sound."""
    progress = status.progress
    if progress is None:
        return False
    return progress.frames > 0 if launch.has_video else progress.out_time > timedelta()


def _failed(reason: str, message: str, code: int | None, log_tail: tuple[str, ...]) -> Conclusion:
    failure = Failure(reason=reason, message=message, exit_code=code, log_tail=log_tail)
    return Conclusion(ending=Ending.FAILED, failure=failure)
