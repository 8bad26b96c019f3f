"""Reads what ffmpeg's `-progress` writes: blocks of `key=value` lines, each closed by `progress=continue` or `=end`.

Only whole blocks count, because ffmpeg writes one in several pieces. What cannot be read is skipped: a figure that is
missing for a second matters less than a session that ends over it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta

_LONGEST_BLOCK = 64 * 1024
"""Characters. A block has below 1,000; what grows past this is no progress file."""
_WHOLE = re.compile(r"[0-9]{1,18}")
_DECIMAL = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job has come."""

    frames: int = 0
    """Of the first video stream; 0 where there is none."""
    frames_per_second: float = 0.0
    """As ffmpeg tells it, on average since the start; as an agent does, lately."""
    speed: float | None = None
    """Media time per wall time, over the same time. None: not known yet."""
    duplicated_frames: int = 0
    dropped_frames: int = 0
    out_time: timedelta = timedelta()
    """Media time done."""
    written_bytes: int | None = None
    """Of ffmpeg's first output alone. None: it cannot tell, as behind `tee` and for HLS. Sizes on disk tell more."""
    ended: bool = False
    """Whether ffmpeg wrote its last block."""
    total_time: timedelta | None = None
    """Media time to be done. ffmpeg does not know it: whoever does sets it, and it is carried on."""


def parse_progress(text: str, previous: Progress | None) -> tuple[Progress | None, str]:
    """Reads on in a progress file.

    Args:
        text: What was left over the last time, and what has come since.
        previous: What was known before. None: nothing.

    Returns:
        What is known now, `previous` itself when no block was closed; and what is left over of a block that is not
        closed yet, to be put before the next text.
    """
    current = previous
    block: dict[str, str] = {}
    whole, newline, rest = text.rpartition("\n")
    begun = 0
    lines = whole.split("\n") if newline else []
    for number, line in enumerate(lines):
        key, equals, value = line.strip().partition("=")
        if equals:
            block[key] = value.strip()
        if key == "progress" and equals:
            current = _advanced(current or Progress(), block)
            block, begun = {}, number + 1
    left = "\n".join([*lines[begun:], rest])
    return current, left[-_LONGEST_BLOCK:]


def _advanced(before: Progress, block: dict[str, str]) -> Progress:
    frames_per_second = _decimal(block.get("fps"))
    microseconds = _whole(block.get("out_time_us"))
    return replace(
        before,
        frames=_or(_whole(block.get("frame")), before.frames),
        frames_per_second=before.frames_per_second if frames_per_second is None else frames_per_second,
        speed=_decimal((block.get("speed") or "").removesuffix("x").strip()),
        duplicated_frames=_or(_whole(block.get("dup_frames")), before.duplicated_frames),
        dropped_frames=_or(_whole(block.get("drop_frames")), before.dropped_frames),
        out_time=before.out_time if microseconds is None else _time(microseconds),
        written_bytes=_whole(block.get("total_size")),
        ended=block["progress"] == "end",
    )


def _time(microseconds: int) -> timedelta:
    try:
        return timedelta(microseconds=microseconds)
    except OverflowError:
        return timedelta.max


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _whole(value: str | None) -> int | None:
    """Reads a number of 0 or more; None for anything else, "N/A" or a time before the start for instance."""
    return int(value) if value is not None and _WHOLE.fullmatch(value) else None


def _decimal(value: str | None) -> float | None:
    return float(value) if value is not None and _DECIMAL.fullmatch(value) else None
