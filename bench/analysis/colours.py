"""How far the colours of a recording of `bench/pages/bars.html` are from what the page shows, in steps of 8 bits.

The frame is taken as the file's own numbers and turned into RGB here, by the file's tags alone: a player does the
same, and a file with wrong tags looks wrong in it. ITU-R BT.709-6 and BT.601-7 have the formulas.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.decoding import QUIET, Undecodable
from bench.analysis.media_file import describe

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PATCHES = (
    *("#ffffff", "#000000", "#808080", "#404040", "#ff0000", "#00ff00"),
    *("#0000ff", "#00ffff", "#ff00ff", "#ffff00", "#c68642", "#1e5078"),
)
"""As the page has them: four in a row, three rows."""
_COLUMNS = 4
_LUMA_WEIGHTS = {"bt709": (0.2126, 0.0722), "smpte170m": (0.299, 0.114), "bt470bg": (0.299, 0.114)}
"""Kr and Kb by matrix."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourErrors:
    """What was found of the patches."""

    tags: str
    """Range and matrix that the file names, "tv, bt709"."""
    worst: float
    """Largest difference of any channel of any patch."""
    by_patch: dict[str, tuple[float, float, float]]
    """Differences, found less asked, of red, green and blue."""


def measure_colours(path: Path, *, at_s: float = 1.0) -> ColourErrors:
    """Compares the middle of every patch with what the page shows.

    Args:
        path: The recording.
        at_s: Time of the frame that is looked at.

    Raises:
        Undecodable: When there is no frame there, or the file names no range or matrix.
    """
    about = describe(path)
    if about.width is None or about.height is None or about.range is None or about.matrix not in _LUMA_WEIGHTS:
        raise Undecodable(f"{path} does not say how its colours are meant: {about.pixels}")
    command = [*QUIET, "-ss", str(at_s), "-i", str(path), "-map", "0:v:0", "-frames:v", "1"]
    # Only the planes are taken apart here, no number is changed: the range stays as it is.
    command += ["-vf", "format=yuv420p|yuvj420p|yuv444p|yuvj444p,scale=flags=neighbor", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, capture_output=True, check=False).stdout
    planes = _planes(raw, width=about.width, height=about.height)
    by_patch, worst = {}, 0.0
    for place, colour in enumerate(PATCHES):
        asked = np.array([int(part, 16) for part in re.findall("..", colour[1:])], np.float64)
        means = [_middle(plane, place) for plane in planes]
        difference = _to_rgb(means, full=about.range == "pc", matrix=about.matrix) - asked
        red, green, blue = (round(float(value), 2) for value in difference)
        by_patch[colour] = (red, green, blue)
        worst = max(worst, float(np.abs(difference).max()))
    return ColourErrors(tags=f"{about.range}, {about.matrix}", worst=worst, by_patch=by_patch)


def _planes(raw: bytes, *, width: int, height: int) -> list[NDArray[np.uint8]]:
    size = width * height
    if len(raw) not in (size * 3 // 2, size * 3):
        raise Undecodable(f"{len(raw)} bytes are no frame of {width}x{height}")
    part = 2 if len(raw) == size * 3 // 2 else 1
    colour = size // part // part
    luma = np.frombuffer(raw, np.uint8, size).reshape(height, width)
    others = [np.frombuffer(raw, np.uint8, colour, size + colour * number) for number in (0, 1)]
    return [luma, *(plane.reshape(height // part, width // part) for plane in others)]


def _middle(plane: NDArray[np.uint8], place: int) -> float:
    """Gives the mean of the inner half of a patch, away from its edges."""
    height, width = plane.shape[0] / (len(PATCHES) / _COLUMNS), plane.shape[1] / _COLUMNS
    row, column = divmod(place, _COLUMNS)
    top, left = int((row + 0.25) * height), int((column + 0.25) * width)
    return float(plane[top : top + int(height / 2), left : left + int(width / 2)].mean())


def _to_rgb(means: list[float], *, full: bool, matrix: str) -> NDArray[np.float64]:
    luma, blue, red = means
    y = luma / 255 if full else (luma - 16) / 219
    b, r = ((value - 128) / (255 if full else 224) for value in (blue, red))
    red_weight, blue_weight = _LUMA_WEIGHTS[matrix]
    red_part, blue_part = y + 2 * (1 - red_weight) * r, y + 2 * (1 - blue_weight) * b
    green_part = (y - red_weight * red_part - blue_weight * blue_part) / (1 - red_weight - blue_weight)
    rgb: NDArray[np.float64] = np.clip(np.array([red_part, green_part, blue_part]), 0, 1) * 255
    return rgb
