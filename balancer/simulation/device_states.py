"""The devices of a replay: which are dead, which the balancer has put aside, and what all of them offer.

The balancer does not know that a device is dead. It knows what it has put aside.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from balancer.domain.decision import Decision, PlacementSettings, Refusal
from balancer.domain.device import DeviceState, DeviceView
from balancer.domain.fleet_index import FULL_LOOK, FleetIndex
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import Offers
from balancer.domain.placement import decide
from balancer.domain.policies.policy import Policy
from balancer.domain.workload import Workload
from balancer.simulation.fleet import Fleet
from balancer.simulation.outcome import DeviceFailure


class DeviceStates:
    """Decides with the devices as they are, and keeps the policy told, in the order of the daemon's placer."""

    def __init__(
        self,
        fleet: Fleet,
        policy: Policy,
        settings: PlacementSettings,
        ledger: Ledger,
        failures: Sequence[DeviceFailure],
    ) -> None:
        """Tells the policy of settings and devices."""
        self._views = fleet.views
        self._host_capacity = fleet.host_capacity
        self._policy = policy
        self._settings = settings
        self._ledger = ledger
        self._failures = failures
        self._index: FleetIndex | None = None
        self._offers = self._offers_now()
        policy.on_settings(settings)
        policy.on_devices(self._views)

    def dead(self, device_id: DeviceId, time_s: float) -> bool:
        """Whether a device is dead."""
        return any(one.device_id == device_id and one.holds_at(time_s) for one in self._failures)

    def comes_back(self, device_id: DeviceId) -> bool:
        """Whether a device that fails is not dead for good."""
        return all(one.duration_s is not None for one in self._failures if one.device_id == device_id)

    def set_aside(self, device_id: DeviceId, message: str) -> None:
        """Has a device take nothing."""
        self._change(device_id, DeviceState.UNHEALTHY, message)

    def bring_back(self, device_id: DeviceId) -> None:
        """Has a device take sessions again."""
        self._change(device_id, DeviceState.READY, "")

    def decide(self, session_id: SessionId, workload: Workload, closed: Mapping[DeviceId, Refusal]) -> Decision:
        """Decides where a session goes; it is to be booked at once when it goes anywhere.

        Args:
            session_id: The session.
            workload: What it takes.
            closed: Devices that take nothing from it.
        """
        self._policy.on_session_created(session_id, workload)
        decision = self.consider(workload, closed)
        if decision.device_id is None:
            self._policy.on_session_ended(session_id)
        else:
            self._policy.on_session_placed(session_id, decision.device_id, workload)
        return decision

    def consider(self, workload: Workload, closed: Mapping[DeviceId, Refusal]) -> Decision:
        """Tells where a session would go."""
        return decide(workload, self._offers, self._ledger, self._policy, closed=closed)

    def settle(self, session_id: SessionId, workload: Workload, device_id: DeviceId) -> None:
        """Tells the policy of a session for which room was made."""
        self._policy.on_session_created(session_id, workload)
        self._policy.on_session_placed(session_id, device_id, workload)

    def _offers_now(self) -> Offers:
        """Gives the offers of all devices as they are; of very many with an index, as the daemon does."""
        if len(self._views) > FULL_LOOK:
            self._index = self._index or FleetIndex(self._ledger)
            self._index.update(self._views)
        return Offers(self._views, self._settings, self._host_capacity, index=self._index)

    def _change(self, device_id: DeviceId, state: DeviceState, message: str) -> None:
        self._views = tuple(_in_state(view, state, message) if view.id == device_id else view for view in self._views)
        self._offers = self._offers_now()
        self._policy.on_devices(self._views)


def _in_state(view: DeviceView, state: DeviceState, message: str) -> DeviceView:
    return replace(view, state=state, state_message=message)
