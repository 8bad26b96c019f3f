"""The folder of one take: what its shim and ffmpeg write. It shares the attempt's lock and log, by hard links.

The attempt's lock is that of its display. So everything that belongs to the recording is found by one file, and what
several ffmpegs wrote is read as one log.
"""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from agents.pipelines.outputs import TAKES_FOLDER
from agents.sessions.folder import AttemptFolder
from gpu_balancer.runtime.durable_file import flush_file
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from pathlib import Path

_TAKES = "takes"


def take_folder(attempt: AttemptFolder, number: int) -> AttemptFolder:
    """Gives the folder of a take, which need not exist."""
    return AttemptFolder(path=attempt.path / _TAKES / str(number), key=attempt.key, agent=attempt.agent)


def make_take_folder(attempt: AttemptFolder, number: int) -> AttemptFolder:
    """Makes the folder of a take. One that a predecessor left before it started anything is made anew.

    Raises:
        OSError: When the disk is full or refuses.
    """
    folder = take_folder(attempt, number)
    shutil.rmtree(folder.path, ignore_errors=True)
    folder.create({})
    for name in ("lock", "log"):
        link_over(attempt.path / name, folder.path / name)
    return folder


def remove_take_folders(attempt: AttemptFolder) -> None:
    """Removes the folders of all takes. May be repeated."""
    shutil.rmtree(attempt.path / _TAKES, ignore_errors=True)


def take_outputs(attempt: AttemptFolder, number: int) -> tuple[Path, ...]:
    """Gives the files that a take has written so far."""
    return tuple(sorted((attempt.artifacts / TAKES_FOLDER / str(number)).glob("output-*")))


def flush_take(attempt: AttemptFolder, number: int) -> None:
    """Has the disk keep what a take has written so far. Blocks for it.

    Raises:
        OSError: When the disk refuses.
    """
    for path in take_outputs(attempt, number):
        flush_file(path)


def link_over(source: Path, place: Path) -> None:
    """Makes a place a second name of a file, at once, whatever stood there.

    Raises:
        OSError: When the disk refuses, or both are not on one file system.
    """
    nascent = place.with_name(random_id(".link-"))
    os.link(source, nascent)
    try:
        nascent.replace(place)
    except OSError:
        nascent.unlink(missing_ok=True)
        raise
