"""Asks where a session goes, and keeps the policy told of everything it may want to keep in mind.

A policy hears of settings, devices and sessions in one order only, whether it has been there from the start, was put in
place by a reload, or begins anew after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer.domain.decision import Decision, PlacementSettings
from balancer.domain.offers import Offers
from balancer.domain.placement import decide

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from balancer.domain.device import DeviceView, Dimension
    from balancer.domain.ids import SessionId
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


class Placer:
    """Decides by the rules in force. Books nothing."""

    def __init__(self, rules: PlacementRules, devices: DeviceViews, ledger: Ledger) -> None:
        """Begins with a policy that knows of no session."""
        self._rules = rules
        self._devices = devices
        self._ledger = ledger
        self._told_views: Sequence[DeviceView] | None = None
        self._offers: Offers | None = None
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

    def plan(self, workload: Workload) -> Decision:
        """Tells where a workload would go now."""
        return decide(workload, self._current_offers(), self._ledger, self._rules.policy)

    def place(self, session_id: SessionId, workload: Workload) -> Decision:
        """Decides where a new session goes; when it is placed, it is to be booked at once."""
        policy = self._rules.policy
        offers = self._current_offers()
        policy.on_session_created(session_id, workload)
        placed = False
        try:
            decision = decide(workload, offers, self._ledger, policy)
            placed = decision.device_id is not None
        finally:
            if not placed:
                policy.on_session_ended(session_id)
        if decision.device_id is not None:
            policy.on_session_placed(session_id, decision.device_id, workload)
        return decision

    def ended(self, session_id: SessionId) -> None:
        """Notes that a session holds no device any more."""
        self._rules.policy.on_session_ended(session_id)

    def _current_offers(self) -> Offers:
        """Gives the offers of all devices as they are, by the rules in force.

        The registry makes a new sequence of views at each change, which is when the policy is told too.
        """
        views = self._devices.views()
        if self._offers is None or views is not self._told_views:
            self._offers = Offers(views, self._rules.settings, self._rules.host_capacity)
        if views is not self._told_views:
            self._told_views = views
            self._rules.policy.on_devices(views)
        return self._offers
