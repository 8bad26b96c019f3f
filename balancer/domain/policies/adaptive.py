"""Spreads while there is room, packs when it gets tight, so that large sessions still fit.

Spreading (by weighted load after placing) keeps devices calm, but leaves a little room on each of them, and when
all are nearly full a large session finds none that takes it. So once the devices are full beyond a threshold, sessions
are packed: each goes where the least stays free. What stays free counts by the size of the device, not as a share,
because a quarter of a large device holds a large session and a quarter of a small one does not. A session also takes
more of some devices than of others, whose encoders are slower at its format; that counts too, half as much.

How full the devices are follows from what is booked when the question is asked. No time, no memory of earlier
questions: the same state gives the same answer, and a plan agrees with the placement after it. Where nobody is refused
(without admission) there is nothing to pack for, and the rule is the default's throughout.

Its weakness is that of all packing: beyond the threshold some devices are as full as headroom lets them be while others
have room, and a session that turns out heavier than it was booked finds no slack there.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.capacity import default_weights
from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.device import DeviceState, DeviceView
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies.demands import KEPT_WORKLOADS, Demands
from balancer.domain.policies.least_weighted_load import LeastWeightedLoad
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.policies.shares import PARTS
from balancer.domain.workload import Workload

PACKING_FILL_PARTS = 700_000
"""How full the devices are on average, in millionths of what may be booked, from where on sessions are packed. In
trials with mixed cards at 1.1 times what they carry, 0 to 0.8 served the same and 0.9 served less; the higher it is the
longer devices stay calm."""
TAKEN_WEIGHT = 1
"""How much what the session takes of a device counts against it when packing, beside `FREE_WEIGHT`."""
FREE_WEIGHT = 2
"""How much what stays free on a device counts against it. In the same trials, twice as much as what is taken served
best, by a hair; taken only for what is free, a card wastes itself on formats that it is slow at."""


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
        self._demands = Demands()
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
        self._default.on_settings(settings)
        self._spread.on_settings(settings)

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Lets the default hear how large live sessions are."""
        self._default.on_session_placed(session_id, device_id, workload)

    def on_session_ended(self, session_id: SessionId) -> None:
        """Lets it hear of ends, too."""
        self._default.on_session_ended(session_id)

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Takes the sizes of the devices, which are the weights that their capacities suggest.

        A weight that the operator set counts against a device as it does when spreading: who got half of what his
        capacity suggests counts as twice as large, so that he is filled late.
        """
        self._default.on_devices(devices)
        self._spread.on_devices(devices)
        self._demands.on_devices()
        suggested = default_weights({view.id: view.capacity for view in devices})
        self._sizes = {view.id: max(1, suggested[view.id] ** 2 // view.weight) for view in devices if view.weight > 0}
        self._ready = tuple(view for view in devices if view.weight > 0 and view.state is DeviceState.READY)
        self._able.clear()

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses by one of the two rules; see the module.

        Scores are weighted loads when spreading. When packing they are what stays free and half of what is taken, in
        millionths, times the size of the device.
        """
        if not self._settings.admission:
            return self._default.choose(candidates, workload)
        rule = self._pack if self._tight(candidates, workload) else self._spread.choose
        return rule(candidates, workload)

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
                if used and (parts := used * PARTS // bookable if bookable > 0 else PARTS) > fullest:
                    fullest = parts
            filled += size * fullest
        size_of_able = max(self._able_size(workload), size_of_candidates)
        filled += (size_of_able - size_of_candidates) * PARTS
        return filled >= size_of_able * PACKING_FILL_PARTS

    def _pack(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - as a policy's
        """Chooses the device with the least left, counting what the session takes; of equals the most sessions."""
        best: Candidate | None = None
        best_score = 0
        scores: dict[DeviceId, int] = {}
        for candidate in candidates:
            after = taken = 0
            for (_, needed, bookable), used in zip(candidate.device_needs, candidate.device_used, strict=True):
                if not needed:
                    continue
                needed_parts = needed * PARTS // bookable if bookable > 0 else PARTS
                if needed_parts > taken:
                    taken = needed_parts
                after_parts = (used + needed) * PARTS // bookable if bookable > 0 else PARTS
                if after_parts > after:
                    after = after_parts
            device_id = candidate.view.identity.id
            size = self._sizes.get(device_id, 1)
            score = scores[device_id] = size * (FREE_WEIGHT * (PARTS - after) + TAKEN_WEIGHT * taken) // FREE_WEIGHT
            if (
                best is None
                or score < best_score
                or (score == best_score and candidate.session_count > best.session_count)
            ):
                best, best_score = candidate, score
        if best is None:
            raise ValueError("Cannot choose a device: there is no candidate.")
        return Choice(device_id=best.view.id, scores=scores)

    def _able_size(self, workload: Workload) -> int:
        """Gives the size of all devices that could do a session if they were empty."""
        known = self._able.get(workload)
        if known is None:
            able = [view for view in self._ready if not isinstance(self._demands.of(workload, view), Refusal)]
            known = sum(self._sizes[view.id] for view in able)
            while len(self._able) >= KEPT_WORKLOADS:
                del self._able[next(iter(self._able))]
            self._able[workload] = known
        return known
