"""Takes the first device that can: fills devices one after another, in device order.

It is what a media server does that opens the first card which lets it. Its weakness is that it looks at nothing:
without admission everything lands on the first device, however slow that one is, and however many idle beside it.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload


class FirstFit(IndifferentPolicy):
    """Chooses the first candidate."""

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "first_fit"

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the first one; scores are places in the order."""
        if not candidates:
            raise ValueError("Cannot choose a device: there is no candidate.")
        scores = {one.view.id: place for place, one in enumerate(candidates)}
        return Choice(device_id=candidates[0].view.id, scores=scores)
