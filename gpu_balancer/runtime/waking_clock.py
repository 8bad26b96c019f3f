"""A clock that stands still while this process does, for whoever counts how long others were silent.

A process that was stopped, or whose machine swapped, heard nothing meanwhile; that is nobody's silence. What it was
away is seen by the gap between two looks at the clock, one of which is due twice a second.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from gpu_balancer.runtime.clock import Clock

_LOOKED_EVERY_S = 0.5
_AWAY_S = 2.0
"""Between two looks, from which on the process counts as having been away."""


class WakingClock:
    """Seconds of a clock without those for which this process was away. Implements `Clock`."""

    def __init__(self, clock: Clock) -> None:
        """Begins awake.

        Args:
            clock: Counts on whether or not this process does.
        """
        self._clock = clock
        self._looked_s = clock.monotonic_s()
        self._away_s = 0.0

    def now(self) -> datetime:
        """Returns the wall time, aware, UTC."""
        return self._clock.now()

    def monotonic_s(self) -> float:
        """Returns seconds that this process was awake, since an arbitrary start."""
        now_s = self._clock.monotonic_s()
        passed_s = now_s - self._looked_s
        if passed_s > _AWAY_S:
            self._away_s += passed_s - _LOOKED_EVERY_S
        self._looked_s = now_s
        return now_s - self._away_s

    async def look(self) -> None:
        """Looks again and again. Never returns."""
        while True:
            self.monotonic_s()
            await asyncio.sleep(_LOOKED_EVERY_S)
