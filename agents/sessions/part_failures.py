"""Why files are not what, or where, they were asked to be, when takes or attempts were to be joined to them."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agents.sessions.attempt import Condition, Failure
from agents.sessions.join_scratch import RoomError
from agents.sessions.output_moves import unfinished_parts
from agents.sessions.private_files import is_private

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agents.pipelines.recording_files import FinishStep
    from agents.sessions.records import LaunchRecord

UNFINISHED_FILES = "UNFINISHED_FILES"
"""Condition of an attempt that failed with files that have no name."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


def not_joined(output: str, error: OSError, kept: Sequence[str]) -> Failure:
    """Makes the failure of a file in whose place its takes stand.

    Args:
        output: Id of the output.
        error: Why it could not be made.
        kept: Where its takes are: inside the artifacts, or by their absolute paths.
    """
    full = error.errno in _FULL
    why = "the disk is full" if full and not isinstance(error, RoomError) else f"{error.strerror}"
    told = ", ".join(kept) or "nothing"
    return Failure(
        reason="DISK_FULL" if full else "OUTPUT_UNWRITABLE",
        message=f"Cannot finish {output}: {why}. What was made of it is kept, as it was written: {told}. "
        f"Try to {'free space, and ' if full else ''}join it by hand.",
    )


def not_placed(message: str, *, taken: bool) -> Failure:
    """Makes the failure of a file that could not get its name.

    Args:
        message: For people.
        taken: Whether another file has the name.
    """
    return Failure(reason="OUTPUT_EXISTS" if taken else "OUTPUT_UNWRITABLE", message=message)


def not_placed_at_all(error: OSError, kept: Sequence[str]) -> Failure:
    """Makes the failure of files of which none could be put in place.

    Args:
        error: Why not.
        kept: Absolute paths of what was made.
    """
    message = f"Cannot put files in place: {error.strerror}. What was made is kept as {', '.join(kept)}."
    return not_placed(message, taken=False)


def not_described(told: str, error: OSError) -> Failure:
    """Makes the failure of an artifact that was finished and cannot be read any more.

    Args:
        told: What the report would call it.
        error: Why not.
    """
    message = f"Cannot read {told}, which was finished: {error.strerror}. Try to keep others out of the state folder."
    return not_placed(message, taken=False)


def together(failures: Sequence[Failure]) -> Failure | None:
    """Makes one failure of several, which tells of all files: the first one's, with the messages of all.

    None: there are none.
    """
    if not failures:
        return None
    message = failures[0].message
    for failure in failures[1:]:
        if failure.message not in message:  # Outputs may be finished again, by the next agent.
            message = f"{message} {failure.message}"
    return replace(failures[0], message=message)


def unfinished_files(launch: LaunchRecord, now: datetime) -> tuple[Condition, ...]:
    """Tells of files that get no name, which stands for what is complete. Blocks for the disk."""
    kept = unfinished_parts(launch.every_move)
    message = f"Not finished, and kept under hidden names until the session is deleted: {', '.join(kept)}."
    return (Condition(type=UNFINISHED_FILES, message=message, since_time=now),) if kept else ()


def in_parts(steps: Sequence[FinishStep], now: datetime) -> tuple[Condition, ...]:
    """Tells of files that stay in parts, and of parts that are not in them."""
    told = [
        f"{output}: {', '.join(Path(step.final_path).name for step in steps if step.output == output)}"
        for output in dict.fromkeys(step.output for step in steps if not step.whole)
    ]
    left_out = [path if is_private(path, step.move) else Path(path).name for step in steps for path in step.left_out]
    why = "because attempts encoded them differently, or that could not be told"
    sentences = [f"Files stay in parts, in this order, {why}: {'; '.join(told)}."] if told else []
    sentences += [f"Left out and kept, as no player can show it: {', '.join(left_out)}."] if left_out else []
    return (Condition(type="IN_PARTS", message=" ".join(sentences), since_time=now),) if sentences else ()
