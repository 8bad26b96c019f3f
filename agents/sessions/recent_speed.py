"""Tells how fast a program goes lately: ffmpeg tells the average of its whole life.

That average says little of a program that was held at a speed a minute ago, or let go again. Lately is from one report
to a later one, by when each was written: ffmpeg and its reader go by seconds of their own, and by when it was read a
stream in real time would now and then seem a third too fast.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.pipelines.progress import Progress

_WINDOW_S = 3.0
"""Seconds of wall time that are looked back at least; up to a report more."""
_LONGEST_REPORTS = 128
"""How many reports are kept at most: those of the window, ten a second, and some to spare."""


@dataclass(frozen=True, slots=True)
class _Report:
    at_s: float
    out_s: float
    frames: int


class RecentSpeed:
    """One attempt's speed over the last seconds."""

    def __init__(self) -> None:
        self._reports: deque[_Report] = deque(maxlen=_LONGEST_REPORTS)

    def note(self, progress: Progress, at_s: float) -> Progress:
        """Takes a report in.

        Args:
            progress: What ffmpeg told, each report once and in their order.
            at_s: When it wrote that, in monotonic seconds.

        Returns:
            The report with its speed and frames per second of the last seconds; as ffmpeg told them until enough
            seconds are known, or when it does not know its speed.
        """
        now = _Report(at_s, progress.out_time.total_seconds(), progress.frames)
        if self._reports and now.at_s <= self._reports[-1].at_s:
            self._reports.pop()
        self._reports.append(now)
        while len(self._reports) > 1 and now.at_s - self._reports[1].at_s >= _WINDOW_S:
            self._reports.popleft()
        before = self._reports[0]
        passed_s = now.at_s - before.at_s
        if passed_s < _WINDOW_S or progress.speed is None:
            return progress
        return replace(
            progress,
            speed=max(now.out_s - before.out_s, 0.0) / passed_s,
            frames_per_second=max(now.frames - before.frames, 0) / passed_s,
        )
