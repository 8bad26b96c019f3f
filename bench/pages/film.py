"""Makes the film of `film.html`: flashes and beeps that begin at the same instants, of known distance."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import imageio_ffmpeg

if TYPE_CHECKING:
    from pathlib import Path

RATE = 50
PERIOD_FRAMES = 51
"""From flash to flash: 30.6 frames of a recording at 30 frames/s, so that flashes fall on five places between two."""


def make_film(path: Path, *, seconds: float) -> Path:
    """Makes a film of so many seconds."""
    flash = f"drawbox=color=white:t=fill:enable='lt(mod(n,{PERIOD_FRAMES}),8)'"
    beep = f"aevalsrc='0.5*sin(2*PI*2000*t)*lt(mod(t,{PERIOD_FRAMES}/{RATE}),0.06)':s=48000"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-y"]
    command += ["-f", "lavfi", "-i", f"color=black:size=320x180:rate={RATE},{flash}", "-f", "lavfi", "-i", beep]
    command += ["-t", str(seconds), "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", "60"]
    subprocess.run([*command, "-c:a", "aac", "-movflags", "+faststart", str(path)], check=True)
    return path
