"""How long a picture may be waited for that is about to be drawn.

Only while something new was drawn for one picture after the other: a page that rests, or a film of 25 pictures a second
in a recording of 30, is looked at when its time has come. Otherwise what is drawn at last would be taken somewhat too
early, and sound would no longer be in step with it.
"""

from __future__ import annotations

from collections import deque

_KNOWN_AFTER = 9
"""Pictures from whose distances the grabber's rate is told."""
_LOOKED_BACK = 16
"""Pictures, half a second at 30 a second: of a film of 25 a second two of so many show nothing new, at least."""
_MAY_BE_OLD = 1
"""Of those."""
_SHARE = 0.95
"""Of the time from one picture to the next. A browser that was held up draws twice in quick succession, and the first
of the two is lost where it comes after the wait and the second before the next picture. The rest is for taking it: the
next one may be asked for late by less than half its time, or it would take the place of the one after it."""


class CapturePace:
    """Follows the pictures that a grabber asks for. Times in seconds of one clock."""

    def __init__(self) -> None:
        """Has seen none."""
        self._asked_s: float | None = None
        self._distances_s: deque[float] = deque(maxlen=_KNOWN_AFTER)
        self._new: deque[bool] = deque(maxlen=_LOOKED_BACK)

    def asked(self, now_s: float) -> float:
        """Hears that a picture is asked for.

        Returns:
            How long something new may be waited for. 0: not at all.
        """
        if self._asked_s is not None:
            self._distances_s.append(now_s - self._asked_s)
        self._asked_s = now_s
        in_motion = len(self._new) == _LOOKED_BACK and self._new.count(False) <= _MAY_BE_OLD
        return _SHARE * sorted(self._distances_s)[len(self._distances_s) // 2] if in_motion else 0.0

    def taken(self, *, new: bool) -> None:
        """Hears that the picture is taken, and whether something was drawn since the one before."""
        self._new.append(new)
