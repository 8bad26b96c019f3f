"""Goes by what is measured: the device that was least busy lately, the first one of equals.

The rule of tools that pick a card by its driver's counters, for comparison. The score adds what encoder, decoder and
compute engines were busy with; compute counts by the power of 1.5, so that a little of it hardly matters and much of it
does. Known weaknesses are kept, because that is the rule: it reserves nothing, so all sessions that start between two
measurements go to the same device; a large device and a small one that are half busy look alike, because weights count
nothing; and what cannot be measured is taken for idle.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from balancer.domain.device import DeviceView, Utilization
from balancer.domain.ids import DeviceId
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload

_PERCENT = 1000
"""Scores are in thousandths of a percent, so that the power of 1.5 is a whole number too."""


class LeastUtilization(IndifferentPolicy):
    """Chooses by measurements alone."""

    def __init__(self) -> None:
        """Begins with nothing measured."""
        self._busy: dict[DeviceId, int] = {}

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "utilization"

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Forgets what was measured on devices that are gone."""
        here = {view.id for view in devices}
        self._busy = {device_id: busy for device_id, busy in self._busy.items() if device_id in here}

    def on_measured(self, device_id: DeviceId, utilization: Utilization) -> None:
        """Takes a measurement in place of the one before."""
        self._busy[device_id] = busy_score(utilization)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the least busy device; see the module."""
        if not candidates:
            raise ValueError("Cannot choose a device: there is no candidate.")
        scores = {one.view.id: self._busy.get(one.view.id, 0) for one in candidates}
        return Choice(device_id=min(scores, key=scores.__getitem__), scores=scores)


def busy_score(utilization: Utilization) -> int:
    """Gives encoder % + decoder % + 100 · (compute % / 100)^1.5, in thousandths, rounded down; unknown counts as 0."""
    encoder = utilization.encoder_percent or 0
    decoder = utilization.decoder_percent or 0
    compute = utilization.compute_percent or 0
    # 1000 · 100 · (c / 100)^1.5 = 100 · c^1.5, whose square is 10,000 · c³.
    return _PERCENT * (encoder + decoder) + isqrt(10_000 * max(0, compute) ** 3)
