"""Checks where a session wants to write, before anything is started and without writing.

It saves the client an attempt that must fail; it is not what protects files. That is done where they are made: outputs
are written in a private folder and put in place at the end, without following a link.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, assert_never

from agents.media_access.guard import RequestField, guard_url, is_under, shared_folder_problem
from agents.pipelines.job import FileOutput, HlsOutput, JobOutput, PushOutput
from gpu_balancer.runtime.failures import Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.runtime.settings_sections import OutputSettings

_LEAST_FREE_BYTES = 1024 * 1024


async def check_outputs(outputs: Sequence[JobOutput], settings: OutputSettings, *, continued: bool = False) -> None:
    """Checks that every output may be written.

    Args:
        outputs: In the order of the request, which field paths count by.
        settings: The section [outputs].
        continued: Whether what stands there may be an earlier attempt's: whoever writes there looks at that.

    Raises:
        RequestFailure: For the first that may not: outside the roots, folder missing or not writable, existing file,
            disk full, protocol or host not allowed, or the place of another output of the same request.
    """
    taken: set[str] = set()
    for index, output in enumerate(outputs):
        match output:
            case FileOutput():
                request_field = _field(index, "file.path")
                place = await asyncio.to_thread(_checked_file, output, settings, request_field, continued)
            case HlsOutput():
                request_field = _field(index, "hls.path")
                place = await asyncio.to_thread(_checked_folder, output, settings, request_field, continued)
            case PushOutput():
                request_field = _field(index, "push.url")
                await guard_url(output.url, settings, request_field)
                place = output.url
            case _:
                assert_never(output)
        if place in taken:
            raise request_field.failure(
                Reason.INVALID_REQUEST, _shown(output), "another output of this session goes there too", "another place"
            )
        taken.add(place)


def _field(index: int, name: str) -> RequestField:
    return RequestField(
        path=f"session.transcode.outputs[{index}].{name}",
        verb="write to",
        refused=Reason.OUTPUT_NOT_ALLOWED,
        unreachable=Reason.OUTPUT_UNWRITABLE,
    )


def _shown(output: JobOutput) -> str:
    return "that server" if isinstance(output, PushOutput) else output.path


def _checked_file(output: FileOutput, settings: OutputSettings, request_field: RequestField, continued: bool) -> str:
    if not output.path.startswith("/"):
        return _checked_artifact(output.path, request_field)
    path = _real_place(output.path, settings, request_field)
    if path.is_dir() and not path.is_symlink():
        raise request_field.failure(
            Reason.OUTPUT_UNWRITABLE, output.path, "it is a folder", "a file name inside the folder"
        )
    # A link counts as a file that exists, wherever it leads: it would be replaced, not followed.
    if os.path.lexists(path) and not (output.overwrite or continued):
        raise request_field.failure(
            Reason.OUTPUT_EXISTS, output.path, "it exists already", "another name, or overwrite"
        )
    return str(path)


def _checked_folder(output: HlsOutput, settings: OutputSettings, request_field: RequestField, continued: bool) -> str:
    if not output.path.startswith("/"):
        return _checked_artifact(output.path, request_field)
    path = _real_place(output.path, settings, request_field)
    if not os.path.lexists(path):
        return str(path)
    if path.is_symlink() or not path.is_dir():
        raise request_field.failure(Reason.OUTPUT_EXISTS, output.path, "there is a file of that name", "another folder")
    _require_writable(path, output.path, request_field)
    if problem := shared_folder_problem(path.lstat()):
        cure = "a folder that does not exist yet, or chown and chmod go-w"
        raise request_field.failure(Reason.OUTPUT_NOT_ALLOWED, output.path, problem, cure)
    if any(path.iterdir()) and not continued:
        raise request_field.failure(
            Reason.OUTPUT_EXISTS, output.path, "the folder exists and is not empty", "another folder, or emptying it"
        )
    return str(path)


def _checked_artifact(path: str, request_field: RequestField) -> str:
    """Checks a path inside the session's own artifacts, where nothing exists yet."""
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or not path.isprintable() or path.endswith("/"):
        problem = "an artifact's path must stay inside the session's folder and name a file"
        raise request_field.failure(Reason.INVALID_REQUEST, repr(path), problem, 'a name such as "out/video.mp4"')
    return str(PurePosixPath(path))


def _real_place(path: str, settings: OutputSettings, request_field: RequestField) -> Path:
    """Finds the real path of something to be made: its folder with links followed, its name as it is."""
    if not path.isprintable() or Path(path).name in ("", ".."):
        raise request_field.failure(Reason.OUTPUT_NOT_ALLOWED, repr(path), "it is no usable path", "another path")
    folder = Path(os.path.realpath(Path(path).parent))
    place = folder / Path(path).name
    if not is_under(str(folder), settings.roots):
        allowed = ", ".join(settings.roots) or "none"
        problem = f"files may be written under the output roots only, which are: {allowed}"
        raise request_field.failure(
            Reason.OUTPUT_NOT_ALLOWED, path, problem, "a relative path, which makes an artifact, or roots in [outputs]"
        )
    if not folder.is_dir():
        raise request_field.failure(
            Reason.OUTPUT_UNWRITABLE, path, f"the folder {folder} does not exist", "making it, or another path"
        )
    _require_writable(folder, path, request_field)
    return place


def _require_writable(folder: Path, shown: str, request_field: RequestField) -> None:
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise request_field.failure(
            Reason.OUTPUT_UNWRITABLE, shown, f"the daemon's user may not write into {folder}", "chmod, or another path"
        )
    if (free := _free_bytes(folder)) is not None and free < _LEAST_FREE_BYTES:
        raise request_field.failure(Reason.DISK_FULL, shown, f"the disk of {folder} is full", "making room on it")


def _free_bytes(folder: Path) -> int | None:
    try:
        status = os.statvfs(folder)
    except OSError:
        return None  # cannot be told: writing will show
    return status.f_bavail * status.f_frsize
