"""Puts complete files under the names that were asked for, over nobody's file unless that was asked for.

Moving is repeatable: an agent that is killed in the middle has a successor that does it again. So a file gets its
final name as a second hard link, which fails when the name is taken (checking first would race), and loses its first
name only when the end of the attempt is written down. Where there are no hard links, renameat2 with RENAME_NOREPLACE
does it. Folders are opened once and checked to be the ones of the start, and names are looked up in them without
following links.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.sessions.output_folders import open_folder, open_private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader

    from agents.pipelines.command import OutputMove

_RENAME_NOREPLACE = 1
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Neither through a link, nor waiting for somebody at the other end of a pipe."""
_NO_FILES = (errno.ELOOP, errno.ENXIO)
"""What opening a link, or a socket, is answered."""
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
        try:
            with _opened(move) as place:
                if all_made or not _is_empty(place):
                    _place(place, overwrite=move.overwrite)
                os.fsync(place.parent)
        except FileExistsError:
            message = (
                f"Cannot write {move.final_path}: another file has taken the name meanwhile. What was made is kept as "
                f"{move.part_path}. Try another path, or overwrite."
            )
            raise OutputMoveError(message, taken=True) from None
        except OSError as error:
            message = (
                f"Cannot write {move.final_path}: {error.strerror}. What was made is kept as {move.part_path}. "
                "Try a folder that nobody else changes."
            )
            raise OutputMoveError(message, taken=False) from error


@contextlib.contextmanager
def open_output(move: OutputMove) -> Iterator[BufferedReader]:
    """Opens a file that has got its name, to be read. Blocks for the disk alone.

    Raises:
        OutputMoveError: When it does not stand there any more, because somebody else has changed the folder.
        OSError: When it stands there and cannot be opened.
    """
    advice = "Try a folder that nobody else changes."
    with contextlib.ExitStack() as stack:
        try:
            place = stack.enter_context(_opened(move))
        except OSError as error:
            message = f"Cannot keep {move.final_path}: {error.strerror}. {advice}"
            raise OutputMoveError(message, taken=False) from error
        kept = "" if _part_status(place) is None else f" What was made is kept as {move.part_path}."
        begun = f"Cannot keep {move.final_path}: somebody has"
        swapped = OutputMoveError(f"{begun} put something else there.{kept} {advice}", taken=True)
        try:
            descriptor = os.open(place.final, _READ, dir_fd=place.parent)
        except FileNotFoundError:
            raise OutputMoveError(f"{begun} taken it away.{kept} {advice}", taken=False) from None
        except OSError as error:
            if error.errno in _NO_FILES:
                raise swapped from None
            raise
        with os.fdopen(descriptor, "rb") as file:
            if not _is_output(os.fstat(descriptor), place):
                raise swapped
            yield file


def forget_parts(moves: Sequence[OutputMove]) -> None:
    """Takes away the first names of files that have their final ones, once the end is written down."""
    for move in moves:
        with contextlib.suppress(OSError), _opened(move) as place:
            if _is_placed(place):
                os.unlink(place.part, dir_fd=place.private)
    _remove_private_folders(moves)


def remove_parts(moves: Sequence[OutputMove], *, only_empty: bool) -> None:
    """Removes what an attempt left unfinished, and private folders that are empty.

    Args:
        moves: The attempt's moves.
        only_empty: Keeps files that hold something: a recording cut short is better than none.
    """
    for move in moves:
        with contextlib.suppress(OSError), _opened(move) as place:
            if not only_empty or _is_empty(place):
                os.unlink(place.part, dir_fd=place.private)
    _remove_private_folders(moves)


def unfinished_parts(moves: Sequence[OutputMove]) -> list[str]:
    """Gives the paths of files that hold something and have not got their names. Blocks for the disk."""
    kept = []
    for move in moves:
        with contextlib.suppress(OSError), _opened(move) as place:
            if not _is_empty(place) and not _is_placed(place):
                kept.append(move.part_path)
    return kept


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a file is and where it goes, as open folders: their paths may lead elsewhere by now."""

    parent: int
    final: str
    private: int | None
    """None: a predecessor has removed it."""
    part: str


@contextlib.contextmanager
def _opened(move: OutputMove) -> Iterator[_Place]:
    part, final = Path(move.part_path), Path(move.final_path)
    with contextlib.ExitStack() as stack:
        parent = stack.enter_context(open_folder(move.folder))
        private = None
        with contextlib.suppress(FileNotFoundError):
            private = stack.enter_context(open_private_folder(parent, part.parent.name))
        yield _Place(parent=parent, final=final.name, private=private, part=part.name)


def _remove_private_folders(moves: Sequence[OutputMove]) -> None:
    for move in moves:
        with contextlib.suppress(OSError), open_folder(move.folder) as parent:
            os.rmdir(Path(move.part_path).parent.name, dir_fd=parent)


def _place(place: _Place, *, overwrite: bool) -> None:
    if _is_placed(place):
        return
    if place.private is None:
        raise FileNotFoundError(errno.ENOENT, "the folder of the unfinished file is gone")
    _flush_own_file(place.part, place.private)
    if overwrite:
        os.replace(place.part, place.final, src_dir_fd=place.private, dst_dir_fd=place.parent)
        return
    try:
        os.link(place.part, place.final, src_dir_fd=place.private, dst_dir_fd=place.parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_without_replacing(place.private, place.part, place.parent, place.final)


def _is_placed(place: _Place) -> bool:
    """Tells whether a predecessor has done it. A failed attempt's part is never moved."""
    final = _status(place.final, place.parent)
    return final is not None and _is_output(final, place)


def _is_output(final: os.stat_result, place: _Place) -> bool:
    part = _part_status(place)
    return _is_own_file(final) and (part is None or (part.st_dev, part.st_ino) == (final.st_dev, final.st_ino))


def _flush_own_file(name: str, folder: int) -> None:
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not _is_own_file(status):
        raise OSError(errno.EPERM, "the unfinished file was replaced by something that is no file of this daemon", name)
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_own_file(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _is_empty(place: _Place) -> bool:
    part = _part_status(place)
    return part is None or (stat.S_ISREG(part.st_mode) and part.st_size == 0)


def _part_status(place: _Place) -> os.stat_result | None:
    return None if place.private is None else _status(place.part, place.private)


def _status(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _rename_without_replacing(part_folder: int, part: str, final_folder: int, final: str) -> None:
    result = _libc.renameat2(part_folder, os.fsencode(part), final_folder, os.fsencode(final), _RENAME_NOREPLACE)
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), part, None, final)
