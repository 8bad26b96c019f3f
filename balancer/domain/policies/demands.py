"""What sessions take of devices, for policies that ask that of many devices again and again."""

from __future__ import annotations

from collections.abc import Hashable

from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.demand import Demand, demand_on
from balancer.domain.device import DeviceView
from balancer.domain.fleet_index import class_key
from balancer.domain.ids import DeviceId
from balancer.domain.offers import bookable_of, too_fast
from balancer.domain.workload import Workload

KEPT_WORKLOADS = 256
"""Shapes of sessions that are kept in mind."""


class Demands:
    """Works out once what a session takes of devices that differ in nothing but who they are."""

    def __init__(self) -> None:
        """Begins without having been asked, with the usual settings."""
        self._settings = PlacementSettings()
        self._numbers: dict[Hashable, int] = {}
        self._class_of: dict[DeviceId, int] = {}
        self._known: dict[Workload, dict[int, Demand | Refusal]] = {}

    def on_settings(self, settings: PlacementSettings) -> None:
        """Takes the factors of cost, and how much of an engine may be booked."""
        self._settings = settings
        self._known.clear()

    def on_devices(self) -> None:
        """Forgets the devices: any may have become another."""
        self._numbers.clear()
        self._class_of.clear()
        self._known.clear()

    def of(self, workload: Workload, view: DeviceView) -> Demand | Refusal:
        """Gives what a session would take of a device, or why it cannot do it however empty it is."""
        known = self._known.get(workload)
        if known is None:
            while len(self._known) >= KEPT_WORKLOADS:
                del self._known[next(iter(self._known))]
            known = self._known[workload] = {}
        device_id = view.identity.id
        number = self._class_of.get(device_id)
        if number is None:
            number = self._class_of[device_id] = self._numbers.setdefault(class_key(view), len(self._numbers))
        demand = known.get(number)
        if demand is None:
            demand = demand_on(workload, view, self._settings.factors)
            if workload.real_time and isinstance(demand, Demand):
                demand = too_fast(demand, self._settings) or demand
            known[number] = demand
        return demand

    def fits_empty(self, workload: Workload, view: DeviceView) -> bool:
        """Tells whether a device could take a session if nothing ran on it."""
        demand = self.of(workload, view)
        if isinstance(demand, Refusal):
            return False
        bookable = bookable_of(view.capacity.limits, self._settings)
        return all(amount <= bookable.get(dimension, amount) for dimension, amount in demand.device_amounts.items())
