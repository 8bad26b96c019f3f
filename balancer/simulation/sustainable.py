"""The highest load that devices sustain under a policy: found by doubling, then halving, how many sessions come.

The sessions of a low factor are among those of a higher one, so that the answer is about load and hardly about chance.
"""

from __future__ import annotations

from collections.abc import Callable

from balancer.simulation.chance import seeded
from balancer.simulation.outcome import ReplayResult
from balancer.simulation.trace import Trace

BELOW_SHARE = 0.01
"""Share of session-seconds below real time, and of sessions not served, that is still called sustained."""
STEPS = 8
"""Halvings of a range that is as wide as its lower end, or 1 wide from 0 on: 1/256 of it is left."""


def sustained(result: ReplayResult) -> bool:
    """Whether a load was carried."""
    return result.below_real_time_share <= BELOW_SHARE and result.unserved_share <= BELOW_SHARE


def highest_factor(
    trace: Trace, replayed: Callable[[Trace], ReplayResult], *, seed: int, most: float, steps: int = STEPS
) -> float:
    """Finds how many times the sessions of a trace could come.

    Args:
        trace: The sessions of factor 1.
        replayed: Replays a trace.
        seed: Of the choice of sessions.
        most: Where the search ends; it is the answer when even that is carried.
        steps: Halvings.

    Returns:
        The highest factor that was found to be carried, 0 when none was.
    """

    def carried(factor: float) -> bool:
        return sustained(replayed(trace.scaled(factor, seeded(seed))))

    low, high = 0.0, min(1.0, most)
    while carried(high):
        if high == most:
            return most
        low, high = high, min(2 * high, most)
    for _ in range(steps):
        middle = (low + high) / 2
        if carried(middle):
            low = middle
        else:
            high = middle
    return low
