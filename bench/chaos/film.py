"""The film that every session takes in: small pictures that bear their own number; and the numbers read back.

The number survives encoding because it is drawn in large cells with a check byte (`bench.analysis.strip`). The second
row says how many frames the film has, so that a reader of any output knows after which number it begins again.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.decoding import FFMPEG, QUIET
from bench.analysis.strip import check_byte, read_strip

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

WIDTH, HEIGHT = 256, 144
"""Cells of 8 by 9 pixels: as small as they may be to survive an encoder that saves bits."""
_CELLS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameAccount:
    """What became of the frames of a film in an output."""

    frames: int
    lost: int
    """Numbers that are missing between two that are there."""
    repeated: int
    backwards: int
    unreadable: int
    first: int
    """The first number. -1: none can be read."""
    breaks: int = 0
    """Places at which a number is not followed by the next one."""


def make_film(path: Path, *, frames: int, rate: int) -> Path:
    """Makes the film.

    Args:
        path: Of the MP4 file.
        frames: How many; after them it begins again, when it is asked for again and again.
        rate: Frames per second.
    """
    source = ["-f", "rawvideo", "-pix_fmt", "gray", "-video_size", f"{WIDTH}x{HEIGHT}", "-framerate", str(rate)]
    encoding = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", str(rate), "-bf", "0"]
    command = [FFMPEG, "-loglevel", "error", "-y", *source, "-i", "-", *encoding, "-video_track_timescale", "25600"]
    with subprocess.Popen([*command, str(path)], stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for number in range(frames):
            process.stdin.write(picture(number, frames).tobytes())
    if process.returncode:
        raise RuntimeError(f"Cannot make {path}: ffmpeg ended with {process.returncode}.")
    return path


def picture(number: int, frames: int) -> NDArray[np.uint8]:
    """Draws one frame: the strip, and a bar that moves under it."""
    drawn = np.full((HEIGHT, WIDTH), 90, np.uint8)
    half = HEIGHT // 16
    for row, value in enumerate((frames, number)):
        word = value << 8 | check_byte(value)
        cells = np.array([255 if word >> (_CELLS - 1 - column) & 1 else 0 for column in range(_CELLS)], np.uint8)
        drawn[row * half : (row + 1) * half] = np.repeat(cells, WIDTH // _CELLS)
    left = number * 4 % WIDTH
    drawn[HEIGHT // 4 :, left : left + 8] = 200
    return drawn


def account(numbers: Sequence[int], frames: int) -> FrameAccount:
    """Accounts for every frame of an output.

    Args:
        numbers: Of its frames, in order; -1 where none can be read.
        frames: Of the film. A step of less than half of it forwards has lost frames, any other goes backwards.
    """
    readable = [number for number in numbers if number >= 0]
    steps = [(after - before) % frames for before, after in pairwise(readable)]
    return FrameAccount(
        frames=len(numbers),
        lost=sum(step - 1 for step in steps if 1 < step <= frames // 2),
        repeated=steps.count(0),
        backwards=sum(step > frames // 2 for step in steps),
        unreadable=len(numbers) - len(readable),
        first=readable[0] if readable else -1,
        breaks=sum(step != 1 for step in steps),
    )


def read_account(path: Path) -> FrameAccount:
    """Decodes an output, file or playlist, and accounts for its frames.

    Raises:
        bench.analysis.decoding.Undecodable: When there is no frame.
    """
    reading = read_strip(path)
    lengths = reading.page_ms[reading.page_ms >= 0]
    length = int(np.median(lengths)) if len(lengths) else 1
    return account(reading.drawings.tolist(), max(length, 2))


def complaints_of(path: Path) -> tuple[str, ...]:
    """Decodes an output whole and gives what the decoder did not like."""
    command = [*QUIET, "-i", str(path), "-map", "0", "-f", "null", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return tuple(done.stderr.splitlines()[:5])
