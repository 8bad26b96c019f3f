"""What becomes of a local name like `out.mp4`: the outputs to ask for, and the files to fetch afterwards.

The plan is made and the local places are checked before anything is submitted, so that an hour of encoding never ends
in "file exists".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING

from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

PLACEHOLDER = "{rendition}"
FILE_SUFFIXES = (".mp4", ".mkv", ".ts")
HLS_FOLDER = "hls"
"""The folder among a session's artifacts for an HLS presentation that is to be fetched."""
_PART_MARK = re.compile(r"\.part-?[1-9][0-9]*(-[1-9][0-9]*)?")
"""What agents put before the suffix of a file's parts where they could not make one file of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetch:
    """A thing to be fetched once a session has ended."""

    artifact_path: str
    """Path among the session's artifacts: of a file, or of a folder."""
    target: Path
    """The local file, or the local folder."""
    whole_folder: bool
    required: bool = True
    """Whether something is missing when the session did not leave it."""

    def place_of(self, artifact_path: str) -> Path | None:
        """Tells where an artifact goes locally. None: it is not meant.

        Raises:
            ValueError: When its path would leave the local folder, whoever made it so.
        """
        if not self.whole_folder:
            return self.target if artifact_path == self.artifact_path else None
        below = f"{self.artifact_path}/"
        return place_inside(self.target, artifact_path, below=below) if artifact_path.startswith(below) else None

    def part_place_of(self, artifact_path: str) -> Path | None:
        """Tells where a part goes of a file that stayed in parts: beside the file's place. None: it is no such part."""
        if self.whole_folder:
            return None
        mark = _part_mark(PurePosixPath(artifact_path), PurePosixPath(self.artifact_path))
        return self.target.with_name(f"{self.target.stem}{mark}{self.target.suffix}") if mark else None

    def places_among(self, places: Iterable[Path]) -> list[Path]:
        """Tells which of the files that were written were meant by this: the file, its parts, those in the folder."""
        return [
            place
            for place in places
            if place.is_relative_to(self.target) or (not self.whole_folder and _part_mark(place, self.target))
        ]


def _part_mark(path: PurePath, whole: PurePath) -> str:
    """Tells what makes the name of a part of the whole file's: ".part2". Empty: it is none."""
    if path.parent != whole.parent or path.suffix != whole.suffix or not path.stem.startswith(whole.stem):
        return ""
    mark = path.stem.removeprefix(whole.stem)
    return mark if _PART_MARK.fullmatch(mark) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Outputs of a session and where they go locally."""

    outputs: tuple[media_pb2.Output, ...] = ()
    fetches: tuple[Fetch, ...] = ()


def file_delivery(target: str | os.PathLike[str], rendition_ids: Sequence[str]) -> Delivery:
    """Plans one local file per rendition.

    Args:
        target: `OUT.mp4`, `OUT.mkv` or `OUT.ts`; with several renditions `{rendition}` stands for the rendition's id,
            or `-ID` is put before the suffix.
        rendition_ids: Ids of the renditions, at least one.

    Raises:
        ValueError: When the suffix names no container.
    """
    path = Path(target).expanduser().absolute()
    suffix = path.suffix.lower()
    if suffix not in FILE_SUFFIXES:
        raise ValueError(
            f"Cannot tell the container of {os.fspath(target)!r} from its name. Try {', '.join(FILE_SUFFIXES)}, "
            "or a folder for HLS."
        )
    if len(rendition_ids) > 1 and PLACEHOLDER not in path.name:
        path = path.with_name(f"{path.stem}-{PLACEHOLDER}{path.suffix}")
    outputs, fetches = [], []
    for rendition_id in rendition_ids:
        artifact_path = f"{rendition_id}{suffix}"
        outputs.append(media_pb2.Output(renditions=[rendition_id], file=media_pb2.FileOutput(path=artifact_path)))
        place = path.with_name(path.name.replace(PLACEHOLDER, rendition_id))
        fetches.append(Fetch(artifact_path=artifact_path, target=place, whole_folder=False))
    return Delivery(outputs=tuple(outputs), fetches=tuple(fetches))


def hls_delivery(folder: str | os.PathLike[str], settings: media_pb2.HlsOutput | None = None) -> Delivery:
    """Plans a local folder with an HLS presentation of all renditions.

    Args:
        folder: The local folder; it may be made.
        settings: Segment format and durations; its path is not read. None: the contract's defaults.
    """
    hls = media_pb2.HlsOutput()
    if settings is not None:
        hls.CopyFrom(settings)
    hls.path = HLS_FOLDER
    fetch = Fetch(artifact_path=HLS_FOLDER, target=Path(folder).expanduser().absolute(), whole_folder=True)
    return Delivery(outputs=(media_pb2.Output(hls=hls),), fetches=(fetch,))


def place_inside(folder: Path, artifact_path: str, *, below: str = "") -> Path:
    """Tells where an artifact goes inside a local folder.

    Args:
        folder: The local folder.
        artifact_path: Path among the session's artifacts.
        below: The folder of the session's artifacts that becomes the local folder. Empty: all artifacts.

    Raises:
        ValueError: When the artifact's path would leave the folder, whoever made it so.
    """
    path = PurePosixPath(artifact_path)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"Cannot write the artifact {artifact_path!r}: its path leaves the folder.")
    return folder / path.relative_to(below)


def names_folder(target: str | os.PathLike[str]) -> bool:
    """Tells whether a local name means a folder, and so HLS: it is one, ends in a slash, or has no suffix."""
    text = os.fspath(target)
    return text.endswith("/") or Path(text).is_dir() or not Path(text).suffix


def check_places(fetches: Iterable[Fetch], *, overwrite: bool, source: Path | None = None) -> None:
    """Checks that everything that is to be fetched may be written, before anything is submitted.

    Args:
        fetches: What will be fetched.
        overwrite: Whether existing files may be replaced.
        source: The local input, which is never replaced. None: there is none.

    Raises:
        OSError: Saying which place cannot be written, why, and what to try.
    """
    seen: set[Path] = set()
    for fetch in fetches:
        target = fetch.target
        if target in seen:
            raise FileExistsError(f"Cannot write {target} twice. Try another name for one of the outputs.")
        seen.add(target)
        if source is not None and target.exists() and source.exists() and target.samefile(source):
            raise FileExistsError(f"Cannot write {target}: it is the input. Try another name.")
        _check_place(fetch, overwrite=overwrite)


def _check_place(fetch: Fetch, *, overwrite: bool) -> None:
    target, folder = fetch.target, fetch.target.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"Cannot write {target}: there is no folder {folder}. Try to make it first.")
    if fetch.whole_folder:
        if target.exists() and not target.is_dir():
            raise NotADirectoryError(f"Cannot write into {target}: it is no folder. Try another name.")
        if target.is_dir():
            folder = target
            if not overwrite and any(target.iterdir()):
                raise FileExistsError(
                    f"Cannot write into {target}: the folder is not empty. Try another one, or -y to write into it."
                )
    elif target.is_dir():
        raise IsADirectoryError(f"Cannot write {target}: it is a folder. Try the name of a file.")
    elif not overwrite and target.exists():
        raise FileExistsError(f"Cannot write {target}: it exists. Try another name, or -y to replace it.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"Cannot write {target}: the folder {folder} is not writable. Try another one.")
