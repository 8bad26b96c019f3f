"""Counts heads: the device with the fewest sessions, the first one of equals.

What web load balancers call least connections, for comparison. Its weakness is that a session counts as one, be it a
thumbnail or 4K into six renditions, and a device as one, be it a small card or a large one: weights count nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload


class SessionCount(IndifferentPolicy):
    """Chooses the fewest sessions before placing."""

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "session_count"

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the fewest sessions; see the module."""
        if not candidates:
            raise ValueError("Cannot choose a device: there is no candidate.")
        scores = {one.view.id: one.session_count for one in candidates}
        return Choice(device_id=min(scores, key=scores.__getitem__), scores=scores)
