"""Spreads by the scarcest resource: the device whose fullest needed dimension is least full *after* placing.

Cost in pixels knows nothing of memory, of encoder sessions, or of a decoder that is busy while the encoder idles; this
rule does. Fewer sessions, then device order, decide between equals. Weights count as far as they differ from what the
capacities suggest, see `shares`. Like every rule that spreads, it leaves a little room everywhere and much of it
nowhere, so that large sessions are the first to be refused when devices fill up.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.policies.shares import Leanings, parts, share_after
from balancer.domain.workload import Workload


class DominantResource(IndifferentPolicy):
    """Chooses the lowest highest dimension."""

    def __init__(self) -> None:
        """Begins without devices."""
        self._leanings = Leanings()

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "dominant_resource"

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Takes the weights."""
        self._leanings.on_devices(devices)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the device that is least full with the session; see the module. Scores are shares in millionths."""
        best: Candidate | None = None
        best_taken, best_bookable = 0, 1
        scores: dict[DeviceId, int] = {}
        for candidate in candidates:
            device_id = candidate.view.id
            taken, bookable = share_after(candidate.device_needs, candidate.device_used)
            heavier, lighter = self._leanings.of(device_id)
            taken, bookable = taken * heavier, bookable * lighter
            scores[device_id] = parts(taken, bookable)
            mine, other = taken * best_bookable, best_taken * bookable
            if best is None or mine < other or (mine == other and candidate.session_count < best.session_count):
                best, best_taken, best_bookable = candidate, taken, bookable
        if best is None:
            raise ValueError("Cannot choose a device: there is no candidate.")
        return Choice(device_id=best.view.id, scores=scores)
