"""Whose turn it is when cores are short: what draws the pictures of a recording, or what encodes them.

Before the encoder there is a queue of pictures, a second or two long. What draws has none: a browser that has to wait
draws less, and what it did not draw is in no file. So the encoder gives way, for as long as it keeps up. A page that
takes every core there is would starve it then; once it is late it stands on a par with the display, as at the start,
until it has kept up for a while.

It gives way only where the pictures are taken in real time: otherwise that would have to wait with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.precedence import give_precedence, look_in_real_time, withdraw_precedence

if TYPE_CHECKING:
    from agents.recordings.state import Take

_LATE_S = 0.5
"""Above the time between two reports, and with the time between two looks below what the queue before it holds."""
_HELD_S = 60.0


class EncoderTurns:
    """Decides for the ffmpeg of one take."""

    def __init__(self, frame_rate: float) -> None:
        """Begins on a par.

        Args:
            frame_rate: Frames per second of the take.
        """
        self._frame_rate = frame_rate
        self._looks_in_time: bool | None = None
        self._gives_way = False
        self._least_delay_s = float("inf")
        self._late_s = float("-inf")

    def follow(self, ffmpeg: int, take: Take, at_s: float) -> None:
        """Does what is due, again and again while a take records.

        Args:
            ffmpeg: Process id.
            take: What was read of it last.
            at_s: Monotonic seconds now.
        """
        if not take.frames:
            return
        if self._looks_in_time is None:
            self._looks_in_time = look_in_real_time(ffmpeg)
        if not self._looks_in_time:
            return
        # Of a take that began at an unknown time only the changes tell.
        delay_s = at_s - take.frames / self._frame_rate
        self._least_delay_s = min(delay_s, self._least_delay_s)
        if delay_s - self._least_delay_s > _LATE_S:
            self._late_s = at_s
        gives_way = at_s - self._late_s >= _HELD_S
        if gives_way != self._gives_way and (withdraw_precedence if gives_way else give_precedence)(ffmpeg):
            self._gives_way = gives_way
            # What was late may stay behind for good: the frames that it lost do not come back.
            self._least_delay_s = delay_s
