"""How many frames per second one coding engine does, by generation.

Published for a few generations only; the others borrow from a relative, chosen so that the figure is rather too low.
data/README.md says where each is from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from gpu_balancer.hardware.tables import read_table

REFERENCE_PIXELS = 1920 * 1080
"""Pixels of the frames that the figures count."""

Engine = Literal["nvenc", "nvdec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """Where a generation's figures are, and what they are times."""

    name: str
    clock_mhz: int | None
    numerator: int = 1
    denominator: int = 1


_PASCAL = _Column(name="pascal_1708", clock_mhz=1708)
_TURING = _Column(name="turing_1950", clock_mhz=1950)
_COLUMNS: Mapping[str, _Column] = {
    # A Tesla M60 was reported at 270 frames/s per encoder, H.264, where Pascal's figure is 398: two thirds.
    "maxwell": _Column(name="pascal_1708", clock_mhz=1708, numerator=2, denominator=3),
    "pascal": _PASCAL,
    "volta": _PASCAL,
    "turing": _TURING,
    "ampere": _Column(name="ampere_1950", clock_mhz=1950),
    "ada": _Column(name="ada_2415", clock_mhz=2415),
    "hopper": _TURING,
    "thor": _Column(name="thor", clock_mhz=None),
    "blackwell": _Column(name="blackwell_5070ti", clock_mhz=None),
}
_WITHOUT_ENCODER = "hopper"


def engine_frames_per_second(
    engine: Engine, codec: str, preset: str | None, tuning: str | None, architecture: str
) -> tuple[int, int | None] | None:
    """Tells how fast one engine is.

    Args:
        engine: "nvenc" encodes, "nvdec" decodes.
        codec: "h264", "hevc", "av1"; for "nvdec" also "vp9", "vp9_10" and "hevc_10".
        preset: "p1" to "p7"; the even ones are taken for the next slower one that is published. Not used for "nvdec".
        tuning: "hq" or "ll". Not used for "nvdec".
        architecture: "Ada", "Ada Lovelace", "Ada(AD104)", or a generation of a `ModelRow`.

    Returns:
        Frames of 1920x1080, 8-bit 4:2:0, per second, and the clock in MHz at which that holds, None when it was not
        published. None: no figure, because the generation is unknown or cannot do it.
    """
    generation = _generation(architecture)
    column = _COLUMNS.get(generation)
    if column is None or (engine == "nvenc" and generation == _WITHOUT_ENCODER):
        return None
    key = (engine, codec, _published_preset(preset), tuning or "") if engine == "nvenc" else (engine, codec, "", "")
    figure = _figures().get(key, {}).get(column.name)
    if not figure:
        return None
    return int(figure) * column.numerator // column.denominator, column.clock_mhz


def _generation(architecture: str) -> str:
    # "Ada(AD104)", "Ada Lovelace" and "Maxwell2" all begin with the generation's name.
    match = re.match(r"[a-z]+", architecture.strip().lower())
    return match[0] if match else ""


def _published_preset(preset: str | None) -> str:
    return {"p2": "p3", "p4": "p5", "p6": "p7"}.get(preset or "", preset or "")


@lru_cache(maxsize=1)
def _figures() -> Mapping[tuple[str, str, str, str], Mapping[str, str]]:
    return {(row["engine"], row["codec"], row["preset"], row["tuning"]): row for row in read_table("nvenc_fps.csv")}
