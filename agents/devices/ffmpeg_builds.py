"""Finds the ffmpeg programs that may be used, and tells each by what it is rather than by where it lies.

A candidate that is missing or too old is left out with a reason, because the next one may do; only when none is left
the device cannot work. What a build is (path, version, size, time of change) is part of the key of kept probe results:
a replaced program is probed again.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import run_bounded
from agents.pipelines.capability import FfmpegBuild

if TYPE_CHECKING:
    from collections.abc import Sequence

BUNDLED = "bundled"
_OLDEST = "4.4"
_OLDEST_LIBAVCODEC = (58, 134)  # of ffmpeg 4.4; builds from git carry no release number, but always this one
_VERSION_TIMEOUT = timedelta(seconds=5)
_INSTALL = (
    f"Try installing ffmpeg {_OLDEST} or newer (apt-get install ffmpeg), or the Python package imageio-ffmpeg, which "
    'brings one ("bundled")'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundBuild:
    """An ffmpeg that may be used, with what tells it from another at the same path."""

    build: FfmpegBuild
    size_bytes: int
    change_time_ns: int
    file_identity: tuple[int, int]
    """Device and inode: the same for two names of one program."""

    @property
    def fingerprint(self) -> str:
        """Equal for the same program, different after it was replaced."""
        return f"{self.build.path}|{self.build.version}|{self.size_bytes}|{self.change_time_ns}"


@dataclass(frozen=True, slots=True, kw_only=True)
class FfmpegSearch:
    """The builds found, and why others were not taken."""

    found: tuple[FoundBuild, ...]
    """In the order of the candidates, each program once."""
    messages: tuple[str, ...]
    """A sentence per candidate that was left out."""

    @property
    def fault_message(self) -> str | None:
        """Why no pipeline can run at all. None: there is a build."""
        if self.found:
            return None
        return " ".join(self.messages) or f"Cannot find an ffmpeg: no candidate is set. {_INSTALL}."


async def find_ffmpeg_builds(candidates: Sequence[str], *, for_cuda: bool = False) -> FfmpegSearch:
    """Looks at every candidate by running it.

    Args:
        candidates: "bundled" or absolute paths, best first.
        for_cuda: Whether it is to work in the memory of an NVIDIA GPU, and what is said of that is to be found out.

    Returns:
        Those that may be used.
    """
    found: dict[tuple[int, int], FoundBuild] = {}
    messages: list[str] = []
    for candidate in candidates:
        result = await _look_at(candidate, for_cuda=for_cuda)
        if isinstance(result, str):
            messages.append(result)
        else:
            found.setdefault(result.file_identity, result)
    return FfmpegSearch(found=tuple(found.values()), messages=tuple(messages))


async def _look_at(candidate: str, *, for_cuda: bool) -> FoundBuild | str:
    path = await asyncio.to_thread(_bundled_path) if candidate == BUNDLED else Path(candidate)
    if path is None:
        return f'Cannot use the ffmpeg "{BUNDLED}": the package imageio-ffmpeg or its program is missing. {_INSTALL}.'
    try:
        status = await asyncio.to_thread(path.stat)
        run = await run_bounded([str(path), "-hide_banner", "-version"], timeout=_VERSION_TIMEOUT)
    except FileNotFoundError:
        return f"Cannot use the ffmpeg {path}: there is no such file. {_INSTALL}."
    except OSError as error:
        return f"Cannot use the ffmpeg {path}: {error.strerror or error}. {_INSTALL}."
    version = re.search(r"^ffmpeg version (\S+)", run.output, re.MULTILINE)
    libavcodec = re.search(r"^\s*libavcodec\s+(\d+)\.\s*(\d+)\.", run.output, re.MULTILINE)
    if run.exit_code != 0 or version is None or libavcodec is None:
        return f"Cannot use the ffmpeg {path}: it does not tell its version. {_INSTALL}."
    if (int(libavcodec[1]), int(libavcodec[2])) < _OLDEST_LIBAVCODEC:
        return f"Cannot use the ffmpeg {path}: version {version[1]} is too old. {_INSTALL}."
    blackens = for_cuda and await _scaler_blackens(path)
    return FoundBuild(
        build=FfmpegBuild(path=str(path), version=version[1], candidate=candidate, scaler_blackens=blackens),
        size_bytes=status.st_size,
        change_time_ns=status.st_mtime_ns,
        file_identity=(status.st_dev, status.st_ino),
    )


async def _scaler_blackens(path: Path) -> bool:
    # Asked of the program rather than told from its version: it came between releases. Only scale_cuda with filters of
    # its own, which this option turns off, has been seen to do so (9.0.2).
    try:
        run = await run_bounded([str(path), "-hide_banner", "-h", "filter=scale_cuda"], timeout=_VERSION_TIMEOUT)
    except OSError:
        return False
    return "use_filters" in run.output


def _bundled_path() -> Path | None:
    try:
        import imageio_ffmpeg  # here, because an operator may leave it out and name programs instead

        return Path(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None
