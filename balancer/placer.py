"""Asks where a session goes, and keeps the policy told of everything it may want to keep in mind.

A policy hears of settings, devices and sessions in one order only, whether it has been there from the start, was put in
place by a reload, or begins anew after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from balancer.domain.decision import Decision, PlacementSettings
from balancer.domain.demand import Demand, demand_on
from balancer.domain.fleet_index import FULL_LOOK, FleetIndex
from balancer.domain.offers import Offer, Offers
from balancer.domain.placement import decide
from balancer.domain.policies import FallingBack
from balancer.domain.queue import QueueSettings

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from balancer.domain.decision import Refusal, Reservation
    from balancer.domain.device import DeviceView, Dimension, Utilization
    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.ledger import Ledger
    from balancer.domain.policies import Policy
    from balancer.domain.session import SessionRecord
    from balancer.domain.workload import Workload
    from balancer.ports.device_news import DeviceViews


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementRules:
    """How devices are chosen. Replaced as a whole when the settings are read again."""

    policy: Policy
    settings: PlacementSettings
    host_capacity: Mapping[Dimension, int]
    """What the host has, in the dimensions' units. An absent dimension is not limited."""
    queue: QueueSettings = field(default_factory=QueueSettings)
    """Who waits how long, and how many."""


_NONE_CLOSED: Mapping[DeviceId, Refusal] = MappingProxyType({})
_NOTHING: Mapping[Dimension, int] = MappingProxyType({})


class Placer:
    """Decides by the rules in force. Books nothing."""

    def __init__(self, rules: PlacementRules, devices: DeviceViews, ledger: Ledger) -> None:
        """Begins with a policy that knows of no session."""
        self._rules = rules
        self._guard = _guard_of(rules)
        self._devices = devices
        self._ledger = ledger
        self._told_views: Sequence[DeviceView] | None = None
        self._offers: Offers | None = None
        self._index: FleetIndex | None = None
        self._places: dict[DeviceId, int] = {}
        rules.policy.on_settings(rules.settings)

    @property
    def rules(self) -> PlacementRules:
        """The rules in force."""
        return self._rules

    def use(self, rules: PlacementRules, live: Iterable[SessionRecord]) -> None:
        """Puts other rules in force.

        Args:
            rules: The new ones.
            live: Every session that has not ended, oldest first; a new policy is told of them.
        """
        newcomer = rules.policy is not self._rules.policy
        self._rules = rules
        self._guard = _guard_of(rules)
        self._offers = None
        rules.policy.on_settings(rules.settings)
        if newcomer:
            self._told_views = None
            for record in live:
                self.adopt(record)

    def adopt(self, record: SessionRecord) -> None:
        """Tells the policy of a session that was placed before its time."""
        policy = self._rules.policy
        self._current_offers()
        policy.on_session_created(record.id, record.workload)
        if record.reservation is not None:
            policy.on_session_placed(record.id, record.reservation.device_id, record.workload)

    @property
    def ledger(self) -> Ledger:
        """What is booked."""
        return self._ledger

    @property
    def views(self) -> Sequence[DeviceView]:
        """All devices as they are; the same sequence for as long as nothing about them changes."""
        return self._devices.views()

    def consider(self, workload: Workload, *, closed: Mapping[DeviceId, Refusal] = _NONE_CLOSED) -> Decision:
        """Tells where a workload would go now; devices in `closed` take nothing."""
        return self._decide(workload, self._current_offers(), closed)

    def fits(self, workload: Workload, reservation: Reservation) -> bool | None:
        """Tells whether a reservation that is booked already, over others, fits by now.

        Returns:
            None: its device takes no sessions any more.
        """
        offer = self._offer_of(workload, reservation.device_id)
        return None if offer is None else self._leaves_room(offer, reservation.device_id, booked=True)

    def has_room(self, workload: Workload, device_id: DeviceId) -> bool:
        """Tells whether a session in real time fits on a device now."""
        offer = self._offer_of(workload, device_id)
        return offer is not None and offer.too_fast is None and self._leaves_room(offer, device_id, booked=False)

    def _offer_of(self, workload: Workload, device_id: DeviceId) -> Offer | None:
        view = self._view(device_id)
        offers = self._current_offers()
        if view is None:
            return None
        if offers.index is None:
            offer = offers.of(workload)[self._places[device_id]]
        else:
            offer = offers.of_device(workload, view)
        return offer if isinstance(offer, Offer) else None

    def _leaves_room(self, offer: Offer, device_id: DeviceId, *, booked: bool) -> bool:
        """Tells whether what does not yield leaves room for an offer, or for what it has booked itself."""
        ledger = self._ledger
        for needs, used, yielding in (
            (offer.device_needs, ledger.used(device_id), ledger.yielding(device_id)),
            (offer.host_needs, ledger.host_used(), ledger.host_yielding()),
        ):
            for dimension, needed, bookable in needs:
                taken = used.get(dimension, 0) - yielding.get(dimension, 0)
                if taken + (0 if booked else needed) > bookable:
                    return False
        return True

    def bookable_on(self, device_id: DeviceId) -> Mapping[Dimension, int] | None:
        """Gives how much of a device may be booked. None: there is no such device."""
        view = self._view(device_id)
        return None if view is None else self._current_offers().bookable_on(view)

    def left_by_others(self, device_id: DeviceId) -> Mapping[Dimension, int] | None:
        """Gives how much of a device the sessions may book together, less what others take. None: no such device."""
        bookable, foreign = self.bookable_on(device_id), self._ledger.foreign(device_id)
        if bookable is None or not foreign:
            return bookable
        return {dimension: max(0, amount - foreign.get(dimension, 0)) for dimension, amount in bookable.items()}

    def amounts_in_real_time(self, workload: Workload, device_id: DeviceId) -> Mapping[Dimension, int]:
        """Gives what a session takes of a device when it runs in real time. Empty: the device cannot do it."""
        view = self._view(device_id)
        demand = None if view is None else demand_on(workload, view, self._rules.settings.factors)
        return demand.device_amounts if isinstance(demand, Demand) else _NOTHING

    def _view(self, device_id: DeviceId) -> DeviceView | None:
        views = self._current_offers().views
        place = self._places.get(device_id)
        return None if place is None else views[place]

    def _updated_index(self, views: Sequence[DeviceView]) -> FleetIndex:
        if self._index is None:
            self._index = FleetIndex(self._ledger)
        self._index.update(views)
        return self._index

    def place(
        self, session_id: SessionId, workload: Workload, *, closed: Mapping[DeviceId, Refusal] = _NONE_CLOSED
    ) -> Decision:
        """Decides where a session goes; when it is placed, it is to be booked at once."""
        policy = self._rules.policy
        offers = self._current_offers()
        policy.on_session_created(session_id, workload)
        placed = False
        try:
            decision = self._decide(workload, offers, closed)
            placed = decision.device_id is not None
        finally:
            if not placed:
                policy.on_session_ended(session_id)
        if decision.device_id is not None:
            policy.on_session_placed(session_id, decision.device_id, workload)
        return decision

    def settle(self, session_id: SessionId, workload: Workload, device_id: DeviceId) -> None:
        """Tells the policy of a session whose room was booked before it could be placed there."""
        self._current_offers()
        self._rules.policy.on_session_created(session_id, workload)
        self._rules.policy.on_session_placed(session_id, device_id, workload)

    def ended(self, session_id: SessionId) -> None:
        """Notes that a session holds no device any more."""
        self._rules.policy.on_session_ended(session_id)

    def measured(self, device_id: DeviceId, utilization: Utilization) -> None:
        """Notes how busy a device was lately."""
        self._rules.policy.on_measured(device_id, utilization)

    def _decide(self, workload: Workload, offers: Offers, closed: Mapping[DeviceId, Refusal]) -> Decision:
        """Decides; when another policy had to stand in for that of the settings, the decision says so."""
        decision = decide(workload, offers, self._ledger, self._rules.policy, closed=closed)
        stood_in = self._guard.fallback if self._guard is not None and decision.device_id is not None else None
        if stood_in is None:
            return decision
        return replace(decision, policy=stood_in.policy, policy_fault=stood_in.fault)

    def _current_offers(self) -> Offers:
        """Gives the offers of all devices as they are, by the rules in force.

        The registry makes a new sequence of views at each change, which is when the policy is told too.
        """
        views = self._devices.views()
        if self._offers is None or views is not self._told_views:
            index = self._updated_index(views) if len(views) > FULL_LOOK else None
            self._offers = Offers(views, self._rules.settings, self._rules.host_capacity, index=index)
            self._places = {view.id: place for place, view in enumerate(views)}
        if views is not self._told_views:
            self._told_views = views
            self._rules.policy.on_devices(views)
        return self._offers


def _guard_of(rules: PlacementRules) -> FallingBack | None:
    """Gives the policy as one that others may stand in for. None: it decides everything itself."""
    return rules.policy if isinstance(rules.policy, FallingBack) else None
