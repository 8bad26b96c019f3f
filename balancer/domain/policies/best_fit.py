"""Packs: the device whose fullest needed dimension is fullest after placing, among those where the session fits.

Some devices stay empty, for large sessions or to save power; the price is that the others are as full as headroom lets
them be, with nothing left for a session that turns out heavier than it was booked. More sessions, then device order,
decide between equals. Weights count as far as they differ from what the capacities suggest, see `shares`: a device that
an operator gave a low weight is filled late. Where nothing is refused (without admission) there is no fitting; who does
not fit anywhere goes where least is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.policies.shares import PARTS, Leanings, parts, share_after
from balancer.domain.workload import Workload


class BestFit(IndifferentPolicy):
    """Chooses the highest highest dimension that still fits."""

    def __init__(self) -> None:
        """Begins without devices."""
        self._leanings = Leanings()

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "best_fit"

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Takes the weights."""
        self._leanings.on_devices(devices)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the tightest fit; see the module.

        Scores are what stays free, in millionths; where the session does not fit, a million and the share it makes.
        """
        best: Candidate | None = None
        best_taken, best_bookable, best_fits = 0, 1, False
        scores: dict[DeviceId, int] = {}
        for candidate in candidates:
            device_id = candidate.view.id
            taken, bookable = share_after(candidate.device_needs, candidate.device_used)
            fits = taken <= bookable
            lighter, heavier = self._leanings.of(device_id)
            taken, bookable = taken * heavier, bookable * lighter
            scores[device_id] = PARTS - parts(taken, bookable) if fits else PARTS + parts(taken, bookable)
            if best is None or (fits and not best_fits):
                better = True
            elif fits is not best_fits:
                better = False
            else:
                mine, other = taken * best_bookable, best_taken * bookable
                better = (mine > other) is fits if mine != other else candidate.session_count > best.session_count
            if better:
                best, best_taken, best_bookable, best_fits = candidate, taken, bookable, fits
        if best is None:
            raise ValueError("Cannot choose a device: there is no candidate.")
        return Choice(device_id=best.view.id, scores=scores)
