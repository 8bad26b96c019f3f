"""How offsets of sound and picture drift, apart from the beat of two clocks.

A display shows what a page draws at its own pace, and a recording looks at it at another. Where the paces are nearly
alike, what is seen falls behind by and by, by up to one of the display's pictures, and then jumps back: a sawtooth that
lasts minutes. A straight line takes its flank for drift: a picture of a sixtieth of a second in seven minutes is 143 ms
an hour. So line and beat are fitted together, the beat as a period with its first harmonics (linear regression), where
the Bayesian information criterion says that there is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float64]

_HARMONICS = 4
_SHORTEST_BEAT_S = 30.0
_BEATS_AT_LEAST = 2
"""In the length: a slower one cannot be told from drift."""
_PERIODS = 200
"""That are tried: enough to be off by less than a fiftieth of a beat at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A drift, and how well it is known."""

    s_per_hour: float
    """Seconds that offsets grow in an hour; not a number when there are fewer than three."""
    error_s_per_hour: float
    """Standard error, as if each offset were off by chance, apart from the others."""
    beat_s: float | None
    """Period of the beat that was told apart. None: none was seen."""


def drift_of(times_s: Values, offsets_s: Values) -> Drift:
    """Tells the drift of offsets.

    Args:
        times_s: When each was, in seconds, ascending.
        offsets_s: The offsets, in seconds.
    """
    if len(times_s) < 3:
        return Drift(s_per_hour=float("nan"), error_s_per_hour=float("nan"), beat_s=None)
    around = times_s - times_s.mean()
    length_s = float(times_s[-1] - times_s[0])
    slowest_s = length_s / _BEATS_AT_LEAST
    periods = np.geomspace(_SHORTEST_BEAT_S, slowest_s, _PERIODS) if slowest_s > _SHORTEST_BEAT_S else np.empty(0)
    beats = [None, *periods.tolist()]
    return min((_fitted(around, offsets_s, beat_s) for beat_s in beats), key=lambda fitted: fitted[0])[1]


def _fitted(around_s: Values, offsets_s: Values, beat_s: float | None) -> tuple[float, Drift]:
    """Fits a line, and a beat if one is given. Gives the criterion, the lower the better, beside it."""
    columns = [np.ones_like(around_s), around_s]
    if beat_s is not None:
        for harmonic in range(1, _HARMONICS + 1):
            angle = 2 * np.pi * harmonic * around_s / beat_s
            columns += [np.sin(angle), np.cos(angle)]
    matrix = np.column_stack(columns)
    count, known = matrix.shape
    freedom = count - known
    if freedom < 1:
        return float("inf"), Drift(s_per_hour=float("nan"), error_s_per_hour=float("nan"), beat_s=beat_s)
    solution, _, _, _ = np.linalg.lstsq(matrix, offsets_s, rcond=None)
    rest = float(((offsets_s - matrix @ solution) ** 2).sum())
    error = np.sqrt(rest / freedom * np.linalg.pinv(matrix.T @ matrix)[1, 1])
    # A period that was looked for is one more thing that was chosen. Offsets are known to a sample at best.
    chosen = known + (beat_s is not None)
    criterion = count * np.log(max(rest / count, 1e-10)) + chosen * np.log(count)
    return float(criterion), Drift(
        s_per_hour=float(solution[1] * 3600), error_s_per_hour=float(error * 3600), beat_s=beat_s
    )
