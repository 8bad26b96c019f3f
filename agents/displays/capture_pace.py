"""How long a picture may be waited for that is about to be drawn.

Only while something new was drawn for one picture after the other, but for a moment now and then when the browser or
the machine hung: a page that rests, or a film of 25 pictures a second in a recording of 30, is looked at when its time
has come. Otherwise what is drawn at last would be taken somewhat too early, and sound would no longer be in step.

The grabber has a time for each picture and asks for it then. Held up, it asks for the rest in quick succession until it
is in time again. Each picture gets a place in the recording by when it was asked for, and of two that come to the same
one only the first is kept (`agents.pipelines.capture_filters`). So the places are followed here: what will be left out
is not waited for, and anything else for no longer than the next picture still comes to its own in time.
"""

from __future__ import annotations

from collections import deque

_LOOKED_BACK = 32
"""Pictures, a second at 30 a second."""
_PICTURES_FOR_ONE_HANG = 16
"""So seldom shows a page in motion nothing new, for one picture or some in a row. A film of 25 a second does so twice
in as many, at least."""
_MOST_OLD = 4
"""Pictures of those looked back at that show nothing new. Then a page rests."""
_FEW = 9
"""Pictures from which it is told how long taking one and waiting for one lasts."""

# Shares of the time from one picture to the next.
EARLIEST, LATEST, LATEST_OF_HANG = -0.6, 0.9, 3.1
"""Between the first two a picture asked for early or late gets the place that is its turn, else the nearest. The third
is in place of the second after one that was not late, or where pictures are less late one after the other."""
CATCHING_UP = 0.5
"""By how much less late a picture is than the one before where the grabber catches up."""
_IN_TIME, _RESTED = 0.1, 0.25
"""Whoever asks so close to one picture's time after the last one, and had nothing to do for so long, was not held up.
Then the places are known anew."""
_LATEST_WANTED = 0.75
"""So late the next picture may be asked for because this one was waited for."""
_SOON = 0.75
"""Where pictures are usually waited for no longer, whoever draws later hangs, and is waited for as long as the next
picture comes to its place."""
_PATIENCE = 0.95
"""Otherwise it is waited for until shortly before the next picture: a film of 29.97 a second, in a recording of 30, is
drawn later and later, and must not come a whole picture before its sound."""


class CapturePace:
    """Follows the pictures that a grabber asks for. Times in seconds of one clock."""

    def __init__(self) -> None:
        """Has seen none."""
        self._asked_s: float | None = None
        self._taken_s = 0.0
        self._placed = True
        """Whether the last picture came to a place of its own."""
        self._place_s = 0.0
        """Time of the place that it came to."""
        self._late = 0.0
        """How late it was for that, in places."""
        self._distances_s: deque[float] = deque(maxlen=_LOOKED_BACK)
        self._waits_s: deque[float] = deque(maxlen=_FEW)
        self._takings_s: deque[float] = deque(maxlen=_FEW)
        self._new: deque[bool] = deque(maxlen=_LOOKED_BACK)

    def asked(self, now_s: float) -> float:
        """Hears that a picture is asked for.

        Returns:
            How long something new may be waited for. 0: not at all.
        """
        before_s, self._asked_s = self._asked_s, now_s
        if before_s is None:
            self._place_s = now_s
            return 0.0
        self._distances_s.append(now_s - before_s)
        usual_s = _middle(self._distances_s)
        punctual = abs(now_s - before_s - usual_s) <= _IN_TIME * usual_s
        if punctual and now_s - self._taken_s >= _RESTED * usual_s:
            self._placed, self._place_s, self._late = True, now_s, 0.0
        else:
            self._find_place(now_s, usual_s)
        if not self._placed or not self._in_motion():
            return 0.0
        until_s = self._place_s + _PATIENCE * usual_s
        if _middle(self._waits_s) <= _SOON * usual_s:
            # Taking this one comes before the next is asked for, and may last longer than usually.
            until_s = max(until_s, self._place_s + (1 + _LATEST_WANTED) * usual_s - 2 * _middle(self._takings_s))
        return max(0.0, until_s - now_s)

    def _find_place(self, now_s: float, usual_s: float) -> None:
        """Finds the place of a picture by that of the one before."""
        turn_s = self._place_s + usual_s
        late = (now_s - turn_s) / usual_s
        hangs = self._late <= LATEST or late < self._late - CATCHING_UP
        places = 0 if EARLIEST <= late <= (LATEST_OF_HANG if hangs else LATEST) else max(-1, round(late))
        self._placed, self._place_s, self._late = places > -1, turn_s + places * usual_s, late - places

    def taken(self, *, new: bool, from_s: float, until_s: float) -> None:
        """Hears that the picture is taken.

        Args:
            new: Whether something was drawn since the one before.
            from_s: When nothing was waited for any longer.
            until_s: When the grabber had it.
        """
        self._taken_s = until_s
        self._takings_s.append(until_s - from_s)
        if self._placed:
            self._new.append(new)
            self._waits_s.append(from_s - self._place_s)

    def _in_motion(self) -> bool:
        if self._new.count(False) > _MOST_OLD:
            return False
        known = len(self._new)
        hangs = sum(before and not new for before, new in zip((True, *self._new), self._new, strict=False))
        return known >= _PICTURES_FOR_ONE_HANG and hangs <= known // _PICTURES_FOR_ONE_HANG


def _middle(values: deque[float]) -> float:
    return sorted(values)[len(values) // 2]
