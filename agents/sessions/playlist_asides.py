"""What continuing attempts write beside the playlists that players read, and that goes once nothing goes on with it.

It may only go when the playlists that players read say that they have ended: they are then whole, and are never made
anew from the rest (see `live_playlists`). Folders are opened by links that are not followed: a name may lead elsewhere
by the end.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from agents.pipelines.hls import is_aside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.pipelines.command import HlsPresentation

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_asides(presentation: HlsPresentation) -> None:
    """Removes it. Blocks for the disk; may be repeated.

    Raises:
        OSError: When the disk refuses, or something else stands at a folder's place by now.
    """
    with contextlib.suppress(FileNotFoundError), _opened(presentation.folder) as folder:
        _remove(folder)
        for name in presentation.variants:
            with contextlib.suppress(FileNotFoundError), _opened(name, dir_fd=folder) as variant:
                _remove(variant)


def _remove(folder: int) -> None:
    for name in os.listdir(folder):
        if is_aside(name) and stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _opened(path: str, *, dir_fd: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
