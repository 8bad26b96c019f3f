"""Reads the strip that `bench/pages/strip.js` draws back from every frame of a recording, and accounts for each one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.analysis.decoding import shrunk_frames

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_CHECK_FLIP = 0x5A
_COLUMNS = 32
_STRIP = "iw:ih/8:0:0"
WRAP_MS = 1 << 24
"""The page's time begins anew after 4.66 hours."""
_IN_STEP_MS = 9
"""Somewhat more than half of the time between two drawings at 60 a second."""
_WEIGHTS = 1 << np.arange(_COLUMNS - 1, -1, -1, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What the strip says in each frame."""

    times_s: NDArray[np.float64]
    """Presentation times of the frames."""
    drawings: NDArray[np.int64]
    """Number of the drawing that each shows; -1 where it cannot be read."""
    page_ms: NDArray[np.int64]
    """When the page drew it, in ms of Unix time modulo `WRAP_MS`; -1 where it cannot be read."""

    def drawn_ms(self) -> NDArray[np.int64]:
        """Gives when the page drew what each readable frame shows, in ms, counted on where its time begins anew."""
        read = self.page_ms[self.page_ms >= 0]
        steps = (np.diff(read) + WRAP_MS // 2) % WRAP_MS - WRAP_MS // 2
        return np.concatenate((read[:1], read[:1] + np.cumsum(steps)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Frames in a row that should have shown something else."""

    frames: int
    before_ms: int
    """When the page drew what the last good frame before them shows, in ms of Unix time modulo `WRAP_MS`."""
    after_ms: int
    """When it drew what the first good frame after them shows."""

    def in_step(self, frame_rate: float) -> bool:
        """Tells whether the page went on meanwhile as far as the recording did: then it may be the recorder's fault.

        Where the page's own time has come less far or farther, what it had drawn came late to the screen.

        Args:
            frame_rate: Frames per second of the recording.
        """
        lasted_ms = (self.after_ms - self.before_ms) % WRAP_MS
        return abs(lasted_ms - (self.frames + 1) * 1000 / frame_rate) <= _IN_STEP_MS

    def meets(self, begin_s: float, end_s: float, *, leeway_s: float) -> bool:
        """Tells whether they were lost at a time.

        Args:
            begin_s: Unix time.
            end_s: Unix time.
            leeway_s: How far apart both may be.
        """
        lasted_ms = (self.after_ms - self.before_ms) % WRAP_MS
        since_begin_ms = (round((end_s + leeway_s) * 1000) - self.before_ms) % WRAP_MS
        allowed_ms = lasted_ms + round((end_s - begin_s + 2 * leeway_s) * 1000)
        return since_begin_ms <= allowed_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameCount:
    """What became of the drawings of a page in a recording."""

    frames: int
    """Frames in the file."""
    leading_unreadable: int
    """Frames before the first that shows a strip."""
    unreadable: int
    """Frames after it that show none."""
    repeated: int
    """Frames that show the drawing of the frame before."""
    repeated_by_page: int
    """Those of them for which the page had drawn nothing new."""
    absent: int
    """Frames that the file has no frame for: its times jump over them."""
    unseen: int
    """Drawings that no frame shows, beyond those that the page draws between two frames anyhow."""
    backwards: int
    """Frames that show an older drawing than the frame before."""
    longest_freeze_s: float
    """The longest time for which the picture stood while the page went on drawing."""
    page_rate: float
    """Drawings per second of the page's own time."""
    losses: tuple[Loss, ...] = ()
    """The repeated and absent ones among the lost, and when."""

    @property
    def lost(self) -> int:
        """Gives the frames that should have shown something else, and did not.

        The recorder's faults are in it, and those of a browser whose drawings came to the screen late.
        """
        return self.repeated - self.repeated_by_page + self.absent + self.unreadable + self.backwards


def check_byte(value: int) -> int:
    """Gives the check byte of a number of 24 bits: CRC-8 with polynomial 0x07, one pattern flipped."""
    remainder = 0
    for bit in range(23, -1, -1):
        carry = (remainder >> 7 ^ value >> bit) & 1
        remainder = (remainder << 1 & 0xFF) ^ (0x07 if carry else 0)
    return remainder ^ _CHECK_FLIP


def read_strip(path: Path) -> Reading:
    """Reads the strip of every frame."""
    frames = shrunk_frames(path, width=_COLUMNS, height=2, crop=_STRIP)
    # Cells are black or white; grey means that something else is shown, or half of something.
    clear = ((frames.levels < 80) | (frames.levels > 175)).all(axis=2)
    words = (frames.levels > 127).astype(np.int64) @ _WEIGHTS
    numbers = words >> 8
    right = np.array([[check_byte(int(word) >> 8) == word & 0xFF for word in row] for row in words])
    valid = (right & clear).all(axis=1)
    return Reading(
        times_s=frames.times_s,
        page_ms=np.where(valid, numbers[:, 0], -1),
        drawings=np.where(valid, numbers[:, 1], -1),
    )


def count_frames(reading: Reading, *, frame_rate: float) -> FrameCount:
    """Accounts for every frame.

    Args:
        reading: What was read.
        frame_rate: Frames per second that the file should have.

    Raises:
        ValueError: When fewer than two frames show a strip.
    """
    readable = np.flatnonzero(reading.drawings >= 0)
    if len(readable) < 2:
        raise ValueError("Cannot count: fewer than two frames show a strip. Try a page with one.")
    drawings, times_s = reading.drawings[readable], reading.times_s[readable]
    steps = np.diff(drawings)
    usual = max(1, round(float(np.median(steps))))
    drawn_ms = reading.page_ms[readable]
    repeated, by_page, freeze_s, losses = _repetitions(steps, times_s, drawn_ms)
    slots = np.rint(np.diff(reading.times_s) * frame_rate).astype(int)
    gaps = np.rint(np.diff(times_s) * frame_rate).astype(int)
    losses += [
        Loss(frames=int(gaps[place] - 1), before_ms=int(drawn_ms[place]), after_ms=int(drawn_ms[place + 1]))
        for place in np.flatnonzero(gaps > 1)
    ]
    page_s = int(reading.page_ms[readable[-1]] - reading.page_ms[readable[0]]) % WRAP_MS / 1000
    return FrameCount(
        frames=len(reading.drawings),
        leading_unreadable=int(readable[0]),
        unreadable=len(reading.drawings) - int(readable[0]) - len(readable),
        repeated=repeated,
        repeated_by_page=by_page,
        absent=int(np.maximum(slots - 1, 0).sum()),
        unseen=int(np.maximum(steps - usual, 0).sum()) if usual == 1 else 0,
        backwards=int((steps < 0).sum()),
        longest_freeze_s=freeze_s,
        page_rate=int(drawings[-1] - drawings[0]) / page_s if page_s else 0.0,
        losses=tuple(losses),
    )


def _repetitions(
    steps: NDArray[np.int64], times_s: NDArray[np.float64], drawn_ms: NDArray[np.int64]
) -> tuple[int, int, float, list[Loss]]:
    """Counts frames that repeat, those that the page is to blame for, the longest freeze beside them, and losses."""
    repeated, by_page, freeze_s, run = 0, 0, 0.0, 0
    losses: list[Loss] = []
    for place, step in enumerate(steps.tolist()):
        if step == 0:
            run += 1
            continue
        if run:
            # Of the drawings that came after the run, one belongs to the frame that shows it.
            blamed = min(run, max(0, step - 1))
            repeated += run
            by_page += run - blamed
            if blamed:
                freeze_s = max(freeze_s, float(times_s[place + 1] - times_s[place - run]))
                before_ms, after_ms = int(drawn_ms[place - run]), int(drawn_ms[place + 1])
                losses.append(Loss(frames=blamed, before_ms=before_ms, after_ms=after_ms))
            run = 0
    return repeated + run, by_page, freeze_s, losses


def first_drawing_time_s(reading: Reading, *, after_s: float) -> float:
    """Tells when the page drew what the first readable frame shows, in seconds of Unix time.

    Args:
        reading: What was read.
        after_s: A Unix time before it, not by more than 4 hours.

    Raises:
        ValueError: When no frame shows a strip.
    """
    readable = np.flatnonzero(reading.drawings >= 0)
    if not len(readable):
        raise ValueError("Cannot tell: no frame shows a strip. Try a page with one.")
    after_ms = round(after_s * 1000)
    return (after_ms + (int(reading.page_ms[readable[0]]) - after_ms) % WRAP_MS) / 1000
