"""How long a picture may be waited for that is about to be drawn.

Only while something new was drawn for one picture after the other, but for a moment now and then when the browser or
the machine hung: a page that rests, or a film of 25 pictures a second in a recording of 30, is looked at when its time
has come. Otherwise what is drawn at last would be taken somewhat too early, and sound would no longer be in step.

The grabber has a time for each picture and asks for it then. Held up, it asks for the rest in quick succession until it
is in time again. Each picture comes into a slot of the recording by when it was asked for, and of two in the same one
only the first is kept (`agents.pipelines.capture_slots`). So the slots are followed here: what will be left out is not
waited for, and anything else for no longer than the next picture still comes into its own in time.
"""

from __future__ import annotations

from collections import deque

from agents.pipelines.capture_slots import slots_from_turn

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
_IN_TIME, _RESTED = 0.1, 0.25
"""Whoever asks so close to one picture's time after the last one, and had nothing to do for so long, was not held up.
Then the slots are known anew."""
_LATEST_WANTED = 0.75
"""So late the next picture may be asked for because this one was waited for."""
_SOON = 0.75
"""Where pictures are usually waited for no longer, whoever draws later hangs, and is waited for as long as the next
picture comes into its slot."""
_PATIENCE = 0.95
"""Otherwise it is waited for until shortly before the next picture: a film of 29.97 a second, in a recording of 30, is
drawn later and later, and must not come a whole picture before its sound."""


class CapturePace:
    """Follows the pictures that a grabber asks for. Times in seconds of one clock."""

    def __init__(self) -> None:
        """Has seen none."""
        self._asked_s: float | None = None
        self._taken_s = 0.0
        self._kept = True
        """Whether the last picture came into a slot of its own."""
        self._slot_s = 0.0
        """Time of the slot into which it came."""
        self._late = 0.0
        """How late it was for that, in slots."""
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
            self._slot_s = now_s
            return 0.0
        self._distances_s.append(now_s - before_s)
        usual_s = _middle(self._distances_s)
        punctual = abs(now_s - before_s - usual_s) <= _IN_TIME * usual_s
        if punctual and now_s - self._taken_s >= _RESTED * usual_s:
            self._kept, self._slot_s, self._late = True, now_s, 0.0
        else:
            self._find_slot(now_s, usual_s)
        if not self._kept or not self._in_motion():
            return 0.0
        until_s = self._slot_s + _PATIENCE * usual_s
        if _middle(self._waits_s) <= _SOON * usual_s:
            # Taking this one comes before the next is asked for, and may last longer than usually.
            until_s = max(until_s, self._slot_s + (1 + _LATEST_WANTED) * usual_s - 2 * _middle(self._takings_s))
        return max(0.0, until_s - now_s)

    def _find_slot(self, now_s: float, usual_s: float) -> None:
        """Finds the slot of a picture by that of the one before."""
        turn_s = self._slot_s + usual_s
        late = (now_s - turn_s) / usual_s
        slots = slots_from_turn(late, self._late)
        self._kept, self._slot_s, self._late = slots > -1, turn_s + slots * usual_s, late - slots

    def taken(self, *, new: bool, from_s: float, until_s: float) -> None:
        """Hears that the picture is taken.

        Args:
            new: Whether something was drawn since the one before.
            from_s: When nothing was waited for any longer.
            until_s: When the grabber had it.
        """
        self._taken_s = until_s
        self._takings_s.append(until_s - from_s)
        if self._kept:
            self._new.append(new)
            self._waits_s.append(from_s - self._slot_s)

    def _in_motion(self) -> bool:
        if self._new.count(False) > _MOST_OLD:
            return False
        known = len(self._new)
        hangs = sum(before and not new for before, new in zip((True, *self._new), self._new, strict=False))
        return known >= _PICTURES_FOR_ONE_HANG and hangs <= known // _PICTURES_FOR_ONE_HANG


def _middle(values: deque[float]) -> float:
    return sorted(values)[len(values) // 2]
