"""What joining takes besides the pieces: room, and copies that nobody needs afterwards, on the disk of the file itself.

The disk of the state folder may be small where the one that outputs go to is large. So copies for a file under the
output roots are made beside it, as files without a name: nothing of them is left, however the joining ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.recording_files import concat_list
from agents.sessions.output_folders import make_private_folder, open_folder, open_private_folder
from gpu_balancer.runtime.disk_room import measure_room

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agents.pipelines.recording_files import FinishStep

_MIB = 1024 * 1024
_KEPT_BYTES = 256 * _MIB
_KEPT_SHARE = 50
"""Others write to the disk meanwhile: as much again is left to them as is taken, but 256 MiB or a fiftieth at most."""
_NO_NAMELESS = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


class RoomError(OSError):
    """A disk has not the room that joining takes. `strerror` says how much that is."""


def require_room(step: FinishStep, copies: Mapping[str, int]) -> None:
    """Sees to it that what a joining writes fits on the disks it goes to, before anything is written.

    Blocks for the disk.

    Args:
        step: The joining.
        copies: Of `nameless_copies`.

    Raises:
        RoomError: When it does not fit.
        OSError: When a disk cannot be looked at.
    """
    needed_bytes = sum(Path(take).stat().st_size for take in step.takes)
    places = [_folder_of(step.made_path)]
    if step.copies:
        places.append(places[0] if copies else _folder_of(step.copies[0]))
    devices = Counter(place.stat().st_dev for place in places)
    for place in places:
        room = measure_room(place)
        asked = needed_bytes * devices[place.stat().st_dev]
        left = room.free_bytes - min(asked, _KEPT_BYTES, room.size_bytes // _KEPT_SHARE)
        if asked > left:
            told = f"the disk has no room for it: it takes {asked // _MIB} MiB, and {max(left, 0) // _MIB} are free"
            raise RoomError(errno.ENOSPC, told, step.final_path)


@contextlib.contextmanager
def nameless_copies(step: FinishStep) -> Iterator[dict[str, int]]:
    """Opens files without names for the copies of a file under the output roots. Blocks for the disk.

    Yields:
        Their descriptors by the paths of the copies. None where they have names: of an artifact, and on file systems
        that know no others.

    Raises:
        OSError: When the private folder is not ours, or the disk refuses.
    """
    with contextlib.ExitStack() as stack:
        yield {} if step.move is None else _opened_copies(step, stack)


def scratch_texts(step: FinishStep, copies: Mapping[str, int]) -> Mapping[str, str]:
    """Gives the texts of a joining, with the places of copies that have no names."""
    if not copies:
        return step.texts
    listed = concat_list([f"/proc/self/fd/{copies[path]}" for path in step.copies])
    return dict.fromkeys(step.texts, listed)


def _opened_copies(step: FinishStep, stack: contextlib.ExitStack) -> dict[str, int]:
    assert step.move is not None
    private = Path(step.made_path).parent.name
    with open_folder(step.move.folder) as parent:
        make_private_folder(parent, private)
        with open_private_folder(parent, private) as folder:
            found = {}
            for path in step.copies:
                try:
                    descriptor = os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=folder)
                except OSError as error:
                    if error.errno in _NO_NAMELESS:
                        return {}
                    raise
                stack.callback(os.close, descriptor)
                found[path] = descriptor
            return found


def _folder_of(path: str) -> Path:
    """Gives the nearest folder of a path that is there."""
    return next(folder for folder in Path(path).parents if folder.exists())
