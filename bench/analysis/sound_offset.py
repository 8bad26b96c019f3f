"""How far beeps are from their flashes in a recording of `bench/pages/beep.html`, and whether that drifts.

A flash is timed by the first frame that shows it, as a viewer sees it. So a frame's length over two is part of the
offset: a flash waits that long, on average, for the frame that shows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.decoding import SOUND_RATE_HZ, shrunk_frames, sound_pieces
from bench.analysis.drift import Drift, drift_of

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_SHARE_OF_PEAK = 0.3
"""Of the loudest sample: above it is beep. AAC lets a beep begin a little early, but softly."""
_REST_S = 0.3
"""Below the threshold for so long: the next crossing is a new beep."""
_FARTHEST_S = 0.45
"""A flash and a beep farther apart do not belong together."""
_BELOW_STRIP = "iw:ih*3/4:0:ih/8"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoundOffset:
    """Offsets of all pairs of beep and flash in a recording. Positive: the sound comes after its picture."""

    times_s: NDArray[np.float64]
    """When each pair is, in the file's time."""
    offsets_s: NDArray[np.float64]
    unpaired: int
    """Flashes and beeps, between the first pair and the last, without a partner."""

    @property
    def median_s(self) -> float:
        """Gives the middle offset."""
        return float(np.median(self.offsets_s))

    @property
    def spread_s(self) -> float:
        """Gives how far apart the 5th and the 95th of a hundred offsets are."""
        return float(np.percentile(self.offsets_s, 95) - np.percentile(self.offsets_s, 5))

    @property
    def drift(self) -> Drift:
        """Gives how the offsets grow."""
        return drift_of(self.times_s, self.offsets_s)


def measure_sound_offset(path: Path) -> SoundOffset:
    """Pairs the flashes and beeps of a recording.

    Raises:
        ValueError: When there is no pair.
    """
    return pair(flash_times_s(path), beep_times_s(path))


def flash_times_s(path: Path) -> NDArray[np.float64]:
    """Gives the times of the frames in which the page has turned white."""
    frames = shrunk_frames(path, width=1, height=1, crop=_BELOW_STRIP)
    white = frames.levels[:, 0, 0] > 127
    return frames.times_s[1:][white[1:] & ~white[:-1]]


def beep_times_s(path: Path) -> NDArray[np.float64]:
    """Gives the times at which a sound begins after silence, to the sample."""
    peak = max((int(np.abs(piece.astype(np.int32)).max()) for piece in sound_pieces(path)), default=0)
    threshold, place, last, found = max(1.0, peak * _SHARE_OF_PEAK), 0, -SOUND_RATE_HZ, []
    for piece in sound_pieces(path):
        loud = np.flatnonzero(np.abs(piece.astype(np.int32)) >= threshold) + place
        if len(loud):
            gaps = np.diff(loud, prepend=last)
            found.extend(loud[gaps > _REST_S * SOUND_RATE_HZ].tolist())
            last = int(loud[-1])
        place += len(piece)
    return np.array(found, np.float64) / SOUND_RATE_HZ


def pair(flashes_s: NDArray[np.float64], beeps_s: NDArray[np.float64]) -> SoundOffset:
    """Puts each flash together with the beep that is nearest to it.

    Raises:
        ValueError: When there is no pair.
    """
    times, offsets, heard = [], [], set[float]()
    for flash in flashes_s.tolist():
        beep = float(beeps_s[np.argmin(np.abs(beeps_s - flash))]) if len(beeps_s) else np.inf
        if abs(beep - flash) <= _FARTHEST_S and beep not in heard:
            heard.add(beep)
            times.append(flash)
            offsets.append(beep - flash)
    if not times:
        raise ValueError(f"Cannot pair: {len(flashes_s)} flashes, {len(beeps_s)} beeps. Try a recording of beep.html.")
    inside = [
        int(((events >= times[0] - _FARTHEST_S) & (events <= times[-1] + _FARTHEST_S)).sum())
        for events in (flashes_s, beeps_s)
    ]
    return SoundOffset(times_s=np.array(times), offsets_s=np.array(offsets), unpaired=sum(inside) - 2 * len(times))
