"""Files in the private folders beside outputs, reached so that neither a link nor a swapped folder leads elsewhere.

Whoever may rename in the folder of an output can have a path through a private folder lead anywhere. So a path is but
a name here: the folder that was noted is opened, the private one in it without following a link, and the file in that
one; all must be ours. A program is given the open file itself, which nobody can swap, rather than its path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from agents.sessions.output_folders import make_private_folder, open_folder, open_private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agents.pipelines.command import OutputFolder, OutputMove

_NAME = ".gpu-balancer-"
_OPENED = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
"""Not to wait for somebody at the other end of a pipe."""
_FILE_MODE = 0o666
"""As ffmpeg would make it, less the umask: it becomes an output. Until then its folder keeps others out."""


def private_folder(final_path: str, session: str, attempt: int) -> Path:
    """Gives the path of the private folder in which an attempt writes a file.

    Args:
        final_path: Of the file.
        session: Whose.
        attempt: Which attempt of it.
    """
    return Path(final_path).with_name(f"{_NAME}{session}-{attempt}")


def is_private(path: str, move: OutputMove | None) -> bool:
    """Tells whether a file is in a private folder beside the place that a move leads to."""
    folder = Path(path).parent
    return move is not None and folder.name.startswith(_NAME) and folder.parent == Path(move.final_path).parent


def find_private(names: Sequence[str], private: Path, folder: OutputFolder | None) -> str | None:
    """Finds the first of some files that is there. Blocks for the disk.

    Args:
        names: Of the files.
        private: Path of the private folder.
        folder: The folder that it stands in, as it was noted.

    Returns:
        Its path. None: there is none of them.

    Raises:
        OSError: When a link, or something that is not ours, is at its place, or at the place of the private folder.
    """
    try:
        with open_folder(folder) as parent, open_private_folder(parent, private.name) as opened:
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    _require_ours(os.stat(name, dir_fd=opened, follow_symlinks=False), name)
                    return str(private / name)
    except FileNotFoundError:
        pass
    return None


def is_readable(path: str, move: OutputMove | None) -> bool:
    """Tells whether there is a file, and if in a private folder, whether it is ours. Blocks for the disk."""
    if not is_private(path, move):
        return Path(path).is_file()
    try:
        with lent((path,), move):
            return True
    except OSError:
        return False


@contextlib.contextmanager
def lent(read: Sequence[str], move: OutputMove | None, *, written: str | None = None) -> Iterator[Mapping[str, int]]:
    """Opens those of some files that are private, for a program that is to read or write them.

    Args:
        read: Absolute paths of files that it reads.
        move: Tells which of them are private.
        written: Absolute path of a file that it makes. None: it makes none of these.

    Returns:
        Descriptors by path, for `by_descriptor`. The program must inherit them.

    Raises:
        OSError: When one is not there, or is not ours.
    """
    with contextlib.ExitStack() as stack:
        found = {}
        for path in read:
            if move is not None and is_private(path, move):
                found[path] = stack.enter_context(_opened(path, move.folder, os.O_RDONLY))
        if written is not None and move is not None and is_private(written, move):
            found[written] = stack.enter_context(_opened(written, move.folder, os.O_RDWR | os.O_CREAT))
        yield found


def by_descriptor(command: Sequence[str], held: Mapping[str, int]) -> tuple[str, ...]:
    """Gives an ffmpeg command that uses open files in place of their paths."""
    places = {f"file:{path}": f"file:/proc/self/fd/{descriptor}" for path, descriptor in held.items()}
    return tuple(places.get(argument, argument) for argument in command)


def remove_private(path: str, folder: OutputFolder | None) -> None:
    """Removes a private file, and its folder once that is empty. Blocks for the disk; may be repeated.

    Raises:
        OSError: When a link, or something that is not ours, is at the place of the folder.
    """
    private = Path(path).parent.name
    with contextlib.suppress(FileNotFoundError), open_folder(folder) as parent:
        with contextlib.suppress(FileNotFoundError), open_private_folder(parent, private) as opened:
            os.unlink(Path(path).name, dir_fd=opened)
        with contextlib.suppress(OSError):
            os.rmdir(private, dir_fd=parent)


@contextlib.contextmanager
def _opened(path: str, folder: OutputFolder | None, flags: int) -> Iterator[int]:
    private, name = Path(path).parent.name, Path(path).name
    with open_folder(folder) as parent:
        if flags & os.O_CREAT:
            # An earlier end has removed it when it was empty.
            make_private_folder(parent, private)
        with open_private_folder(parent, private) as opened:
            descriptor = os.open(name, flags | _OPENED, _FILE_MODE, dir_fd=opened)
    try:
        _require_ours(os.fstat(descriptor), name)
        yield descriptor
    finally:
        os.close(descriptor)


def _require_ours(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
        raise OSError(errno.EPERM, "the unfinished file was replaced by something that is no file of this daemon", name)
