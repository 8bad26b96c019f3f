"""The default policy: the device whose weighted load is lowest *after* taking the session.

Looking at the load before placing, as simpler balancers do, sends every large session to a small idle device. Fewer
sessions, then device order, decide between equals.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.ids import DeviceId
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload


class LeastWeightedLoad(IndifferentPolicy):
    """Chooses by exact weighted load after placing."""

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "least_weighted_load"

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the lowest weighted load after placing; see the module."""
        best: Candidate | None = None
        best_cost, best_weight = 0, 1
        scores: dict[DeviceId, int] = {}
        for candidate in candidates:
            weight = candidate.view.weight
            cost = candidate.booked_pixels_per_second + candidate.cost_pixels_per_second
            scores[candidate.view.id] = cost * candidate.highest_weight // weight
            # cost / weight < best_cost / best_weight, without dividing: the common factor plays no part.
            mine, other = cost * best_weight, best_cost * weight
            if best is None or mine < other or (mine == other and candidate.session_count < best.session_count):
                best, best_cost, best_weight = candidate, cost, weight
        if best is None:
            raise ValueError("Cannot choose a device: there is no candidate.")
        return Choice(device_id=best.view.id, scores=scores)
