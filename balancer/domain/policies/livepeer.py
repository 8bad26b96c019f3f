"""The rule of a video network's transcoder nodes, for those who come from it and for comparison.

A session's load is the output pixels per second of its encoded renditions; the device with the lowest load *before*
placing wins, the first one of equals. Known weaknesses are kept, because that is the rule: all cards are taken for
equal, so weights and models count nothing; decoding, formats and encoder speeds cost nothing; and a session that moves
to another device stays in the books of the first one until it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload


class Livepeer(IndifferentPolicy):
    """Chooses by output pixels per second before placing. Keeps books of its own."""

    def __init__(self) -> None:
        """Begins without sessions."""
        self._placed: dict[SessionId, tuple[DeviceId, int]] = {}
        self._loads: dict[DeviceId, int] = {}

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "livepeer"

    @property
    def loads(self) -> Mapping[DeviceId, int]:
        """The load of each device that has any, in output pixels per second."""
        return self._loads

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Adds the session's load to its device, unless it is in the books already: then it stays where it was."""
        load = workload.encode_pixels_per_second
        if session_id not in self._placed and load:
            self._placed[session_id] = (device_id, load)
            self._loads[device_id] = self._loads.get(device_id, 0) + load

    def on_session_ended(self, session_id: SessionId) -> None:
        """Takes the session's load from the device in whose books it is."""
        device_id, load = self._placed.pop(session_id, (None, 0))
        if device_id is not None:
            self._loads[device_id] -= load
            if not self._loads[device_id]:
                del self._loads[device_id]

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the lowest load before placing; see the module."""
        if not candidates:
            raise ValueError("Cannot choose a device: there is no candidate.")
        scores = {one.view.id: self._loads.get(one.view.id, 0) for one in candidates}
        return Choice(device_id=min(scores, key=scores.__getitem__), scores=scores)
