"""How full a session would make a device, for policies that look at every dimension rather than at a cost in pixels.

Exact whole numbers: a share is a pair, what is taken over what may be booked, and pairs are compared by multiplying.
Weights have their say too. A weight that follows from capacity says nothing that the share does not say already; one
that an operator set otherwise is taken for his leaning, towards the device or away from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from balancer.domain.capacity import default_weights
from balancer.domain.decision import Need
from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId

PARTS = 1_000_000
"""Shares are shown in millionths."""

Share = tuple[int, int]
"""What is taken, and what may be, at least 1: three quarters are (3, 4)."""


def share_after(needs: Sequence[Need], used: Sequence[int]) -> Share:
    """Gives how full the fullest needed dimension is with the session.

    Args:
        needs: The limited dimensions that the session needs, with what it needs and what may be booked.
        used: What is taken of each of those already.

    Returns:
        The largest share, (0, 1) where nothing limited is needed. More than the whole where it does not fit.
    """
    taken, bookable = 0, 1
    for (_, needed, may_be), before in zip(needs, used, strict=True):
        after, limit = before + needed, may_be or 1
        if after * bookable > taken * limit:
            taken, bookable = after, limit
    return taken, bookable


class Leanings:
    """How much fuller than it is a device counts, because its weight is lower than its capacity suggests."""

    def __init__(self) -> None:
        """Begins without devices: every one counts as full as it is."""
        self._ratios: dict[DeviceId, tuple[int, int]] = {}

    def on_devices(self, views: Sequence[DeviceView]) -> None:
        """Compares the weights of all devices with what their capacities suggest."""
        suggested = default_weights({view.id: view.capacity for view in views})
        highest_suggested = max(suggested.values(), default=1) or 1
        highest = max((view.weight for view in views), default=0)
        self._ratios = {
            view.id: _reduced(suggested[view.id] * highest, view.weight * highest_suggested)
            for view in views
            if view.weight > 0 and suggested[view.id] > 0
        }

    def of(self, device_id: DeviceId) -> tuple[int, int]:
        """Gives the factor on a device's share, as numerator and denominator, both above 0."""
        return self._ratios.get(device_id, _NEUTRAL)


_NEUTRAL = (1, 1)


def _reduced(numerator: int, denominator: int) -> tuple[int, int]:
    common = gcd(numerator, denominator)
    return numerator // common, denominator // common


def parts(taken: int, bookable: int) -> int:
    """Gives a share in millionths, rounded down, for people."""
    return taken * PARTS // bookable
