"""What devices offer a session before anybody looks at what is booked: the part of a decision that stays the same.

Sessions come in few shapes, a ladder and an input size each, and in great numbers. So what a shape takes of every
device, and up to where, is worked out once for as long as devices and settings stay what they are; a decision is left
with comparing that to what is booked. Nothing here is ever out of date: another set of views, settings or host capacity
is another `Offers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from balancer.domain.capacity import ENGINE
from balancer.domain.decision import PlacementSettings, Refusal, Reservation
from balancer.domain.demand import Demand, demand_on
from balancer.domain.device import DeviceState, DeviceView, Dimension
from balancer.domain.workload import Workload

KEPT_WORKLOADS = 256
"""Shapes of sessions that are kept in mind; about 1 KiB for each of them and each device."""

_RATES = frozenset({Dimension.DECODE, Dimension.SCALE, Dimension.ENCODE, Dimension.CORES})
"""Dimensions that are used over time: there is headroom, and a session without a deadline takes what there is."""
_STREAM_ENGINES = (Dimension.DECODE, Dimension.ENCODE)

Need = tuple[Dimension, int, int]
"""A limited dimension, how much of it a session needs, and how much of it may be booked by all sessions together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a device would book for a session, and where it may turn out to be full."""

    reservation: Reservation
    device_needs: tuple[Need, ...]
    host_needs: tuple[Need, ...]
    too_fast: Refusal | None
    """Why a single engine cannot do one of the streams in real time, however many engines there are. None: it can."""


class Offers:
    """The offers of one set of devices under one set of rules."""

    def __init__(
        self,
        views: Sequence[DeviceView],
        settings: PlacementSettings,
        host_capacity: Mapping[Dimension, int],
        *,
        kept_workloads: int = KEPT_WORKLOADS,
    ) -> None:
        """Begins without having been asked.

        Args:
            views: All devices, in device order.
            settings: What the operator tuned.
            host_capacity: What the host has, in the dimensions' units; an absent dimension is not limited.
            kept_workloads: How many workloads' offers are kept in mind, at least 1.
        """
        self.views = tuple(views)
        self.settings = settings
        self.highest_weight = max((view.weight for view in views), default=0)
        """Of all devices, ready or not."""
        self._host_capacity = dict(host_capacity)
        self._kept_workloads = kept_workloads
        self._known: dict[Workload, tuple[Offer | Refusal, ...]] = {}

    def of(self, workload: Workload) -> tuple[Offer | Refusal, ...]:
        """Gives each device's offer, or the first rule that speaks against it, in device order."""
        known = self._known.get(workload)
        if known is None:
            known = tuple(self._offer(workload, view) for view in self.views)
            while len(self._known) >= self._kept_workloads:
                del self._known[next(iter(self._known))]
            self._known[workload] = known
        return known

    def _offer(self, workload: Workload, view: DeviceView) -> Offer | Refusal:
        if view.state is not DeviceState.READY:
            told = f": {view.state_message}" if view.state_message else "."
            return Refusal(rule="NOT_READY", message=f"It is {view.state.value}{told}")
        if view.weight <= 0:
            return Refusal(rule="WEIGHT_ZERO", message="Its weight is 0, so it takes no new session.")
        demand = demand_on(workload, view, self.settings.factors)
        if isinstance(demand, Refusal):
            return demand
        limits, host_limits = self._bookable(view.capacity.limits), self._bookable(self._host_capacity)
        device_amounts, host_amounts = demand.device_amounts, demand.host_amounts
        if not workload.real_time:
            device_amounts, host_amounts = _clipped(device_amounts, limits), _clipped(host_amounts, host_limits)
        return Offer(
            reservation=Reservation(
                device_id=view.id,
                cost_pixels_per_second=demand.cost_pixels_per_second,
                device_amounts=device_amounts,
                host_amounts=host_amounts,
            ),
            device_needs=_needs(device_amounts, limits),
            host_needs=_needs(host_amounts, host_limits),
            too_fast=self._too_fast(demand) if workload.real_time else None,
        )

    def _bookable(self, limits: Mapping[Dimension, int]) -> dict[Dimension, int]:
        """Gives how much of each limit may be booked."""
        headroom = self.settings.headroom
        return {
            dimension: limit * headroom.numerator // headroom.denominator if dimension in _RATES else limit
            for dimension, limit in limits.items()
        }

    def _too_fast(self, demand: Demand) -> Refusal | None:
        bookable = self._bookable(dict.fromkeys(_STREAM_ENGINES, ENGINE))
        for dimension, available in bookable.items():
            needed = demand.largest_amounts.get(dimension, 0)
            if needed > available:
                message = (
                    f"One of its {_UNITS[dimension]}s offers {amount_in_words(dimension, available)}, "
                    f"and a single stream needs {amount_in_words(dimension, needed)}."
                )
                return Refusal(
                    rule="CAPACITY", message=message, dimension=dimension, needed=needed, available=available
                )
        return None


def _clipped(amounts: Mapping[Dimension, int], limits: Mapping[Dimension, int]) -> Mapping[Dimension, int]:
    """Takes from a session that may be slower than real time what even an empty device does not have."""
    return {
        dimension: min(amount, limits.get(dimension) or amount) if dimension in _RATES else amount
        for dimension, amount in amounts.items()
    }


def _needs(amounts: Mapping[Dimension, int], limits: Mapping[Dimension, int]) -> tuple[Need, ...]:
    return tuple((dimension, amount, limits[dimension]) for dimension, amount in amounts.items() if dimension in limits)


_UNITS = {
    Dimension.DECODE: "decoder engine",
    Dimension.ENCODE: "encoder engine",
    Dimension.CORES: "core",
    Dimension.SCALE: "million scaled pixels/s",
    Dimension.ENCODER_SESSIONS: "encoder sessions",
    Dimension.MEMORY: "MiB of memory",
}
_MILLIONTHS = frozenset({Dimension.DECODE, Dimension.ENCODE, Dimension.CORES})


def amount_in_words(dimension: Dimension, amount: int) -> str:
    """Tells an amount as people read it: "0.250 encoder engines"."""
    unit = _UNITS[dimension]
    if dimension in _MILLIONTHS:
        return f"{amount / ENGINE:.3f} {unit}s"
    return f"{amount / 1_000_000:.0f} {unit}" if dimension is Dimension.SCALE else f"{amount} {unit}"
