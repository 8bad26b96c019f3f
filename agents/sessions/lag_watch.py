"""Tells when work in real time falls behind, and by how much: in figures that a person can act upon.

Looked at over seconds, not from report to report, because reports come in jerks; and left again only when it keeps up
clearly, so that nobody is told the same thing in and out every second.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

WINDOW_S = 10.0
"""Seconds over which speed and losses are looked at, at least; up to a report more."""
_LEAST_BEHIND_S = 0.5
"""Seconds of media below which being slower is the jerk of a report or two, not a trend."""
_MOST_LOST = 0.05
"""Share of frames lost above which it is told, and below half of which no more."""
_LONGEST_REPORTS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How far a program is at a moment."""

    at_s: float
    """Monotonic seconds."""
    out_s: float
    """Seconds of media done."""
    frames: int
    """Done so far."""
    lost_frames: int
    """Dropped so far; of a capture also those that others stand in for."""


class LagWatch:
    """One program that is to keep up with real time."""

    def __init__(self, *, below: float, frame_rate: float | None) -> None:
        """Knows nothing yet.

        Args:
            below: In times real time; slower than this it is behind.
            frame_rate: Frames per second that it ought to do. None: not known, so frames are not told.
        """
        self._below = below
        self._frame_rate = frame_rate
        self._readings: deque[Reading] = deque(maxlen=_LONGEST_REPORTS)
        self._best_lead_s: float | None = None
        self._told: str | None = None

    @property
    def told(self) -> str | None:
        """What is wrong, for people. None: it keeps up, or nothing is known yet."""
        return self._told

    def note(self, reading: Reading) -> None:
        """Takes a reading in; each is later than the one before."""
        if self._readings and reading.at_s <= self._readings[-1].at_s:
            self._readings.pop()
        self._readings.append(reading)
        while len(self._readings) > 1 and reading.at_s - self._readings[1].at_s >= WINDOW_S:
            self._readings.popleft()
        lead_s = reading.out_s - reading.at_s
        self._best_lead_s = lead_s if self._best_lead_s is None else max(self._best_lead_s, lead_s)
        first = self._readings[0]
        if reading.at_s - first.at_s >= WINDOW_S:
            self._told = self._judged(first, reading, behind_s=self._best_lead_s - lead_s)

    def begin_anew(self) -> None:
        """Forgets what was: it stood still for a reason, and what it missed meanwhile nobody waits for."""
        self._readings.clear()
        self._best_lead_s = self._told = None

    def _judged(self, first: Reading, last: Reading, *, behind_s: float) -> str | None:
        passed_s = last.at_s - first.at_s
        speed = max(last.out_s - first.out_s, 0.0) / passed_s
        done, lost = last.frames - first.frames, max(last.lost_frames - first.lost_frames, 0)
        share = lost / max(done, lost, 1)
        told = []
        if self._is_slow(speed, behind_s):
            told.append(self._slowness(speed, done / passed_s, behind_s))
        if share > _MOST_LOST / (2 if self._told else 1):
            told.append(f"It lost {lost:,} of {max(done, lost):,} frames in {passed_s:.0f} s.")
        return " ".join(told) or None

    def _is_slow(self, speed: float, behind_s: float) -> bool:
        if self._told is None:
            return speed < self._below and behind_s >= _LEAST_BEHIND_S
        return speed < self._below + (1 - self._below) * 2 / 3

    def _slowness(self, speed: float, rate: float, behind_s: float) -> str:
        if self._frame_rate is None:
            return f"It runs at {speed:.2f} of real time, {behind_s:.1f} s behind."
        behind = round(behind_s * self._frame_rate)
        return (
            f"It runs at {speed:.2f} of real time, {rate:.1f} of {self._frame_rate:.4g} frames/s, {behind:,} frames "
            "behind."
        )
