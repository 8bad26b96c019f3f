"""One picture of a display, as it is now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.pipelines.capture_input import capture_arguments
from agents.pipelines.command import Command
from agents.pipelines.job import CaptureInput
from agents.pipelines.takes import display_environment

if TYPE_CHECKING:
    from agents.pipelines.capability import FfmpegBuild
    from agents.pipelines.recording import Capture
    from agents.pipelines.takes import DisplayAccess

_QUIET = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+error", "-y")
_THUMBNAIL_WIDTH = 640


def snapshot_command(
    capture: Capture, build: FfmpegBuild, access: DisplayAccess, *, width: int | None = None, path: str = "pipe:1"
) -> Command:
    """Builds the command that makes one PNG of a display.

    Args:
        capture: How the display is looked at.
        build: The ffmpeg that does it.
        access: The display.
        width: Pixels of the picture, which keeps its shape; never more than the display's. None: the display's.
        path: Absolute path of the PNG, or "pipe:1" for standard output.

    Returns:
        The command.
    """
    fitted = f"scale=w={width}:h=-2:flags=area," if width is not None and width < capture.width else ""
    argv = [build.path, *_QUIET, *_looking(capture, access), "-frames:v", "1"]
    # Without prediction from neighbours it takes half the time.
    argv += ["-vf", f"{fitted}format=rgb24", "-c:v", "png", "-pred", "none", "-compression_level", "1"]
    argv += (
        ["-f", "image2", "-update", "1", "-atomic_writing", "1", f"file:{path}"]
        if path != "pipe:1"
        else ["-f", "image2pipe", path]
    )
    return Command(argv=tuple(argv), env=display_environment(access))


def thumbnail_command(capture: Capture, build: FfmpegBuild, access: DisplayAccess, *, path: str) -> Command:
    """Builds the command that makes one thumbnail of a display: a JPEG of at most 640 pixels' width.

    Each is made by a program of its own. As an output of the take, which gets a picture only now and then, it would
    have ffmpeg hold back the sound until the next one.

    Args:
        capture: How the display is looked at.
        build: The ffmpeg that does it.
        access: The display.
        path: Absolute path of the file; it appears there when it is complete.

    Returns:
        The command.
    """
    width = min(_THUMBNAIL_WIDTH, capture.width)
    # JPEG is of full range and BT.601.
    filters = f"scale=w={width}:h=-2:flags=area:out_color_matrix=bt601:out_range=pc,format=yuvj420p"
    written = ("-frames:v", "1", "-vf", filters, "-c:v", "mjpeg", "-q:v", "4", "-f", "image2", "-update", "1")
    argv = (build.path, *_QUIET, *_looking(capture, access), *written, "-atomic_writing", "1", f"file:{path}")
    return Command(argv=argv, env=display_environment(access))


def _looking(capture: Capture, access: DisplayAccess) -> tuple[str, ...]:
    source = CaptureInput(
        display=access.name,
        width=capture.width,
        height=capture.height,
        frame_rate=capture.frame_rate,
        show_cursor=capture.show_cursor,
    )
    return capture_arguments(source, pictures=True)
