"""Puts artifacts into the spill folder, from which they are copied when their session is gone.

On one file system that is a second link, which takes no room and no time; across two it is a copy that is flushed and
read back before anybody relies on it. They lie at `{spill_dir}/{session}/{attempt}/{artifact}`: several agents may
share the folder, and several attempts of a session may have left a file of one name.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import TYPE_CHECKING

from agents.deliveries import verified_copy
from agents.deliveries.names import check_session, path_parts
from agents.deliveries.source import Source, look_at
from agents.deliveries.verified_copy import SourceError, folder_below
from gpu_balancer.runtime.durable_file import flush_folder

if TYPE_CHECKING:
    from pathlib import Path


def spill(source: Source, spill_dir: Path, session: str, attempt: int) -> Source:
    """Gives an artifact a place in the spill folder, durably. Blocks for the disk. May be repeated.

    Args:
        source: The artifact; it stays where it is, too.
        spill_dir: The spill folder. It is made when only its last name is missing: more may be a disk not mounted.
        session: Whose artifact.
        attempt: Of which attempt.

    Returns:
        The artifact at its new place.

    Raises:
        SourceLost: When the artifact is gone or was changed.
        OSError: When the spill folder is full or refuses; nothing of this artifact is left there.
    """
    *folders, name = path_parts(source.path)
    with contextlib.suppress(FileExistsError):
        spill_dir.mkdir(mode=0o700)
        flush_folder(spill_dir.parent)
    names = (check_session(session), str(attempt), *folders)
    with source.opened() as file, folder_below(spill_dir, names, mode=0o700) as folder:
        verified_copy.remove(name, folder)
        try:
            # Through the open file: that is the one that was looked at, and no link.
            os.link(f"/proc/self/fd/{file}", name, dst_dir_fd=folder, follow_symlinks=True)
            os.fsync(folder)
        except OSError as error:
            if error.errno not in verified_copy.NO_HARD_LINKS:
                raise
            _copy(source, file, name, folder, attempt)
    return look_at(spill_dir / session / str(attempt), source.path)


def remove_spilled(source: Source) -> None:
    """Removes an artifact from the spill folder, and its folders there that are empty then.

    Raises:
        OSError: When the disk refuses.
    """
    place = source.folder / source.path
    place.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        # Up to the session's folder, which is the attempt's parent.
        for folder in place.parents:
            folder.rmdir()
            if folder == source.folder.parent:
                break


def _copy(source: Source, file: int, name: str, folder: int, attempt: int) -> None:
    unfinished = verified_copy.unfinished_name(name, attempt)
    try:
        verified_copy.write_copy(source, file, unfinished, folder, called_off=threading.Event())
    except SourceError as error:
        raise error.cause from None
    verified_copy.give_name(unfinished, name, folder)
