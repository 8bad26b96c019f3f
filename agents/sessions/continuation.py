"""Takes over what earlier attempts of a session have made, so that this one goes on with it.

Artifacts move from folder to folder by renaming, or as durable copies where that cannot be. Names tell which attempt
a file is from (see `pipelines.parts`), so it does not matter in which folder it lies or how often an agent is killed
in between: whoever takes over next finds the same files, wherever they have come to. Nothing is removed before it is
part of something that is complete. Links are not followed, at its top or below, and a folder is believed to be an
attempt's only when it looks like one of ours in every respect.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agents.lock_holders import is_held
from agents.pipelines.outputs import TAKES_FOLDER
from agents.pipelines.parts import PartNumber, part_name, part_number
from agents.sessions.attempt import AttemptKey
from agents.sessions.custody import note_taker, taker_of
from agents.sessions.folder import AttemptFolder
from agents.sessions.left_behind import note_left
from agents.sessions.placed_files import take_back
from agents.sessions.records import RecordUnreadableError, load_status
from gpu_balancer.runtime.durable_file import flush_folder
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.pipelines.command import FileParts

APART = ("console.log", "failure.png")
"""Artifacts that tell of one attempt alone. Those of earlier ones are kept in folders of theirs."""
_NASCENT = ".copy-"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierAttempt:
    """An attempt that has ended, or counts as lost."""

    attempt: int
    folder: str
    """As its agent told it. Empty: not known."""


def folders_of(earlier: Sequence[EarlierAttempt]) -> tuple[Path, ...]:
    """Gives the folders of earlier attempts that are known."""
    return tuple(Path(one.folder) for one in earlier if one.folder)


def take_over(folder: AttemptFolder, earlier: Sequence[EarlierAttempt], files: Sequence[FileParts]) -> None:
    """Takes over the outputs of earlier attempts, oldest first. Blocks for the disk; may be repeated.

    What cannot be reached stays where it is. What one of them has taken over that nobody knows the folder of is found.

    Args:
        folder: The folder of the attempt that goes on; the fence is held for it.
        earlier: Whose outputs.
        files: The files that both write.

    Raises:
        OSError: When the disk is full or refuses; what was not taken over lies where it was.
    """
    left: list[str] = []
    known = {one.attempt: one for one in earlier}
    try:
        for attempt in range(1, folder.key.attempt):
            if (one := known.get(attempt)) is not None:
                left += [f"attempt {attempt}: {problem}" for problem in _taken_over(one, folder, files, known)]
    except OSError as error:
        left.append(f"not everything could be moved: {error.strerror}")
        raise
    finally:
        note_left(folder, left)


def _taken_over(
    one: EarlierAttempt, folder: AttemptFolder, files: Sequence[FileParts], known: dict[int, EarlierAttempt]
) -> list[str]:
    """Takes over the outputs of one attempt. Gives what it may have made and was left, as sentences.

    Who took over from it before becomes known, too, if only its attempt was.
    """
    key = AttemptKey(session=folder.key.session, attempt=one.attempt)
    if not one.folder:
        # It never told its folder: it has not begun, or what it took over would name it.
        _LOG.debug("Nothing is known of what %s may have made", key)
        return []
    source = AttemptFolder(path=Path(one.folder), key=key)
    if problem := _problem(source):
        _LOG.warning("Left what %s has made where it is: %s: %s", key, problem, one.folder)
        return [problem]
    if source.path == folder.path:
        return []
    _follow(source, known)
    note_taker(source, folder)
    for file in files:
        _name_parts(source, folder, file)
    take_back(source)
    links = _links_in(source.artifacts)
    shutil.rmtree(source.artifacts / TAKES_FOLDER, ignore_errors=True)
    for name in APART:
        _move(source.artifacts / name, folder.artifacts / f"attempt-{one.attempt}" / name)
    _merge(source, folder)
    if links:
        _LOG.warning("Left links where %s has made its outputs: %s", key, ", ".join(links))
    return [f"{name} is a link" for name in links]


def _follow(source: AttemptFolder, known: dict[int, EarlierAttempt]) -> None:
    """Learns the folder of the attempt that took over from another one, unless it was told."""
    taker = taker_of(source)
    if taker is None or taker.parent.name != source.key.session or not taker.name.isdecimal():
        return
    attempt = int(taker.name)
    if attempt not in known or not known[attempt].folder:
        known[attempt] = EarlierAttempt(attempt=attempt, folder=str(taker))


def part_place(file: FileParts, artifacts: Path) -> Path:
    """Gives where parts of a file stand beside: its own place, or for one under the output roots, the artifacts."""
    final = Path(file.final_path)
    return final if file.move is None else artifacts / final.name


def _problem(source: AttemptFolder) -> str:
    """Tells why a folder is not taken for an attempt's of ours. Empty: it is one."""
    path, key = source.path, source.key
    if not path.is_absolute() or (path.parent.name, path.name) != (key.session, str(key.attempt)):
        return "its folder is not named like one"
    try:
        if os.path.realpath(path) != str(path):
            return "a link leads to its folder"
        if not _is_ours_alone(path.lstat()):
            return "its folder is not ours alone"
        for inner in (source.artifacts, source.artifacts / TAKES_FOLDER):
            if os.path.lexists(inner) and not _is_ours_alone(inner.lstat()):
                return f"{inner.name} in it is a link, or not ours alone"
        if load_status(source.status.read_bytes()).key != key:
            return "its folder is another attempt's"
        if is_held(source.lock):
            return "something of it still runs"
    except FileNotFoundError:
        return "its folder cannot be seen from here"
    except (OSError, RecordUnreadableError) as error:
        return str(error)
    return ""


def _is_ours_alone(found: os.stat_result) -> bool:
    is_folder = stat.S_ISDIR(found.st_mode)
    return is_folder and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o022


def _is_real(folder: Path, top: Path) -> bool:
    """Tells whether no link leads from one folder to another one below it, or to itself."""
    below = [folder, *folder.parents]
    return not any(path.is_symlink() for path in below[: below.index(top) + 1])


def _is_file(path: Path) -> bool:
    """Tells whether there is a file, rather than a link to one."""
    return path.is_file() and not path.is_symlink()


def _name_parts(source: AttemptFolder, folder: AttemptFolder, file: FileParts) -> None:
    """Gives what an attempt has written of a file the name of a part."""
    whole = source.artifacts / part_place(file, folder.artifacts).relative_to(folder.artifacts)
    if not _is_real(whole.parent, source.artifacts):
        return
    takes = _takes(source, file)
    attempt = source.key.attempt
    if _is_file(whole):
        # It is whole: its parts, and takes, are in it.
        for number, part in parts_of(whole):
            if number.attempt <= attempt:
                part.unlink()
        for _, take in takes:
            take.unlink()
        whole.replace(part_name(str(whole), PartNumber(attempt=attempt)))
        return
    for order, take in takes:
        if take.stat().st_size:
            whole.parent.mkdir(parents=True, exist_ok=True)
            take.replace(part_name(str(whole), PartNumber(attempt=attempt, take=order)))


def parts_of(whole: Path) -> list[tuple[PartNumber, Path]]:
    """Lists the parts of a file that stand beside its place, in order."""
    beside = whole.parent.iterdir() if whole.parent.is_dir() else ()
    found = ((part_number(path.name, whole.name), path) for path in beside)
    return sorted((number, path) for number, path in found if number is not None and not path.is_symlink())


def _takes(source: AttemptFolder, file: FileParts) -> list[tuple[int, Path]]:
    name = f"{Path(file.scratch).name}.{file.container.value}"
    found = (source.artifacts / TAKES_FOLDER).glob(f"*/{name}")
    own = (path for path in found if _is_file(path) and not path.parent.is_symlink())
    return sorted((int(path.parent.name), path) for path in own if path.parent.name.isdecimal())


def _links_in(artifacts: Path) -> list[str]:
    """Lists links, which nobody of ours makes, by where they are among the artifacts."""
    found = [Path(where) / name for where, folders, files in os.walk(artifacts) for name in (*folders, *files)]
    return sorted(str(path.relative_to(artifacts)) for path in found if path.is_symlink())


def _merge(source: AttemptFolder, folder: AttemptFolder) -> None:
    touched: set[Path] = set()
    for where, _, names in os.walk(source.artifacts, followlinks=False):
        for name in names:
            path = Path(where) / name
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            if name.startswith(_NASCENT):
                path.unlink()  # a copy that a predecessor was making when it was killed
                continue
            place = folder.artifacts / path.relative_to(source.artifacts)
            if place.exists() and not _is_copy(path, place):
                place = folder.artifacts / f"attempt-{source.key.attempt}" / path.relative_to(source.artifacts)
            _move(path, place)
            touched.add(place.parent)
    for parent in sorted(touched):
        flush_folder(parent)


def _move(path: Path, place: Path) -> None:
    """Moves a file, by a durable copy where it cannot be renamed. One that is not there, or a link, is left alone."""
    if not _is_file(path):
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists() and _is_copy(path, place):
        path.unlink()
        return
    try:
        path.replace(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(path, place)
        path.unlink()


def _copy(path: Path, place: Path) -> None:
    nascent = place.with_name(random_id(_NASCENT))
    try:
        with path.open("rb") as source, nascent.open("xb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
            target.flush()
            os.fsync(target.fileno())
        shutil.copystat(path, nascent)
        nascent.replace(place)
        flush_folder(place.parent)
    except OSError:
        with contextlib.suppress(OSError):
            nascent.unlink()
        raise


def _is_copy(path: Path, place: Path) -> bool:
    """Tells whether a predecessor was killed between copying a file and removing the first one."""
    ours, theirs = path.stat(), place.stat()
    return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)
