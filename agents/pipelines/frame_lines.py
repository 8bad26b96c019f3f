"""Reads what ffmpeg's `-stats_enc_pre` writes: a line for each picture that goes into an encoder.

A line tells which picture of the capture it is and when that was taken. Two lines of the same picture mean that the
later one stands in for a picture that could not be taken in time; a number that is left out is a picture that was taken
and not used. So what was lost can be told from what merely did not change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta

_LINE = re.compile(r"(\d{1,18}) (\d{1,18}) (-?\d{1,12}(?:\.\d{1,9})?) (-?\d{1,12}(?:\.\d{1,9})?)")
_LONGEST_LINE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTruth:
    """What became of the pictures of a take."""

    encoded_frames: int = 0
    captured_frames: int = 0
    """Pictures taken of the display."""
    duplicated_frames: int = 0
    """Encoded ones in which an earlier picture stands in for one that could not be taken."""
    dropped_frames: int = 0
    """Captured ones that were left out. Captured ones are encoded ones less duplicated ones and with dropped ones."""
    first_time: timedelta | None = None
    """Media time of the first picture. None: there is none yet."""
    last_time: timedelta | None = None
    """Media time of the latest picture."""
    longest_freeze: timedelta = timedelta()
    """The longest time for which one picture stood in the place of others: from the first of those to the next one that
    was taken. 0 when each picture was."""
    last_index: int | None = None
    """Number of the latest picture in the capture."""
    standing_in_since: timedelta | None = None
    """Media time of the first picture in whose place the latest one stands. None: it stands for itself alone."""


def parse_frame_lines(text: str, previous: FrameTruth | None) -> tuple[FrameTruth, str]:
    """Reads on in a file of frame lines.

    Args:
        text: What was left over the last time, and what has come since.
        previous: What was known before. None: nothing.

    Returns:
        What is known now; and what is left over of a line that has no end yet, to be put before the next text. A line
        that cannot be read is skipped.
    """
    truth = previous or FrameTruth()
    *lines, left = text.split("\n")
    for line in lines:
        found = _LINE.fullmatch(line.strip())
        if found is not None:
            truth = _with(truth, index=int(found[2]), time=timedelta(seconds=float(found[3])))
    return truth, left[-_LONGEST_LINE:]


def join_truths(truths: tuple[FrameTruth, ...]) -> FrameTruth:
    """Sums up takes, in order. Times are those of the takes that have them; the pauses between are no freezes."""
    return FrameTruth(
        encoded_frames=sum(one.encoded_frames for one in truths),
        captured_frames=sum(one.captured_frames for one in truths),
        duplicated_frames=sum(one.duplicated_frames for one in truths),
        dropped_frames=sum(one.dropped_frames for one in truths),
        first_time=next((one.first_time for one in truths if one.first_time is not None), None),
        longest_freeze=max((one.longest_freeze for one in truths), default=timedelta()),
    )


def _with(truth: FrameTruth, *, index: int, time: timedelta) -> FrameTruth:
    stands_in = index == truth.last_index
    since = truth.standing_in_since if truth.standing_in_since is not None else time
    longest = truth.longest_freeze
    if stands_in or truth.standing_in_since is not None:
        longest = max(longest, time - since)
    skipped = max(index - (truth.last_index + 1 if truth.last_index is not None else 0), 0)
    return replace(
        truth,
        encoded_frames=truth.encoded_frames + 1,
        captured_frames=max(truth.captured_frames, index + 1),
        duplicated_frames=truth.duplicated_frames + stands_in,
        dropped_frames=truth.dropped_frames + skipped,
        first_time=time if truth.first_time is None else truth.first_time,
        last_time=time,
        longest_freeze=longest,
        last_index=index,
        standing_in_since=since if stands_in else None,
    )
