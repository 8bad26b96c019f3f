"""Decodes with the bundled ffmpeg, into arrays small enough for recordings of any length.

Pictures are shrunk inside ffmpeg to the few numbers that are looked at; sound is read in pieces.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
QUIET = [FFMPEG, "-hide_banner", "-nostdin", "-loglevel", "error"]
SOUND_RATE_HZ = 48_000


class Undecodable(Exception):
    """There is nothing in a file that could be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Every frame of a video, shrunk."""

    times_s: NDArray[np.float64]
    """Presentation times, one per frame, in the file's own time."""
    levels: NDArray[np.uint8]
    """Luminance, 0 to 255, of shape (frames, height, width)."""


def shrunk_frames(path: Path, *, width: int, height: int, crop: str = "") -> Frames:
    """Decodes every frame of the first video track.

    Args:
        path: The file.
        width: Columns to shrink to; each is the mean of what it covers.
        height: Rows to shrink to.
        crop: Arguments of ffmpeg's crop filter for what is to be looked at. Empty: all.

    Raises:
        Undecodable: When there is no frame.
    """
    graph = [f"crop={crop}"] if crop else []
    graph += [f"scale={width}:{height}:flags=area:out_range=full", "format=gray"]
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
        times = Path(scratch) / "times"
        command = [*QUIET, "-i", str(path), "-map", "0:v:0", "-vf", ",".join(graph), "-fps_mode", "passthrough"]
        command += ["-stats_enc_pre:v", str(times), "-stats_enc_pre_fmt:v", "{ti}", "-f", "rawvideo", "-"]
        done = subprocess.run(command, capture_output=True, check=False)
        times_s = np.array([float(line) for line in _lines(times) if line != "inf"])
    count = min(len(done.stdout) // (width * height), len(times_s))
    if not count:
        raise Undecodable(f"{path} has no frame: {done.stderr.decode(errors='replace')[-500:]}")
    levels = np.frombuffer(done.stdout, np.uint8, count * width * height).reshape(count, height, width)
    return Frames(times_s=times_s[:count], levels=levels)


def _lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def sound_pieces(path: Path, *, seconds: float = 10) -> Iterator[NDArray[np.int16]]:
    """Decodes the first sound track, mixed to one channel of `SOUND_RATE_HZ`, from the file's time 0 on.

    Gaps are filled with silence, so that a sample's number is its time.
    """
    command = [*QUIET, "-i", str(path), "-map", "0:a:0", "-af", "aresample=async=1:min_hard_comp=0.001:first_pts=0"]
    command += ["-ac", "1", "-ar", str(SOUND_RATE_HZ), "-f", "s16le", "-"]
    size = 2 * int(seconds * SOUND_RATE_HZ)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        while piece := process.stdout.read(size):
            yield np.frombuffer(piece, np.int16, len(piece) // 2)
