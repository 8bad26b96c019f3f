"""Video whose frames carry their number in the picture: a missing or doubled one is found after any encoding."""

from __future__ import annotations

import subprocess
from pathlib import Path

from asked import FFMPEG

WIDTH, HEIGHT = 320, 64
_BITS = 16
_BLOCK = WIDTH // _BITS
RATE = 30


def make_numbered(path: Path, seconds: float) -> Path:
    """Makes a file of 30 frames/s that are numbered from 0: bright and dark columns are the bits, the lowest first."""
    bits = "255*mod(floor(N/pow(2,X)),2)"
    # Drawn with one pixel for a bit, and enlarged: what `geq` draws is worked out anew for each pixel.
    source = f"nullsrc=size={_BITS}x1:rate={RATE}:duration={seconds},format=gray,geq=lum='{bits}'"
    source += f",scale={WIDTH}:{HEIGHT}:flags=neighbor,setsar=1"
    command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source]
    command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, timeout=120)
    return path


def numbers_in(path: Path, *, limit: int = 9000) -> list[int]:
    """Reads the numbers of a file's first frames, in order; they must have kept their size."""
    command = [
        FFMPEG,
        "-hide_banner",
        "-loglevel",
        "error",
        "-i",
        str(path),
        "-fps_mode",
        "passthrough",
        "-frames:v",
        str(limit),
    ]
    command += ["-f", "rawvideo", "-pix_fmt", "gray", "-"]
    pixels = subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=120).stdout
    size, row = WIDTH * HEIGHT, HEIGHT // 2 * WIDTH
    assert len(pixels) % size == 0, f"{path} has frames of another size"
    return [
        sum((pixels[begin + row + _BLOCK * bit + _BLOCK // 2] > 127) << bit for bit in range(_BITS))
        for begin in range(0, len(pixels), size)
    ]
