"""The rule of a widely used streaming server, for those who come from it and for comparison.

A session's load is (decoded pixels + scaled pixels + 5 · encoded pixels) / 1000 of one picture each, whatever the frame
rate, at least 1; a device's is the sum of its sessions' loads times the highest weight over its own, in whole numbers;
the lowest *before* placing wins, the first one of equals. Known weaknesses are kept, because that is the rule: 60
frames/s weigh like 24, and a device of weight 0 has a load of 0 and so would take everything. The latter cannot happen
here: the common filter takes such devices out before any policy is asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from balancer.domain.decision import PlacementSettings
from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies.load_book import LoadBook
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import CostFactors, Workload

_LOAD_UNIT = 1000


class Wowza(IndifferentPolicy):
    """Chooses by the whole-number load before placing. Keeps loads of its own, which know no frame rates."""

    def __init__(self) -> None:
        """Begins without sessions and with the rule's own factors."""
        self._factors = CostFactors()
        self._book = LoadBook()

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "wowza"

    @property
    def loads(self) -> Mapping[DeviceId, int]:
        """The load of each device that has any, before any weight."""
        return self._book.loads

    def on_settings(self, settings: PlacementSettings) -> None:
        """Takes the factors. Loads of placed sessions stay what they were, so that ends take away what was added."""
        self._factors = settings.factors

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Adds the session's load to its device."""
        self._book.add(session_id, device_id, session_load(workload, self._factors))

    def on_session_ended(self, session_id: SessionId) -> None:
        """Takes the session's load from its device."""
        self._book.remove(session_id)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the lowest weighted load before placing; see the module."""
        if not candidates:
            raise ValueError("Cannot choose a device: there is no candidate.")
        scores = {one.view.id: self.weighted_load(one.view, one.highest_weight) for one in candidates}
        return Choice(device_id=min(scores, key=scores.__getitem__), scores=scores)

    def weighted_load(self, view: DeviceView, highest_weight: int) -> int:
        """Gives a device's load by the rule: 0 when its weight is 0."""
        if view.weight <= 0:
            return 0
        return self._book.of(view.id) * highest_weight // view.weight


def session_load(workload: Workload, factors: CostFactors) -> int:
    """Gives a session's load by the rule: pixels of one picture, in thousands; 0 when nothing is done to the video.

    The rule's scaler works on every encoded rendition, whether its size changes or not.
    """
    decoded = workload.decode.width * workload.decode.height if workload.decode else 0
    encoded = sum(task.width * task.height for task in workload.encodes)
    total = factors.decode * decoded + factors.scale * encoded + factors.encode * encoded
    return max(1, total // _LOAD_UNIT) if total else 0
