"""What is going to be done to a house, drawn from a seed. Pure: the same seed gives the same acts.

Victims are drawn as shares, because who will be there then is not known yet: 0.5 is the middle one of those that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from random import Random

WEIGHTS: Mapping[str, int] = {
    "kill balancer": 8,
    "stop balancer": 4,
    "kill agent": 8,
    "stop agent": 6,
    "cut agent": 6,
    "hold agent": 4,
    "kill program": 5,
    "kill shim": 2,
    "kill shim and program": 2,
    "stop program": 4,
    "cordon": 4,
    "drain": 4,
    "fill outputs": 1,
    "fill state": 1,
    "xid": 5,
    "set clock": 4,
    "hang up": 4,
    "create": 14,
    "stop session": 4,
}
"""Kinds of acts and how often each is drawn, relative to the others."""
PARTITIONS = ("stop agent", "cut agent", "hold agent")
_LASTING_S: Mapping[str, tuple[float, float]] = {
    "kill balancer": (0.0, 3.0),
    "stop balancer": (0.5, 6.0),
    "stop agent": (0.5, 20.0),
    "cut agent": (0.5, 20.0),
    "hold agent": (0.5, 20.0),
    "stop program": (0.5, 8.0),
    "cordon": (1.0, 15.0),
    "drain": (1.0, 20.0),
    "fill outputs": (1.0, 10.0),
    "fill state": (1.0, 10.0),
    "xid": (2.0, 20.0),
    "set clock": (0.5, 10.0),
    "hang up": (0.0, 2.0),
}
"""Kinds that last, and how long at least and at most. Of a killed balancer: until it is started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedAct:
    """One thing to do."""

    at_s: float
    """Seconds after the begin."""
    kind: str
    victim: float
    """Which of those that are there then, as a share from 0 up to but not 1."""
    lasting_s: float = 0.0


def draw_acts(
    chance: Random, *, seconds: float, every_s: float, kinds: Mapping[str, int] = WEIGHTS, longest_s: float = 20.0
) -> Iterator[PlannedAct]:
    """Draws acts until a time is over.

    Args:
        chance: Of the seed.
        seconds: How long.
        every_s: Mean pause between two acts.
        kinds: Those that may be, with their weights.
        longest_s: No act lasts longer.
    """
    names, weights = list(kinds), list(kinds.values())
    at_s = 0.0
    while (at_s := at_s + chance.uniform(0.0, 2 * every_s)) < seconds:
        kind = chance.choices(names, weights)[0]
        least_s, most_s = _LASTING_S.get(kind, (0.0, 0.0))
        lasting_s = chance.uniform(least_s, most_s)
        yield PlannedAct(at_s=at_s, kind=kind, victim=chance.random(), lasting_s=min(lasting_s, longest_s))
