"""Takes devices in turn, for comparison and for fleets where all devices and all sessions are alike.

The next device after the one that took the latest session, in device order, beginning again after the last. Its
weakness is what it does not look at: size, length and cost of sessions, weights, and who has ended. The turn moves on
when a session is placed and not when it is asked for, so that a plan and the placement after it agree.
"""

from __future__ import annotations

from collections.abc import Sequence

from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies.policy import Candidate, Choice, IndifferentPolicy
from balancer.domain.workload import Workload


class RoundRobin(IndifferentPolicy):
    """Chooses the next device in turn."""

    def __init__(self) -> None:
        """Begins before the first device."""
        self._places: dict[DeviceId, int] = {}
        self._latest = -1

    @property
    def name(self) -> str:
        """Its name among the entry points."""
        return "round_robin"

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Takes the device order. The turn stays with the device that had it, or with its place if it is gone."""
        holder = next((device_id for device_id, place in self._places.items() if place == self._latest), None)
        self._places = {view.id: place for place, view in enumerate(devices)}
        if holder is not None:
            self._latest = self._places.get(holder, self._latest)

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:  # noqa: ARG002
        """Moves the turn on to the device."""
        self._latest = self._places.get(device_id, self._latest)

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:  # noqa: ARG002 - the port's
        """Chooses the next device in turn; scores tell how many places away each one is."""
        if not candidates:
            raise ValueError("Cannot choose a device: there is no candidate.")
        count = max(len(self._places), len(candidates))
        scores = {
            one.view.id: (self._places.get(one.view.id, place) - self._latest - 1) % count
            for place, one in enumerate(candidates)
        }
        return Choice(device_id=min(scores, key=scores.__getitem__), scores=scores)
