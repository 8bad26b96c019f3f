"""Reads what ffmpeg's detectors write: since when it is silent, or since when the picture stands still.

Both write the same kind of lines, some time after it has begun: when, and when it is over. Times are those of the take,
from its first picture on.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

_LINE = re.compile(
    r"lavfi\.(?:silence_|freezedetect\.freeze_)(?P<what>start|end)(?:\.\d+)?=(?P<time>-?\d{1,12}(?:\.\d+)?)"
)
_LONGEST_LINE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Stillness:
    """Whether it is still."""

    since: timedelta | None = None
    """Media time from which on it is. None: it is not."""
    until: timedelta | None = None
    """Media time at which it was last over. None: it never was."""


def parse_stillness(text: str, previous: Stillness | None) -> tuple[Stillness, str]:
    """Reads on in a file of a detector.

    Args:
        text: What was left over the last time, and what has come since.
        previous: What was known before. None: nothing.

    Returns:
        What is known now; and what is left over of a line that has no end yet, to be put before the next text.
    """
    now = previous or Stillness()
    *lines, left = text.split("\n")
    for line in lines:
        found = _LINE.fullmatch(line.strip())
        if found is None:
            continue
        time = max(timedelta(seconds=float(found["time"])), timedelta())
        now = Stillness(since=time, until=now.until) if found["what"] == "start" else Stillness(until=time)
    return now, left[-_LONGEST_LINE:]
