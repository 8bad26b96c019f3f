"""Files under the output roots that an attempt has put in place, as it noted them: what a later one may take back.

A name alone would not do: by then another file may have it. So the file is noted by device and inode before it gets
its name, and is taken back only while it is still that one.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from agents.pipelines.command import OutputMove
from agents.sessions.output_folders import make_private_folder, open_folder, open_private_folder
from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.sessions.folder import AttemptFolder

_FILE = "placed.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    move: OutputMove
    device: int
    inode: int


_PLACED = TypeAdapter(tuple[_Placed, ...])


def note_placed(folder: AttemptFolder, moves: Sequence[OutputMove]) -> None:
    """Notes files that are about to get their names. May be repeated.

    Raises:
        OSError: When the disk is full or refuses.
    """
    noted = [*_noted(folder)]
    for move in moves:
        part = Path(move.part_path)
        with (
            contextlib.suppress(OSError),
            open_folder(move.folder) as parent,
            open_private_folder(parent, part.parent.name) as private,
        ):
            found = os.stat(part.name, dir_fd=private, follow_symlinks=False)
            noted.append(_Placed(move=move, device=found.st_dev, inode=found.st_ino))
    if noted:
        write_durably(folder.path / _FILE, _PLACED.dump_json(tuple(noted)))


def is_placed(folder: AttemptFolder, move: OutputMove) -> bool:
    """Tells whether a file of an attempt stands where it was asked for."""
    with contextlib.suppress(OSError):
        found = Path(move.final_path).lstat()
        noted = [one for one in _noted(folder) if one.move.final_path == move.final_path]
        return any((one.device, one.inode) == (found.st_dev, found.st_ino) for one in noted)
    return False


def take_back(folder: AttemptFolder) -> None:
    """Gives files of an ended attempt their unfinished names again, unless others stand there now. May be repeated.

    Raises:
        OSError: When the disk refuses.
    """
    for placed in _noted(folder):
        part, final = Path(placed.move.part_path), Path(placed.move.final_path)
        with contextlib.suppress(FileNotFoundError), open_folder(placed.move.folder) as parent:
            found = os.stat(final.name, dir_fd=parent, follow_symlinks=False)
            if (found.st_dev, found.st_ino) != (placed.device, placed.inode):
                continue
            make_private_folder(parent, part.parent.name)
            with open_private_folder(parent, part.parent.name) as private:
                if _is_same(found, part.name, private):
                    # Renaming one name of a file to another of its names does nothing.
                    os.unlink(final.name, dir_fd=parent)
                else:
                    os.rename(final.name, part.name, src_dir_fd=parent, dst_dir_fd=private)
                os.fsync(private)
                os.fsync(parent)


def _is_same(file: os.stat_result, name: str, folder: int) -> bool:
    try:
        other = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return (file.st_dev, file.st_ino) == (other.st_dev, other.st_ino)


def _noted(folder: AttemptFolder) -> tuple[_Placed, ...]:
    try:
        return _PLACED.validate_json((folder.path / _FILE).read_bytes())
    except (FileNotFoundError, ValidationError):
        return ()
