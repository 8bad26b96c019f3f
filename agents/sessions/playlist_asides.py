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
from agents.sessions.output_folders import is_mark, presentation_mark

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


def forget_asides(presentations: Sequence[HlsPresentation], session: str) -> None:
    """Removes what a deleted session could not take away, on a full disk for instance. Blocks for the disk.

    Where another session goes on by now it is left alone, as is what the disk refuses.

    Args:
        presentations: Of one of its attempts.
        session: The session.
    """
    for presentation in presentations:
        with contextlib.suppress(OSError):
            with _opened(presentation.folder) as folder:
                foreign = _is_marked_by_another(folder, session)
            if not foreign:
                remove_asides(presentation)


def _is_marked_by_another(folder: int, session: str) -> bool:
    own = presentation_mark(session)
    return any(is_mark(name) and name != own for name in os.listdir(folder))


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
