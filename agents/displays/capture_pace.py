"""How long a picture may be waited for that is about to be drawn.

Only while something new was drawn for one picture after the other, but for a moment now and then when the browser or
the machine hung: a page that rests, or a film of 25 pictures a second in a recording of 30, is looked at when its time
has come. Otherwise what is drawn at last would be taken somewhat too early, and sound would no longer be in step.
"""

from __future__ import annotations

from collections import deque

_KNOWN_AFTER = 9
"""Pictures from whose distances the grabber's rate is told."""
_LOOKED_BACK = 32
"""Pictures, a second at 30 a second."""
_PICTURES_FOR_ONE_HANG = 16
"""So seldom shows a page in motion nothing new, for one picture or some in a row. A film of 25 a second does so twice
in as many, at least."""
_MOST_OLD = 4
"""Pictures of those looked back at that show nothing new. Then a page rests."""
_CATCHES_UP = 0.5
"""Of the time from one picture to the next. Whoever asks again so soon catches up after the machine stood still, and
will drop this picture: what is drawn next is left to one that is kept."""
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
        distance_s = None if self._asked_s is None else now_s - self._asked_s
        self._asked_s = now_s
        if distance_s is None:
            return 0.0
        self._distances_s.append(distance_s)
        usual_s = sorted(self._distances_s)[len(self._distances_s) // 2]
        return _SHARE * usual_s if self._in_motion() and distance_s > _CATCHES_UP * usual_s else 0.0

    def taken(self, *, new: bool) -> None:
        """Hears that the picture is taken, and whether something was drawn since the one before."""
        self._new.append(new)

    def _in_motion(self) -> bool:
        if self._new.count(False) > _MOST_OLD:
            return False
        known = len(self._new)
        hangs = sum(before and not new for before, new in zip((True, *self._new), self._new, strict=False))
        return known >= _PICTURES_FOR_ONE_HANG and hangs <= known // _PICTURES_FOR_ONE_HANG
