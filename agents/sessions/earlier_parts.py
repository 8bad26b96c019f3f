"""What earlier attempts have written of files: where it is found, and what is told when it is not to be had."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.parts import PartNumber
from agents.sessions.attempt import Condition
from agents.sessions.continuation import part_place, parts_of
from agents.sessions.left_behind import left_by
from agents.sessions.private_files import find_private, private_folder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from agents.pipelines.command import FileParts
    from agents.sessions.folder import AttemptFolder

PARTS_MISSING = "PARTS_MISSING"
"""Condition of an attempt that has ended without what earlier ones may have made."""
_LOG = logging.getLogger(__name__)


def earlier_parts(file: FileParts, folder: AttemptFolder) -> tuple[tuple[PartNumber, str], ...]:
    """Lists what earlier attempts have written of a file, in order. Blocks for the disk.

    Args:
        file: The file.
        folder: The folder of the attempt that goes on, which has taken over what they made.
    """
    found = {number: str(path) for number, path in parts_of(part_place(file, folder.artifacts))}
    known = {number.attempt for number in found}
    for earlier in range(1, folder.key.attempt):
        try:
            part = None if earlier in known else _private_part(file, folder, earlier)
        except OSError as error:
            _LOG.warning("Left what attempt %d of %s has made of %s: %s", earlier, folder.key, file.output, error)
            continue
        if part is not None:
            found[PartNumber(attempt=earlier)] = part
    return tuple((number, found[number]) for number in sorted(found) if number.attempt < folder.key.attempt)


def parts_missing(
    files: Sequence[FileParts], folder: AttemptFolder, now: datetime, *, leaves_artifacts: bool
) -> tuple[Condition, ...]:
    """Tells of what attempts may have made that is not in the outputs. Blocks for the disk.

    Args:
        files: The files of the attempt, with their moves as they were looked up.
        folder: Its folder.
        now: The time.
        leaves_artifacts: Whether anything of it is in the folders of attempts.
    """
    told = list(left_by(folder)) if leaves_artifacts else []
    for file in files:
        for attempt in range(1, folder.key.attempt + 1):
            try:
                _private_part(file, folder, attempt)
            except OSError as error:
                place = private_folder(file.final_path, folder.key.session, attempt)
                told.append(f"attempt {attempt}: {place} is not what it made, or not private: {error.strerror}")
    message = f"The outputs may lack what was left where it is: {'; '.join(dict.fromkeys(told))}."
    return (Condition(type=PARTS_MISSING, message=message, since_time=now),) if told else ()


def _private_part(file: FileParts, folder: AttemptFolder, attempt: int) -> str | None:
    """Gives what an attempt has written of a file under the output roots.

    Raises:
        OSError: When something that is not ours is at its place.
    """
    if file.move is None:
        return None
    private = private_folder(file.move.final_path, folder.key.session, attempt)
    # What it wrote, rather than what it was joining when it was killed.
    names = (Path(file.own_path).name, Path(file.made_path).name)
    return find_private(names, private, file.move.folder)
