"""The videos of the demonstration: how they are made, and what ffmpeg finds in what came out.

Nothing is believed that was not decoded.
"""

from __future__ import annotations

import functools
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg

from agents.pipelines.input_description import InputDescription, parse_input_description

_FFMPEG = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin"]


def make_film(path: Path, seconds: int) -> None:
    """Makes a video of 1280x720 at 30 frames/s with moving content and sound."""
    # Fractals are dear: a quarter of the pixels shows as much.
    picture = f"mandelbrot=size=640x360:rate=30:end_pts={seconds * 30}:maxiter=400,scale=1280:720,format=yuv420p"
    sound = f"aevalsrc='0.3*sin(2*PI*(220+110*floor(mod(t,4)))*t)':s=48000:d={seconds}"
    inputs = [part for source in (picture, "testsrc2=size=320x180:rate=30", sound) for part in _generated(source)]
    _make(path, seconds, *inputs, "-filter_complex", "[0:v][1:v]overlay=W-w-24:24[v]", "-map", "[v]", "-map", "2:a")


def make_clip(path: Path, seconds: int) -> None:
    """Makes a small video, 480x270 at 30 frames/s, with moving content and sound."""
    _make(path, seconds, *_generated("testsrc2=size=480x270:rate=30"), *_generated("sine=frequency=440:r=48000"))


def _generated(source: str) -> list[str]:
    return ["-f", "lavfi", "-i", source]


def _make(path: Path, seconds: int, *arguments: str) -> None:
    encoding = ["-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    target = ["-t", str(seconds), "-movflags", "+faststart", str(path)]
    subprocess.run([*_FFMPEG, "-loglevel", "error", "-y", *arguments, *encoding, *target], check=True)


def describe(path: Path) -> InputDescription:
    """Lets ffmpeg open a file and tells what it found."""
    shown = subprocess.run([*_FFMPEG, "-i", str(path)], capture_output=True, text=True, check=False)
    return parse_input_description(shown.stderr)


def seconds_of(path: Path) -> float:
    """Tells how long a file says that it is; 0 when it does not."""
    duration = describe(path).facts.duration
    return duration.total_seconds() if duration else 0.0


@functools.cache
def frames_of(path: Path) -> int:
    """Decodes a file wholly and counts its frames; 0 when anything in it is broken."""
    command = [*_FFMPEG, "-v", "error", "-stats", "-xerror", "-i", str(path), "-map", "0:v:0", "-f", "null", "-"]
    decoded = subprocess.run(command, capture_output=True, text=True, check=False)
    counts = re.findall(r"frame=\s*(\d+)", decoded.stderr)
    return int(counts[-1]) if decoded.returncode == 0 and counts else 0
