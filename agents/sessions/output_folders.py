"""The folders outside of an attempt's own that it writes into, which others may be able to write into as well.

A file is written inside a private folder beside its final name, where nobody else can plant a link, and the folder it
will stand in is remembered by device and inode: a name may lead elsewhere by the time the file is complete.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.command import OutputFolder
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agents.pipelines.command import OutputMove

_MADE = (".m3u8", ".ts", ".m4s", ".mp4", ".vtt", ".tmp")
"""How names of files end that an HLS muxer makes."""
_MARK = ".gpu-balancer-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_PRIVATE_MODE = 0o700
_PRESENTATION_MODE = 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class PresentationFolder:
    """The folder of an HLS presentation outside of the artifacts, as it was before the start: missing, or empty."""

    parent: OutputFolder
    name: str
    inner: tuple[str, ...]
    """Names of the folders in it, one per variant."""
    existed: bool


def outside_of(artifacts: Path, directories: Sequence[str]) -> list[str]:
    """Gives the folders of a command that are not among the attempt's artifacts."""
    return [path for path in directories if not Path(path).is_relative_to(artifacts)]


def look_up_folders(moves: Sequence[OutputMove], roots: Sequence[str]) -> tuple[OutputMove, ...]:
    """Notes which folder each file will stand in, links followed.

    Args:
        moves: As planned.
        roots: Folders under which outputs may be written.

    Returns:
        The moves, each with its folder.

    Raises:
        RequestFailure: OUTPUT_NOT_ALLOWED when a folder is not under the roots.
        OSError: When there is no such folder.
    """
    found = []
    for move in moves:
        with _opened(Path(move.final_path).parent) as parent:
            real = _real_path(parent, move.final_path, roots)
            status = os.fstat(parent)
        found.append(replace(move, folder=OutputFolder(path=real, device=status.st_dev, inode=status.st_ino)))
    return tuple(found)


def look_up_presentations(directories: Sequence[str], roots: Sequence[str]) -> tuple[PresentationFolder, ...]:
    """Notes where HLS presentations will stand, links followed, and which of their folders are there already.

    Args:
        directories: As for `make_presentation_folders`.
        roots: Folders under which outputs may be written.

    Raises:
        RequestFailure: OUTPUT_NOT_ALLOWED when a folder is not under the roots.
        OSError: When there is no such folder.
    """
    found = []
    for top, inner in _presentations(directories):
        name = Path(top).name
        with _opened(Path(top).parent) as parent:
            real = _real_path(parent, top, roots)
            status = os.fstat(parent)
            existed = _is_there(name, parent)
        folder = OutputFolder(path=real, device=status.st_dev, inode=status.st_ino)
        found.append(PresentationFolder(parent=folder, name=name, inner=inner, existed=existed))
    return tuple(found)


def remove_presentation(presentation: PresentationFolder) -> None:
    """Removes what an attempt has made of an HLS presentation. May be repeated.

    A folder that was there before stays, empty; what is of nobody's making here stays too.

    Raises:
        OSError: When something else stands at its place by now, or the disk refuses.
    """
    from agents.media_access.guard import shared_folder_problem

    with open_folder(presentation.parent) as parent:
        try:
            with _opened(presentation.name, os.O_NOFOLLOW, dir_fd=parent) as folder:
                if problem := shared_folder_problem(os.fstat(folder)):
                    raise OSError(errno.EPERM, problem, presentation.name)
                _clear(folder, presentation.inner)
            if not presentation.existed:
                os.rmdir(presentation.name, dir_fd=parent)
        except FileNotFoundError:
            return  # a predecessor has removed it


def unmark_presentations(presentations: Sequence[PresentationFolder], session: str) -> None:
    """Takes a session's marks away: no further attempt will go on there. One that is not there is no mistake."""
    for presentation in presentations:
        _unmark(presentation, session)


def _unmark(presentation: PresentationFolder, session: str) -> None:
    with (
        contextlib.suppress(OSError),
        open_folder(presentation.parent) as parent,
        _opened(presentation.name, os.O_NOFOLLOW, dir_fd=parent) as folder,
    ):
        os.unlink(presentation_mark(session), dir_fd=folder)


def _clear(folder: int, inner: Sequence[str]) -> None:
    """Removes what an attempt has made in the open folder of a presentation, and the folders of its renditions."""
    for name in inner:
        with contextlib.suppress(FileNotFoundError):
            with _opened(name, os.O_NOFOLLOW, dir_fd=folder) as variant:
                _remove_made(variant)
            os.rmdir(name, dir_fd=folder)
    _remove_made(folder)


def _remove_made(folder: int) -> None:
    for name in _names(folder):
        made = name.endswith(_MADE) or name.startswith(_MARK)
        if made and stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=folder)


def _presentations(directories: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Gives the outermost folders, each with the paths of those inside it, relative to it."""
    tops = [
        top for top in directories if not any(Path(top).is_relative_to(other) for other in directories if other != top)
    ]
    return [
        (
            top,
            tuple(
                str(Path(path).relative_to(top))
                for path in directories
                if path != top and Path(path).is_relative_to(top)
            ),
        )
        for top in tops
    ]


def make_private_folders(moves: Sequence[OutputMove]) -> None:
    """Makes the folders in which files are written until they are complete; all of them or none.

    Raises:
        OSError: When one exists already or cannot be made.
    """
    made: list[tuple[OutputFolder | None, str]] = []
    try:
        for folder, name in dict.fromkeys((move.folder, Path(move.part_path).parent.name) for move in moves):
            with open_folder(folder) as parent:
                os.mkdir(name, _PRIVATE_MODE, dir_fd=parent)
                made.append((folder, name))
                with open_private_folder(parent, name):
                    pass  # private indeed, whatever the file system made of the mode
    except OSError:
        for folder, name in made:
            with contextlib.suppress(OSError), open_folder(folder) as parent:
                os.rmdir(name, dir_fd=parent)
        raise


def make_private_folder(parent: int, name: str) -> None:
    """Makes a private folder inside an open one; one that is there is no mistake.

    Raises:
        OSError: When it cannot be made.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, _PRIVATE_MODE, dir_fd=parent)


def presentation_mark(session: str) -> str:
    """Names the empty file in a presentation's folder that tells which session it belongs to."""
    return f"{_MARK}{session}"


def is_mark(name: str) -> bool:
    """Tells whether a file in a presentation's folder is a mark, of whichever session."""
    return name.startswith(_MARK)


def make_presentation_folders(
    directories: Sequence[str], roots: Sequence[str], *, session: str | None = None, continued: bool = False
) -> None:
    """Makes the folders of HLS presentations outside of the artifacts.

    Args:
        directories: Absolute paths, outer ones first.
        roots: Folders under which outputs may be written.
        session: Marks them as this session's, so that a later attempt may go on, or begin anew, in them. None: none
            may.
        continued: Whether it goes on with what earlier attempts of the session have written there. Else that is
            removed.

    Raises:
        RequestFailure: OUTPUT_NOT_ALLOWED when a folder is not under the roots, or others could write into it.
        OSError: When one cannot be made.
    """
    from agents.media_access.guard import shared_folder_problem  # when it is needed: an idle agent stays small

    for top, inner in _presentations(directories):
        with _opened(Path(top).parent) as parent:
            _real_path(parent, top, roots)
            with contextlib.suppress(FileExistsError):
                os.mkdir(Path(top).name, _PRESENTATION_MODE, dir_fd=parent)
            with _opened(Path(top).name, os.O_NOFOLLOW, dir_fd=parent) as folder:
                if problem := shared_folder_problem(os.fstat(folder)):
                    raise _refusal(top, problem)
                names = _names(folder)
                own = session is not None and presentation_mark(session) in names
                if names and not own:
                    raise _refusal(top, "the folder is not empty")
                if own and not continued:
                    # Of an attempt that was lost, or failed: this one begins anew, and holds the fence.
                    _clear(folder, inner)
                if session is not None:
                    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
                    os.close(os.open(presentation_mark(session), flags, 0o600, dir_fd=folder))
                for name in inner:
                    _make_variant(name, folder, continued=continued)


def _make_variant(name: str, folder: int, *, continued: bool) -> None:
    try:
        os.mkdir(name, _PRESENTATION_MODE, dir_fd=folder)
    except FileExistsError:
        if not continued:
            raise
        with _opened(name, os.O_NOFOLLOW, dir_fd=folder):
            pass  # a folder indeed, and no link


@contextlib.contextmanager
def open_folder(folder: OutputFolder | None) -> Iterator[int]:
    """Opens the folder that was noted before the start; gives its descriptor.

    Raises:
        OSError: When something else stands at its place by now.
    """
    if folder is None:
        raise OSError(errno.ESTALE, "its folder was not noted when the session began")
    with _opened(folder.path, os.O_NOFOLLOW) as descriptor:
        status = os.fstat(descriptor)
        noted = (folder.device, folder.inode, folder.path)
        if (status.st_dev, status.st_ino, _path_of(descriptor)) != noted:
            raise OSError(errno.ESTALE, "its folder was replaced by another while the session ran", folder.path)
        yield descriptor


@contextlib.contextmanager
def open_private_folder(parent: int, name: str) -> Iterator[int]:
    """Opens a private folder inside an open one; gives its descriptor.

    Raises:
        OSError: When it is a link, another user's, or open to others.
    """
    with _opened(name, os.O_NOFOLLOW, dir_fd=parent) as descriptor:
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise OSError(errno.EPERM, "the private folder of the unfinished file is not private", name)
        yield descriptor


@contextlib.contextmanager
def _opened(path: Path | str, flags: int = 0, *, dir_fd: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, _FOLDER | flags, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _real_path(folder: int, shown: str, roots: Sequence[str]) -> str:
    from agents.media_access.guard import is_under

    real = _path_of(folder)
    if not is_under(real, roots):
        raise _refusal(shown, "its folder leads outside of the output roots")
    return real


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _names(folder: int) -> list[str]:
    return os.listdir(folder)


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _refusal(path: str, problem: str) -> RequestFailure:
    message = f"Cannot write to {path}: {problem}. Try another folder."
    return RequestFailure(reason=Reason.OUTPUT_NOT_ALLOWED, message=message)
