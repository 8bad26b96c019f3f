"""Spreads while there is room, packs when it gets tight, so that large sessions still fit.

Spreading (by weighted load after placing) keeps devices calm, but leaves a little room on each of them, and when
all are nearly full a large session finds none that takes it. So once the devices are full beyond a threshold, sessions
are packed: each goes where it takes the least from the sessions that there are. What is free of a device is worth the
sessions that would still fit into it, the costliest first: as many of those as fit whole, in what they leave as many of
the next costly, and so on. Each counts with the cube of its cost, so a place for a large one is worth more than all the
small ones that fit into it.

So a session goes into a gap that no larger one fits into any more, fills what larger ones leave over, is kept off cards
that others need for what only these can do, and does not waste a card that is slow at its format. Where that makes no
difference it goes where the least stays free beside places for the costliest, by the size of the device: into the gap
that is nearest to being full. Sessions that are all alike fill one device after another, so that others still fit.

How full the devices are follows from what is booked when the question is asked. No time: the same sessions give the
same answer, and a plan agrees with the placement after it. Where nobody is refused (without admission) there is nothing
to pack for, and the rule is the default's throughout. Files are spread always: they give way, so they take no place
from anybody, and are done soonest where there is most room.

Its weakness is that of all packing: beyond the threshold some devices are as full as headroom lets them be while others
have room, and a session that turns out heavier than it was booked finds no slack there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import NamedTuple

from balancer.domain.capacity import default_weights
from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.demand import nominal_cost
from balancer.domain.device import DeviceState, DeviceView
from balancer.domain.fleet_index import class_key
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies.demands import KEPT_WORKLOADS, Demands
from balancer.domain.policies.least_weighted_load import LeastWeightedLoad
from balancer.domain.policies.live_shapes import LiveShapes
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.policies.shares import PARTS, Leanings
from balancer.domain.workload import Workload

PACKING_FILL_PARTS = 500_000
"""How full the devices are on average, in millionths of what may be booked, from where on sessions are packed. The
higher it is the longer devices stay calm. In trials with mixed cards at 1.1 times what they carry, 0.4 to 0.7 served
much the same of mixed traffic and 0.8 less on four; where sessions are large beside a card, 0.6 served less already."""
_EVERY_PLACE = 10**18
"""More places than any device has, in millionths."""
_ROUNDED_PARTS = 10
"""What is missing of a place by less, in millionths, is rounding, and no reason to prefer a device to another that is
alike."""

_Wanted = list[tuple[int, list[tuple[int, int]]]]
"""Of each shape, the costliest first, what a place for it is worth, and what one takes of which of the needed
dimensions, by their places."""


class _Loss(NamedTuple):
    """What a device would lose by a session."""

    worth: int
    """How much less what is free is worth, at least 0."""
    rest_parts: int
    """What is free then beside as many of the costliest as fit, in millionths of the device."""


class Adaptive(IndifferentPolicy):
    """Chooses as least weighted load does, or packs."""

    def __init__(self) -> None:
        """Begins without devices, with admission."""
        self._default = LeastWeightedLoad()
        self._spread = LeastWeightedLoad()
        """Is told of no session and keeps no places, which is what packing is for: with both, less was served."""
        self._settings = PlacementSettings()
        self._ready: tuple[DeviceView, ...] = ()
        self._sizes: dict[DeviceId, int] = {}
        """In millionths of a suggested weight of 1."""
        self._demands = Demands()
        self._shapes = LiveShapes()
        self._leanings = Leanings()
        self._alike: list[tuple[DeviceView, int]] | None = None
        """Devices that differ in nothing but who they are: one, and the size of all. None: to be found out."""
        self._able: dict[Workload, int] = {}
        """Of each workload asked for the size of all devices that could do it."""

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "adaptive"

    def on_settings(self, settings: PlacementSettings) -> None:
        """Learns whether devices without room refuse."""
        self._settings = settings
        self._demands.on_settings(settings)
        self._shapes.on_settings(settings)
        self._default.on_settings(settings)
        self._spread.on_settings(settings)
        self._able.clear()

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Remembers what live sessions are like, and lets the default hear of them."""
        self._default.on_session_placed(session_id, device_id, workload)
        self._shapes.on_session_placed(session_id, workload)

    def on_session_ended(self, session_id: SessionId) -> None:
        """Lets it hear of ends, too."""
        self._default.on_session_ended(session_id)
        self._shapes.on_session_ended(session_id)

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Takes the sizes of the devices, which are the weights that their capacities suggest.

        A weight that the operator set counts against a device as it does when spreading: who got half of what his
        capacity suggests counts as twice as large, so that he is filled late.
        """
        self._default.on_devices(devices)
        self._spread.on_devices(devices)
        self._demands.on_devices()
        self._leanings.on_devices(devices)
        suggested = default_weights({view.id: view.capacity for view in devices})
        highest_suggested = max(suggested.values(), default=1) or 1
        highest = max((view.weight for view in devices), default=0)
        self._sizes = {
            view.id: max(1, PARTS * suggested[view.id] ** 2 * highest // (view.weight * highest_suggested))
            for view in devices
            if view.weight > 0
        }
        self._ready = tuple(view for view in devices if view.weight > 0 and view.state is DeviceState.READY)
        self._alike = None
        self._able.clear()

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses by one of the two rules; see the module.

        Scores are weighted loads when spreading. When packing they are what one session would cost that is worth as
        much as what is lost, in pixels per second: the session's own cost where that is one place for its like.
        """
        if not self._settings.admission:
            return self._default.choose(candidates, workload)
        packing = workload.real_time and self._tight(candidates, workload)
        return self._pack(candidates, workload) if packing else self._spread.choose(candidates, workload)

    def _tight(self, candidates: Sequence[Candidate], workload: Workload) -> bool:
        """Tells whether the devices are full beyond the threshold. Who could do the session, but is no candidate, is.

        A device is as full as the fullest dimension that the session needs.
        """
        size_of_candidates = filled = 0
        for candidate in candidates:
            size = self._sizes.get(candidate.view.identity.id, 1) * candidate.stands_for
            size_of_candidates += size
            fullest = 0
            for (_, _, bookable), used in zip(candidate.device_needs, candidate.device_used, strict=True):
                if used and (full := used * PARTS // bookable if bookable > 0 else PARTS) > fullest:
                    fullest = full
            filled += size * fullest
        size_of_able = max(self._able_size(workload), size_of_candidates)
        filled += (size_of_able - size_of_candidates) * PARTS
        return filled >= size_of_able * PACKING_FILL_PARTS

    def _pack(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses where what is free loses the least worth; of equals the least rest, then the most sessions."""
        costs = dict(self._shapes.largest())
        costs[workload] = nominal_cost(workload, self._settings.factors)
        wanted: dict[int, _Wanted] = {}
        best: Candidate | None = None
        best_rank: tuple[int, int, int] | None = None
        scores: dict[DeviceId, int] = {}
        for candidate in candidates:
            device_id = candidate.view.identity.id
            # Devices that are alike need the same.
            alike = id(candidate.device_needs)
            if alike not in wanted:
                wanted[alike] = self._wanted(candidate, costs)
            numerator, denominator = self._leanings.of(device_id)
            loss = _loss(candidate, wanted[alike])
            lost = loss.worth * numerator // denominator
            scores[device_id] = _cube_root(lost)
            rank = (lost, loss.rest_parts * self._sizes.get(device_id, 1), -candidate.session_count)
            if best_rank is None or rank < best_rank:
                best, best_rank = candidate, rank
        if best is None:
            raise ValueError("Cannot choose a device: there is no candidate.")
        return Choice(device_id=best.view.id, scores=scores)

    def _wanted(self, candidate: Candidate, costs: Mapping[Workload, int]) -> _Wanted:
        """Gives what sessions of each shape take of a device, of the dimensions that the session in question takes.

        Of shapes that cost the same, the one that takes the least comes first. What would not fit if nothing ran on the
        device is passed over.
        """
        wanted = []
        for shape, cost in costs.items():
            demand = self._demands.of(shape, candidate.view)
            if isinstance(demand, Refusal):
                continue
            amounts: list[tuple[int, int]] = []
            largest_parts = 0
            for number, (dimension, _, bookable) in enumerate(candidate.device_needs):
                if amount := demand.device_amounts.get(dimension, 0):
                    amounts.append((number, amount))
                    largest_parts = max(largest_parts, amount * PARTS // max(1, bookable))
            if amounts and largest_parts <= PARTS:
                wanted.append((-cost, largest_parts, amounts))
        wanted.sort()
        return [(-(minus_cost**3), amounts) for minus_cost, _, amounts in wanted]

    def _able_size(self, workload: Workload) -> int:
        """Gives the size of all devices that could do a session if they were empty."""
        known = self._able.get(workload)
        if known is None:
            if self._alike is None:
                self._alike = self._sizes_of_alike()
            known = sum(size for view, size in self._alike if self._demands.fits_empty(workload, view))
            while len(self._able) >= KEPT_WORKLOADS:
                del self._able[next(iter(self._able))]
            self._able[workload] = known
        return known

    def _sizes_of_alike(self) -> list[tuple[DeviceView, int]]:
        """Gives a device of each sort, and the size of all of the sort."""
        firsts: dict[Hashable, DeviceView] = {}
        sizes: Counter[Hashable] = Counter()
        for view in self._ready:
            key = class_key(view)
            firsts.setdefault(key, view)
            sizes[key] += self._sizes[view.id]
        return [(view, sizes[key]) for key, view in firsts.items()]


def _loss(candidate: Candidate, wanted: _Wanted) -> _Loss:
    """Finds out what a device would lose by the session."""
    needs = candidate.device_needs
    before = [bookable - taken for (_, _, bookable), taken in zip(needs, candidate.device_used, strict=True)]
    after = [free - needed for free, (_, needed, _) in zip(before, needs, strict=True)]
    worth_after = _worth(after, wanted[:1])
    rest = min(
        (free * PARTS // (bookable or 1) for free, (_, _, bookable) in zip(after, needs, strict=True)), default=0
    )
    worth_after += _worth(after, wanted[1:])
    return _Loss(max(0, _worth(before, wanted) - worth_after), rest)


def _cube_root(number: int) -> int:
    """Gives the whole part of the root of a whole number from 0 on."""
    root: int = round(number ** (1 / 3))
    while root**3 > number:
        root -= 1
    while (root + 1) ** 3 <= number:
        root += 1
    return root


def _worth(free: list[int], wanted: _Wanted) -> int:
    """Gives what is free its worth: that of the sessions that fit into it, the costliest first. Uses up `free`."""
    worth = 0
    for value, amounts in wanted:
        fewest = _EVERY_PLACE
        for number, amount in amounts:
            if (places := free[number] * PARTS // amount) < fewest:
                fewest = places
        count = (fewest + _ROUNDED_PARTS) // PARTS
        if count > 0:
            worth += count * value
            for number, amount in amounts:
                free[number] -= count * amount
    return worth
