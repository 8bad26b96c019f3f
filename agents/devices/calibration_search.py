"""Finds how many streams a device carries side by side: doubles their number, then halves the gap.

A level is carried while every stream keeps real time. Streams run as fast as they are let, so a device that is full
shows it long before real time ends: once more streams bring no more pixels, what they bring together is what the device
does, and whether forty of them would still keep up is a division.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_FULL_GAIN = 1.05
"""Twice the streams must bring this many times the pixels, else the device was full before."""
_FINE = 8
"""Halving ends at an eighth of the number: below that the noise of a measurement is larger."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """What a number of streams did side by side."""

    streams: int
    pixels_per_second: int = 0
    """Of all together."""
    slowest_speed: float = 0.0
    """Of the slowest stream, in times real time."""
    failure: str = ""
    """Why they did not run. Empty: they did."""

    @property
    def carried(self) -> bool:
        """Whether every stream kept real time."""
        return not self.failure and self.slowest_speed >= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a search came to."""

    best: Level | None
    """The carried level with most pixels; when not even one stream kept real time, that one. None: nothing ran."""
    first_failure: Level | None = None
    """The level at which streams did not run any more. None: all ran."""


async def find_carried(measure: Callable[[int], Awaitable[Level]], *, most: int) -> Found:
    """Searches.

    Args:
        measure: Runs a number of streams side by side.
        most: Streams at most.

    Returns:
        The best level, and whether the search ended because streams did not run.
    """
    best: Level | None = None
    streams = 1
    while (level := await measure(streams)).carried:
        full = best is not None and level.pixels_per_second < _FULL_GAIN * best.pixels_per_second
        best = _better(best, level)
        if full or streams >= most:
            return Found(best=best)
        streams = min(2 * streams, most)
    failed = level if level.failure else None
    if best is None:
        return Found(best=None if level.failure else level, first_failure=failed)
    low, above = best.streams, level.streams
    while above - low > max(1, above // _FINE):
        level = await measure((low + above) // 2)
        if level.carried:
            low, best = level.streams, _better(best, level)
        else:
            above = level.streams
            failed = failed or (level if level.failure else None)
    return Found(best=best, first_failure=failed)


def _better(best: Level | None, level: Level) -> Level:
    return level if best is None or level.pixels_per_second > best.pixels_per_second else best
