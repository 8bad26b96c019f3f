"""Spreads while there is room, packs when it gets tight, so that large sessions still fit.

Spreading (by weighted load, as the default) keeps devices calm but leaves a little room on each, and when all are
nearly full a large session finds none that takes it. So once the devices that can do a session are full beyond a
threshold, the tightest fit is taken instead. How full they are follows from what is booked, not from time, so that the
same state always gives the same answer. Where nothing is refused (admission off, or no device with room among the
candidates) there is nothing to pack for, and it is the default's rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.decision import PlacementSettings
from balancer.domain.device import DeviceState, DeviceView
from balancer.domain.policies.best_fit import BestFit
from balancer.domain.policies.least_weighted_load import LeastWeightedLoad
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.policies.shares import PARTS, parts, share_after
from balancer.domain.workload import Workload

PACKING_FILL_PARTS = 600_000
"""Weighted mean share, in millionths of what may be booked, from which on sessions are packed."""


class Adaptive(IndifferentPolicy):
    """Chooses as least weighted load, or as best fit."""

    def __init__(self) -> None:
        """Begins without devices, with admission."""
        self._spread = LeastWeightedLoad()
        self._pack = BestFit()
        self._admission = True
        self._ready_weight = 0

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "adaptive"

    def on_settings(self, settings: PlacementSettings) -> None:
        """Learns whether devices without room refuse."""
        self._admission = settings.admission

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Takes the weights."""
        self._pack.on_devices(devices)
        self._ready_weight = sum(view.weight for view in devices if view.state is DeviceState.READY)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses by one of the two rules; see the module."""
        rule = self._pack if self._admission and self._tight(candidates) else self._spread
        return rule.choose(candidates, workload)

    def _tight(self, candidates: Sequence[Candidate]) -> bool:
        """Tells whether the devices are full beyond the threshold; those that are no candidates count as full."""
        weight = filled = 0
        for candidate in candidates:
            weight += candidate.view.weight
            share = parts(*share_after(candidate.device_needs, candidate.device_used))
            filled += candidate.view.weight * min(share, PARTS)
        total = max(weight, self._ready_weight)
        return filled + (total - weight) * PARTS >= total * PACKING_FILL_PARTS
