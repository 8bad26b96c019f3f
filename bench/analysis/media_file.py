"""What kind of file a recording is, and how much of it plays."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.decoding import FFMPEG, QUIET, Undecodable, shrunk_frames

if TYPE_CHECKING:
    from pathlib import Path

_VIDEO = re.compile(r"Stream #0:\d+.*?: Video: (\w+).*?, (\w+)(?:\((.*?)\))?.*?, (\d+)x(\d+)")
_SOUND = re.compile(r"Stream #0:\d+.*?: Audio: (\w+)")
_RANGES = ("tv", "pc")
_LARGE_SIZE = 1
"""A box of this size has its real one in the eight bytes after its kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaDescription:
    """What a file says of itself. None: it does not."""

    codecs: tuple[str, ...]
    """Of its first video and its first sound track."""
    pixels: str | None
    """Pixel format with everything that is told of it."""
    width: int | None
    height: int | None
    range: str | None
    """ "tv" or "pc"."""
    matrix: str | None
    """ "bt709", "smpte170m" and so on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Playable:
    """What is left of a file when it is decoded to its end."""

    seconds: float
    """From the first frame to the end of the last one; 0 when nothing can be decoded."""
    frames: int
    longest_keyframe_gap_s: float
    """Between keyframes, or from the last one to the end."""


def describe(path: Path) -> MediaDescription:
    """Reads what a file says of itself.

    Raises:
        Undecodable: When it has neither video nor sound.
    """
    told = subprocess.run(
        [FFMPEG, "-hide_banner", "-nostdin", "-i", str(path)], capture_output=True, text=True, check=False
    ).stderr
    video, sound = _VIDEO.search(told), _SOUND.search(told)
    if video is None and sound is None:
        raise Undecodable(f"{path} has no track: {told[-500:]}")
    words = [] if video is None or video[3] is None else re.split(r"[,/ ]+", video[3])
    return MediaDescription(
        codecs=tuple(found[1] for found in (video, sound) if found),
        pixels=f"{video[2]}({video[3]})" if video else None,
        width=int(video[4]) if video else None,
        height=int(video[5]) if video else None,
        range=next((word for word in words if word in _RANGES), None),
        matrix=next((word for word in words if word not in _RANGES and word[:2] in ("bt", "sm", "gb")), None),
    )


def measure_playable(path: Path) -> Playable:
    """Decodes a file, whole or torn, as far as it goes."""
    try:
        times_s = shrunk_frames(path, width=1, height=1).times_s
    except Undecodable:
        return Playable(seconds=0.0, frames=0, longest_keyframe_gap_s=float("inf"))
    frame_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    end_s = float(times_s[-1]) + frame_s
    keys_s = [*_keyframe_times_s(path), end_s]
    return Playable(
        seconds=end_s - float(times_s[0]),
        frames=len(times_s),
        longest_keyframe_gap_s=float(np.diff(keys_s).max()) if len(keys_s) > 1 else float("inf"),
    )


def _keyframe_times_s(path: Path) -> list[float]:
    # The decoder leaves the others out, not we: containers flag keyframes differently.
    command = [*QUIET, "-skip_frame", "nokey", "-i", str(path), "-map", "0:v:0", "-vf", "scale=16:16"]
    command += ["-fps_mode", "passthrough", "-f", "framehash", "-"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    base = re.search(r"#tb 0: (\d+)/(\d+)", told)
    if base is None:
        return []
    tick_s = int(base[1]) / int(base[2])
    return [int(line.split(",")[2]) * tick_s for line in told.splitlines() if line and not line.startswith("#")]


def top_boxes(path: Path) -> list[str]:
    """Gives the kinds of an MP4 file's outermost boxes, in order."""
    kinds = []
    with path.open("rb") as file:
        while len(head := file.read(8)) == 8:
            size = int.from_bytes(head[:4], "big")
            kinds.append(head[4:].decode("latin-1"))
            if size == _LARGE_SIZE:
                file.seek(int.from_bytes(file.read(8), "big") - 16, 1)
            elif size < 8:
                break
            else:
                file.seek(size - 8, 1)
    return kinds


def is_faststart(path: Path) -> bool:
    """Tells whether an MP4 file's index stands before its media, in one piece, so that it plays while it arrives."""
    kinds = top_boxes(path)
    return "moov" in kinds and "moof" not in kinds and kinds.index("moov") < kinds.index("mdat")
