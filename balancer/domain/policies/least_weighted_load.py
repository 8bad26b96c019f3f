"""The default policy: the device whose weighted load is lowest *after* taking the session.

Looking at the load before placing, as simpler balancers do, sends every large session to a small idle device.

Spreading alone leaves a little room everywhere, and when devices fill up the large sessions find none that takes them.
So what a session shuts out counts as if it were there: a device that could take one more like the largest live session,
and could not any more with the new one, is as loaded as if it had taken that one too. As long as there is room nothing
is shut out, and the load is the load.

Where nobody is refused, what is too much for all devices goes to one that is behind already, where it makes no further
sessions late; else to the largest, which is behind for the shortest time.

Fewer sessions, then device order, decide between equals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.demand import nominal_cost
from balancer.domain.device import DeviceView, Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.offers import RATES
from balancer.domain.policies.demands import Demands
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload

BEHIND = 10**15
"""Pixels per second that count as booked on a device that is behind already: more than any work, so it comes after all
that keep up, and the larger of two comes first."""
FALLS_BEHIND = 1000 * BEHIND
"""The same of a device that would fall behind: it comes after those that are."""
_FEW = 64


class _Sized(NamedTuple):
    """A live session, which sorts by its size."""

    minus_cost: int
    number: int
    """Of two equals the earlier one is the first."""
    session_id: SessionId
    workload: Workload


class _Claim(NamedTuple):
    """What a session, and a large one after it, would take of each of the devices that are alike."""

    rows: tuple[tuple[int, int, int, int], ...]
    """Place among the device's needs, what the session needs, what the large one does, and what there is."""
    cost_pixels_per_second: int
    """Of the large one, before any weight."""


class LeastWeightedLoad(IndifferentPolicy):
    """Chooses by exact weighted load after placing, what is shut out included."""

    def __init__(self) -> None:
        """Begins without live sessions."""
        self._settings = PlacementSettings()
        self._demands = Demands()
        self._live: dict[SessionId, Workload] = {}
        """Sessions in real time that hold a device."""
        self._by_size: list[_Sized] = []
        """A heap of them, with some that have ended."""
        self._number = 0

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "least_weighted_load"

    def on_settings(self, settings: PlacementSettings) -> None:
        """Takes the factors of cost, and whether devices refuse."""
        self._settings = settings
        self._demands.on_settings(settings)
        self._sort_anew()

    def on_devices(self, devices: Sequence[DeviceView]) -> None:  # noqa: ARG002 - the port's
        """Forgets what sessions take of the devices as they were."""
        self._demands.on_devices()

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:  # noqa: ARG002
        """Remembers how large a live session in real time is."""
        if workload.real_time and self._live.get(session_id) != workload:
            self._live[session_id] = workload
            heappush(self._by_size, self._sized(session_id, workload))
            if len(self._by_size) > 2 * len(self._live) + _FEW:
                self._sort_anew()

    def on_session_ended(self, session_id: SessionId) -> None:
        """Forgets a session."""
        self._live.pop(session_id, None)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses the lowest weighted load after placing, with what is shut out; see the module."""
        large = self._large_beside(workload)
        best: Candidate | None = None
        best_cost, best_weight = 0, 1
        scores: dict[DeviceId, int] = {}
        claims: dict[int, _Claim] = {}
        for candidate in candidates:
            weight = candidate.view.weight
            cost = candidate.booked_pixels_per_second + candidate.cost_pixels_per_second
            behind = self._behind(candidate) if workload.real_time else 0
            cost += behind
            if large is not None and not behind:
                # Devices that are alike share their needs, so what both take of them is worked out once.
                needs = id(candidate.device_needs)
                claim = claims.get(needs)
                if claim is None:
                    claim = claims[needs] = self._claim(candidate, workload, large)
                cost += _shut_out(claim, candidate.device_used)
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
        if not workload.real_time:
            return None
        by_size = self._by_size
        while by_size and self._live.get(by_size[0].session_id) is not by_size[0].workload:
            heappop(by_size)
        if not by_size:
            return None
        largest = by_size[0]
        return workload if nominal_cost(workload, self._settings.factors) >= -largest.minus_cost else largest.workload

    def _sized(self, session_id: SessionId, workload: Workload) -> _Sized:
        self._number += 1
        return _Sized(-nominal_cost(workload, self._settings.factors), self._number, session_id, workload)

    def _sort_anew(self) -> None:
        self._by_size = [self._sized(session_id, workload) for session_id, workload in self._live.items()]
        heapify(self._by_size)

    def _behind(self, candidate: Candidate) -> int:
        """Gives what counts besides of a device that would be late with the session. 0: it is in time."""
        if self._settings.admission:
            return 0
        is_late, was_late = False, False
        for (dimension, needed, bookable), used in zip(candidate.device_needs, candidate.device_used, strict=True):
            if dimension in RATES:
                whole = self._whole(bookable)
                is_late = is_late or used + needed > whole
                was_late = was_late or used > whole
        if not is_late:
            return 0
        return BEHIND if was_late else FALLS_BEHIND

    def _claim(self, candidate: Candidate, workload: Workload, large: Workload) -> _Claim:
        """Gives what both take of devices like a candidate, in the dimensions of which the session takes anything."""
        wants: Mapping[Dimension, int]
        if large is workload:
            wants = {dimension: needed for dimension, needed, _ in candidate.device_needs}
            cost = candidate.cost_pixels_per_second
        else:
            taken = self._demands.of(large, candidate.view)
            if isinstance(taken, Refusal):
                return _NO_CLAIM
            wants, cost = taken.device_amounts, taken.cost_pixels_per_second
        admission = self._settings.admission
        rows = tuple(
            (place, needed, wants.get(dimension, 0), bookable if admission else self._whole(bookable))
            for place, (dimension, needed, bookable) in enumerate(candidate.device_needs)
            if dimension in RATES
        )
        return _Claim(rows, cost)

    def _whole(self, bookable: int) -> int:
        """Gives all that there is of what may be booked: where nobody is refused nothing is kept free."""
        headroom = self._settings.headroom
        return bookable * headroom.denominator // headroom.numerator


_NO_CLAIM = _Claim((), 0)


def _shut_out(claim: _Claim, used: Sequence[int]) -> int:
    """Gives the cost of the large session where a device has room for it, and not after the session; else 0."""
    shut_out = False
    for place, needed, wanted, whole in claim.rows:
        free = whole - used[place]
        if free < wanted:
            return 0
        if free - needed < wanted:
            shut_out = True
    return claim.cost_pixels_per_second if shut_out else 0
