"""What shapes the live sessions have, and which of them matter, for policies that keep places for their like."""

from __future__ import annotations

from collections import Counter
from heapq import nlargest
from operator import itemgetter

from balancer.domain.decision import PlacementSettings
from balancer.domain.demand import nominal_cost
from balancer.domain.ids import SessionId
from balancer.domain.workload import Workload

SHAPES_LOOKED_AT = 5
"""The shapes that matter most; each costs time at every decision, and mixes of sessions have few of them."""
_FEW = 128
"""Shapes that are sorted anew whenever a session comes or goes."""
_SHARE_CHANGED = 8
"""Of more they are sorted anew when sessions as many as an eighth of them have come or gone: each matters little, and
which they are then depends a little on who came when."""


class LiveShapes:
    """Counts live sessions in real time by shape. Where no two are alike, hearing of one still takes the same time."""

    def __init__(self) -> None:
        """Begins without live sessions, with the usual factors of cost."""
        self._factors = PlacementSettings().factors
        self._live: dict[SessionId, Workload] = {}
        self._counts: Counter[Workload] = Counter()
        self._costs: dict[Workload, int] = {}
        """What one session of each shape costs, in pixels per second."""
        self._known_words: dict[Workload, str] = {}
        self._largest: tuple[tuple[Workload, int], ...] | None = ()
        """As `largest` gives them. None: to be found out, of a few shapes."""
        self._are_few = True
        self._changes = 0
        """Since many were sorted."""

    def on_settings(self, settings: PlacementSettings) -> None:
        """Takes the factors of cost."""
        self._factors = settings.factors
        self._costs = {shape: nominal_cost(shape, self._factors) for shape in self._counts}
        self._largest = self._found()

    def on_session_placed(self, session_id: SessionId, workload: Workload) -> None:
        """Counts a session; one that was placed before counts as what it is now."""
        if self._live.get(session_id) == workload:
            return
        self.on_session_ended(session_id)
        if workload.real_time:
            self._live[session_id] = workload
            self._counts[workload] += 1
            if workload not in self._costs:
                self._costs[workload] = nominal_cost(workload, self._factors)
            self._note_change()

    def on_session_ended(self, session_id: SessionId) -> None:
        """Forgets a session."""
        workload = self._live.pop(session_id, None)
        if workload is not None:
            self._counts[workload] -= 1
            if not self._counts[workload]:
                del self._counts[workload], self._costs[workload]
                self._known_words.pop(workload, None)
            self._note_change()

    def largest(self) -> tuple[tuple[Workload, int], ...]:
        """Gives the shapes that matter most, with what one session of each costs, in pixels per second.

        What matters is what all its live sessions cost together times what one of them costs: a place for a large
        session is harder to come by again than places for small ones that take as much together.
        """
        if self._largest is None:
            self._largest = self._found()
        return self._largest

    def _note_change(self) -> None:
        """Has them found out: of few when it is asked for, of many now, so that no question changes what they are."""
        if len(self._counts) <= _FEW:
            self._are_few = True
            self._largest = None
            return
        self._changes += 1
        if self._are_few or self._changes * _SHARE_CHANGED >= len(self._counts):
            self._are_few = False
            self._changes = 0
            self._largest = self._found()

    def _found(self) -> tuple[tuple[Workload, int], ...]:
        mattering = [(count * self._costs[shape] ** 2, shape) for shape, count in self._counts.items()]
        most = nlargest(SHAPES_LOOKED_AT + 1, mattering, key=itemgetter(0))
        if len(most) > SHAPES_LOOKED_AT and most[-1][0] == most[-2][0]:
            # Whose sessions came first decides nothing.
            equals = sorted(
                (pair for pair in mattering if pair[0] == most[-1][0]), key=lambda pair: self._words(pair[1])
            )
            most = [pair for pair in most if pair[0] > most[-1][0]] + equals
        return tuple((shape, self._costs[shape]) for _, shape in most[:SHAPES_LOOKED_AT])

    def _words(self, shape: Workload) -> str:
        """Gives a shape in words, by which equals are in an order."""
        words = self._known_words.get(shape)
        if words is None:
            words = self._known_words[shape] = repr(shape)
        return words
