"""How offsets of sound and picture drift, and how well that is known.

Offsets wander without drifting. A recording looks at a display at almost half of the display's pace, so that what it
sees falls behind by up to one of the display's pictures and then jumps back, once in some seven minutes; and a browser
shows a film's pictures in a steady pattern, which it leaves only when they are some 15 ms off their sound. So offsets
that are near one another err alike, and a line through a few minutes tells of the wandering alone: through the flank of
the first, 143 ms an hour. Over an hour the first is 0.6 ms of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

_PARTS = 12
"""Of the length: five minutes of an hour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A drift, and how well it is known. Not a number both, when there are fewer than three offsets."""

    s_per_hour: float
    """Seconds that offsets grow in an hour."""
    error_s_per_hour: float
    """Standard error, with offsets of one of twelve parts of the length allowed to err alike."""


def drift_of(times_s: Values, offsets_s: Values) -> Drift:
    """Tells the drift of offsets: the slope of a line through them, by least squares.

    The error is the cluster-robust one (Liang and Zeger 1986), with K / (K - 2) for K parts.

    Args:
        times_s: When each was, in seconds, ascending.
        offsets_s: The offsets, in seconds.
    """
    count = len(times_s)
    if count < 3:
        return Drift(s_per_hour=float("nan"), error_s_per_hour=float("nan"))
    around = times_s - times_s.mean()
    weights = around / (around**2).sum()
    slope = float(weights @ offsets_s)
    rest = offsets_s - offsets_s.mean() - slope * around
    parts = min(_PARTS, count)
    sums = np.bincount(np.arange(count) * parts // count, weights=weights * rest)
    error = float(np.sqrt((sums**2).sum() * parts / (parts - 2)))
    return Drift(s_per_hour=slope * 3600, error_s_per_hour=error * 3600)
