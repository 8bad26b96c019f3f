"""Collects everything that is wrong with a request, so that its sender hears of all of it at once.

The checks that several parts of a request share are here: enum numbers, durations, frame rates, ranges.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.runtime.failures import Reason, Violation, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized

    from google.protobuf.duration_pb2 import Duration

    from gpu_balancer.v1.media_pb2 import FrameRate

SECOND = 1_000_000_000
"""In nanoseconds, which durations are counted in: exact, and without limits."""
DAY = 86_400 * SECOND

MAX_VIOLATIONS = 100
"""Kept and told; further ones are counted. A status holds fewer still."""

_MAX_FRAME_RATE_PART = 1_001_000
"""ffmpeg's own bound when it reads a frame rate (`av_parse_video_rate`)."""


class Violations:
    """What was found so far."""

    __slots__ = ("_found", "_reason", "_untold")

    def __init__(self) -> None:
        """Begins with nothing found."""
        self._found: list[Violation] = []
        self._reason = Reason.INVALID_REQUEST
        self._untold = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, field: str, description: str, *, reason: Reason = Reason.INVALID_REQUEST) -> None:
        """Notes that a field is wrong.

        Args:
            field: Its path from the request.
            description: What is wrong and what would be right, without secrets.
            reason: The reason of the whole failure, should this remain the only violation.
        """
        self._reason = Reason.INVALID_REQUEST if self._found else reason
        if len(self._found) < MAX_VIOLATIONS:
            self._found.append(Violation(field=field, description=description))
        else:
            self._untold += 1

    def refuse(self) -> None:
        """Raises what was found, if anything.

        Raises:
            RequestFailure: With every violation, up to MAX_VIOLATIONS and a last one that counts the rest.
        """
        if self._untold:
            more = Violation(field="request", description=f"must lose {self._untold:,} more mistakes like these")
            raise invalid(*self._found, more, reason=self._reason)
        if self._found:
            raise invalid(*self._found, reason=self._reason)

    def check_count(self, field: str, items: Sized, most: int) -> None:
        """Notes a list that is too long; nothing else should then be done with it."""
        if len(items) > most:
            self.add(field, f"must be at most {most}, not {len(items):,}")

    def check_enum(self, field: str, number: int, known: Mapping[int, object]) -> bool:
        """Notes an enum number that this version of the contract does not know; tells whether it does."""
        if number in known:
            return True
        told = ", ".join(str(name) for name in known.values())
        self.add(field, f"must be one of {told}; {number} is none of them")
        return False

    def check_range(self, field: str, value: int, lowest: int, highest: int, unit: str = "") -> bool:
        """Notes a figure out of bounds; tells whether it is within them."""
        if lowest <= value <= highest:
            return True
        self.add(field, f"must be {lowest:,} to {highest:,}{unit}, not {value:,}")
        return False

    def check_duration(self, field: str, duration: Duration, lowest: int, highest: int) -> int | None:
        """Notes a duration that is malformed or out of bounds.

        Args:
            field: Its path.
            duration: As it came; its parts may contradict each other.
            lowest: In nanoseconds.
            highest: In nanoseconds.

        Returns:
            Nanoseconds. None: it cannot be used.
        """
        seconds, nanos = duration.seconds, duration.nanos
        if abs(nanos) >= SECOND or (seconds > 0 > nanos) or (seconds < 0 < nanos):
            self.add(field, f"must be a duration whose parts agree, not {seconds} s and {nanos} ns")
            return None
        length = seconds * SECOND + nanos
        if lowest <= length <= highest:
            return length
        self.add(field, f"must be {_told(lowest)} to {_told(highest)}, not {_told(length)}")
        return None

    def check_frame_rate(self, field: str, rate: FrameRate, lowest: int, highest: int) -> bool:
        """Notes a frame rate that is no fraction or out of bounds, in frames per second; tells whether it is right."""
        numerator, denominator = rate.numerator, rate.denominator
        if denominator == 0:
            self.add(f"{field}.denominator", "must not be 0; a rate is frames over seconds, 30000/1001 for instance")
        elif numerator > _MAX_FRAME_RATE_PART or denominator > _MAX_FRAME_RATE_PART:
            self.add(field, f"must be a fraction of figures up to {_MAX_FRAME_RATE_PART:,}, not {_rate(rate)}")
        elif not lowest * denominator <= numerator <= highest * denominator:
            self.add(field, f"must be {lowest} to {highest} frames per second, not {_rate(rate)}")
        else:
            return True
        return False


def _told(nanoseconds: int) -> str:
    if nanoseconds and nanoseconds % DAY == 0:
        return f"{nanoseconds // DAY} d"
    return f"{nanoseconds / SECOND:.9g} s"


def _rate(rate: FrameRate) -> str:
    return f"{rate.numerator}/{rate.denominator}"
