"""The default policy: the device whose weighted load is lowest *after* taking the session.

Looking at the load before placing, as simpler balancers do, sends every large session to a small idle device.

Spreading alone leaves a little room everywhere, and when devices fill up the large sessions find none that takes them.
So what a session shuts out counts as if it were there: a device that could take one like the largest lately asked for,
and could not any more with the session, is as loaded as if it had taken that one too. Where nobody is refused, one that
would fall behind comes after all others. As long as there is room nothing is shut out, and the load is the load.

Fewer sessions, then device order, decide between equals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.demand import nominal_cost
from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.offers import RATES
from balancer.domain.policies.demands import Demands
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload

REMEMBERED = 100
"""Sessions in real time asked for latest, of which the largest counts."""
BEHIND = 1000
"""As how many of the largest session it counts that a device would fall behind: it comes after all that would not."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A session that was asked for."""

    number: int
    cost: int
    workload: Workload


class LeastWeightedLoad(IndifferentPolicy):
    """Chooses by exact weighted load after placing, what is shut out included."""

    def __init__(self) -> None:
        """Begins without having heard of any session."""
        self._settings = PlacementSettings()
        self._asked = 0
        self._largest: deque[_Asked] = deque()
        """Of the remembered sessions those that none as large came after: the largest is the first."""
        self._demands = Demands()

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "least_weighted_load"

    def on_settings(self, settings: PlacementSettings) -> None:
        """Takes the factors of cost, and whether devices refuse."""
        self._settings = settings
        self._demands.on_settings(settings)

    def on_devices(self, devices: Sequence[DeviceView]) -> None:  # noqa: ARG002 - the port's
        """Forgets what sessions take of the devices as they were."""
        self._demands.on_devices()

    def on_session_created(self, session_id: SessionId, workload: Workload) -> None:  # noqa: ARG002 - the port's
        """Remembers how large a session in real time is."""
        if not workload.real_time:
            return
        cost = nominal_cost(workload, self._settings.factors)
        while self._largest and self._largest[-1].cost <= cost:
            self._largest.pop()
        self._largest.append(_Asked(self._asked, cost, workload))
        self._asked += 1
        if self._largest[0].number < self._asked - REMEMBERED:
            self._largest.popleft()

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses the lowest weighted load after placing, with what is shut out; see the module."""
        large = self._large_beside(workload)
        best: Candidate | None = None
        best_cost, best_weight = 0, 1
        scores: dict[DeviceId, int] = {}
        for candidate in candidates:
            weight = candidate.view.weight
            cost = candidate.booked_pixels_per_second + candidate.cost_pixels_per_second
            if large is not None:
                cost += self._shut_out(candidate, large)
            scores[candidate.view.id] = cost * candidate.highest_weight // weight
            # cost / weight < best_cost / best_weight, without dividing: the common factor plays no part.
            mine, other = cost * best_weight, best_cost * weight
            if best is None or mine < other or (mine == other and candidate.session_count < best.session_count):
                best, best_cost, best_weight = candidate, cost, weight
        if best is None:
            raise ValueError("Cannot choose a device: there is no candidate.")
        return Choice(device_id=best.view.id, scores=scores)

    def _large_beside(self, workload: Workload) -> Workload | None:
        """Gives the largest session that counts when one is placed. None: files give way, and shut out nobody."""
        if not workload.real_time or not self._largest:
            return None
        largest = self._largest[0]
        return workload if nominal_cost(workload, self._settings.factors) >= largest.cost else largest.workload

    def _shut_out(self, candidate: Candidate, large: Workload) -> int:
        """Gives the cost of the large session where a device has room for it, and not after this one; else 0.

        A device that has no room for this one itself, as there are without admission, is much worse.
        """
        taken = self._demands.of(large, candidate.view)
        if isinstance(taken, Refusal):
            return 0
        had_room, shut_out, headroom = True, False, self._settings.headroom
        for (dimension, needed, bookable), used in zip(candidate.device_needs, candidate.device_used, strict=True):
            if dimension not in RATES:
                continue
            # Nothing is kept free where nobody is refused: there it counts when a device falls behind.
            free = bookable - used
            if not self._settings.admission:
                free = bookable * headroom.denominator // headroom.numerator - used
            if free < needed:
                return BEHIND * taken.cost_pixels_per_second
            wanted = taken.device_amounts.get(dimension, 0)
            if free < wanted:
                had_room = False
            elif free - needed < wanted:
                shut_out = True
        return taken.cost_pixels_per_second if had_room and shut_out else 0
