"""Puts complete files under the names that were asked for, over nobody's file unless that was asked for.

Moving is repeatable: an agent that is killed in the middle has a successor that does it again. So a file gets its
final name as a second hard link, which fails when the name is taken (checking first would race), and loses its first
name only when the end of the attempt is written down. Where there are no hard links, renameat2 with RENAME_NOREPLACE
does it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.runtime.durable_file import flush_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.pipelines.command import OutputMove

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES)

_libc = ctypes.CDLL(None, use_errno=True)


class OutputMoveError(Exception):
    """A complete file could not get its name; it still stands at its part path."""

    def __init__(self, message: str, *, taken: bool) -> None:
        super().__init__(message)
        self.taken = taken
        """Whether the name belongs to another file."""


def place_outputs(moves: Sequence[OutputMove], *, all_made: bool) -> None:
    """Gives each complete file its final name, durably. May be repeated.

    Args:
        moves: What to move, in order.
        all_made: Whether every file must be there. False: one that was not begun when the program was stopped is left
            out.

    Raises:
        OutputMoveError: When a name is taken or the file is missing. Files before it have their names already.
    """
    for move in moves:
        part, final = Path(move.part_path), Path(move.final_path)
        if not all_made and _is_empty(part):
            continue
        try:
            _place(part, final, overwrite=move.overwrite)
            flush_folder(final.parent)
        except FileExistsError:
            message = (
                f"Cannot write {final}: another file has taken the name meanwhile. What was made is kept as {part}. "
                "Try another path, or overwrite."
            )
            raise OutputMoveError(message, taken=True) from None
        except OSError as error:
            message = f"Cannot write {final}: {error.strerror}. What was made is kept as {part}."
            raise OutputMoveError(message, taken=False) from error


def forget_parts(moves: Sequence[OutputMove]) -> None:
    """Takes away the first names of files that have their final ones, once the end is written down."""
    for move in moves:
        with contextlib.suppress(OSError):
            if Path(move.part_path).samefile(move.final_path):
                Path(move.part_path).unlink()


def remove_parts(moves: Sequence[OutputMove], *, only_empty: bool) -> None:
    """Removes what an attempt left unfinished.

    Args:
        moves: The attempt's moves.
        only_empty: Keeps files that hold something: a recording cut short is better than none.
    """
    for move in moves:
        part = Path(move.part_path)
        with contextlib.suppress(OSError):
            if not only_empty or part.stat().st_size == 0:
                part.unlink()


def _place(part: Path, final: Path, *, overwrite: bool) -> None:
    if final.exists() and (not part.exists() or part.samefile(final)):
        # Done by a predecessor. A missing part cannot mean a failed attempt: only completed ones are moved.
        return
    with part.open("rb") as file:
        os.fsync(file.fileno())
    if overwrite:
        part.replace(final)
        return
    try:
        os.link(part, final)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_without_replacing(part, final)


def _is_empty(part: Path) -> bool:
    try:
        return part.stat().st_size == 0
    except FileNotFoundError:
        return True


def _rename_without_replacing(part: Path, final: Path) -> None:
    result = _libc.renameat2(_AT_FDCWD, os.fsencode(part), _AT_FDCWD, os.fsencode(final), _RENAME_NOREPLACE)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(part), None, str(final))
