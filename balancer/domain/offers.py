"""What devices offer a session before anybody looks at what is booked: the part of a decision that stays the same.

Sessions come in few shapes, a ladder and an input size each, and in great numbers. So what a shape takes of every
device, and up to where, is worked out once for as long as devices and settings stay what they are; a decision is left
with comparing that to what is booked. Nothing here is ever out of date: another set of views, settings or host capacity
is another `Offers`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import repeat

from balancer.domain.capacity import ENGINE
from balancer.domain.decision import Need, PlacementSettings, Refusal, Reservation
from balancer.domain.demand import Demand, demand_on
from balancer.domain.device import DeviceState, DeviceView, Dimension
from balancer.domain.fleet_index import FULL_LOOK, DeviceClass, FleetIndex, class_key
from balancer.domain.ids import DeviceId
from balancer.domain.workload import Workload

KEPT_WORKLOADS = 256
"""Shapes of sessions that are kept in mind; about 1 KiB for each of them and each class of devices."""
RATES = frozenset({Dimension.DECODE, Dimension.SCALE, Dimension.ENCODE, Dimension.CORES})
"""Dimensions that are used over time: there is headroom, and a session without a deadline takes what there is."""
_STREAM_ENGINES = (Dimension.DECODE, Dimension.ENCODE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a device would book for a session, and where it may turn out to be full."""

    reservation: Reservation
    """For a session that is content with what is left: at real time, or what an empty device gives."""
    device_needs: tuple[Need, ...]
    """What there must be: for a session that is content with what is left, at the least speed."""
    host_needs: tuple[Need, ...]
    device_wants: tuple[Need, ...] = ()
    """What a session would like that is content with what is left. Empty for any other."""
    host_wants: tuple[Need, ...] = ()
    too_fast: Refusal | None
    """Why a single engine cannot do one of the streams in real time, however many engines there are. None: it can."""
    _elsewhere: dict[DeviceId, Reservation] = field(default_factory=dict, compare=False, repr=False)

    def reservation_on(self, device_id: DeviceId) -> Reservation:
        """Gives what is booked on a device that offers the same; all sessions of a shape hold the same one there.

        Where there are very many devices each has its own: they would be more than are worth keeping.
        """
        if self.reservation.device_id == device_id:
            return self.reservation
        kept = self._elsewhere.get(device_id)
        if kept is None:
            kept = replace(self.reservation, device_id=device_id)
            if len(self._elsewhere) < FULL_LOOK:
                self._elsewhere[device_id] = kept
        return kept


class Offers:
    """The offers of one set of devices under one set of rules."""

    def __init__(
        self,
        views: Sequence[DeviceView],
        settings: PlacementSettings,
        host_capacity: Mapping[Dimension, int],
        *,
        index: FleetIndex | None = None,
        kept_workloads: int = KEPT_WORKLOADS,
    ) -> None:
        """Begins without having been asked.

        Args:
            views: All devices, in device order.
            settings: What the operator tuned.
            host_capacity: What the host has, in the dimensions' units; an absent dimension is not limited.
            index: Of the same views, where there are very many. None: every device is looked at.
            kept_workloads: How many workloads' offers are kept in mind, at least 1.
        """
        self.index = index
        self.views = tuple(views)
        self.settings = settings
        self.highest_weight = max((view.weight for view in views), default=0)
        """Of all devices, ready or not."""
        self._host_bookable = bookable_of(host_capacity, self.settings)
        self._bookable: dict[int, tuple[Mapping[Dimension, int], Mapping[Dimension, int]]] = {}
        """By the identity of limits, these limits and how much of them may be booked."""
        self._kept_workloads = kept_workloads
        self._known: dict[Workload, tuple[Offer | Refusal, ...]] = {}
        self._known_of_classes: dict[Workload, dict[int, Offer | Refusal]] = {}
        self._numbers: tuple[int | None, ...] | None = None

    def of(self, workload: Workload) -> tuple[Offer | Refusal, ...]:
        """Gives each device's offer, or the first rule that speaks against it, in device order.

        It is worked out once for devices that differ in nothing but who they are, and its reservation names one of
        them; see `Offer.reservation_on`.
        """
        known = self._known.get(workload)
        if known is None:
            offers: list[Offer | Refusal] = []
            by_class: dict[int, Offer | Refusal] = {}
            for view, number in zip(self.views, self._class_numbers(), strict=True):
                offer = None if number is None else by_class.get(number)
                if offer is None:
                    offer = self.of_device(workload, view)
                    if number is not None:
                        by_class[number] = offer
                offers.append(offer)
            known = tuple(offers)
            while len(self._known) >= self._kept_workloads:
                del self._known[next(iter(self._known))]
            self._known[workload] = known
        return known

    def of_class(self, workload: Workload, members: DeviceClass) -> Offer | Refusal:
        """Gives what every member of a class offers; its reservation names the representative."""
        known = self._known_of_classes.get(workload)
        if known is None:
            while len(self._known_of_classes) >= self._kept_workloads:
                del self._known_of_classes[next(iter(self._known_of_classes))]
            known = self._known_of_classes[workload] = {}
        offer = known.get(members.number)
        if offer is None:
            offer = known[members.number] = self.of_device(workload, members.representative)
        return offer

    def bookable_on(self, view: DeviceView) -> Mapping[Dimension, int]:
        """Gives how much of a device may be booked by all sessions together."""
        limits = view.capacity.limits
        known = self._bookable.get(id(limits))
        if known is None:
            known = self._bookable[id(limits)] = (limits, bookable_of(limits, self.settings))
        return known[1]

    def _class_numbers(self) -> tuple[int | None, ...]:
        """Gives the class of each device. None: it takes nothing now, and only it can tell why."""
        if self._numbers is None:
            numbers: dict[Hashable, int] = {}
            self._numbers = tuple(
                numbers.setdefault(class_key(view), len(numbers))
                if view.state is DeviceState.READY and view.weight > 0
                else None
                for view in self.views
            )
        return self._numbers

    def of_device(self, workload: Workload, view: DeviceView) -> Offer | Refusal:
        """Gives one device's offer, worked out anew."""
        if view.state is not DeviceState.READY:
            told = f": {view.state_message}" if view.state_message else "."
            return Refusal(rule="NOT_READY", message=f"It is {view.state.value}{told}")
        if view.weight <= 0:
            return Refusal(rule="WEIGHT_ZERO", message="Its weight is 0, so it takes no new session.")
        demand = demand_on(workload, view, self.settings.factors)
        if isinstance(demand, Refusal):
            return demand
        if workload.elastic:
            return self._elastic_offer(demand, view)
        if workload.reserved_speed is not None:
            demand = _at_speed(demand, workload.reserved_speed)
        return Offer(
            reservation=Reservation(
                device_id=view.id,
                cost_pixels_per_second=demand.cost_pixels_per_second,
                device_amounts=demand.device_amounts,
                host_amounts=demand.host_amounts,
                capture_amounts=demand.capture_amounts,
            ),
            device_needs=_needs(demand.device_amounts, self.bookable_on(view)),
            host_needs=_needs(demand.host_amounts, self._host_bookable),
            too_fast=too_fast(demand, self.settings),
        )

    def _elastic_offer(self, demand: Demand, view: DeviceView) -> Offer:
        """Offers real time, or what an empty device gives, down to the least speed, or what an empty device gives."""
        limits, host_limits = self.bookable_on(view), self._host_bookable
        wants, host_wants = _needs(demand.device_amounts, limits), _needs(demand.host_amounts, host_limits)
        speed = speed_within(((wants, repeat(0)), (host_wants, repeat(0))))
        wanted, least = _at_speed(demand, speed), _at_speed(demand, min(speed, self.settings.least_batch_speed))
        return Offer(
            reservation=Reservation(
                device_id=view.id,
                cost_pixels_per_second=demand.cost_pixels_per_second,
                device_amounts=wanted.device_amounts,
                host_amounts=wanted.host_amounts,
                firm_device_amounts=least.device_amounts,
                firm_host_amounts=least.host_amounts,
            ),
            device_needs=_needs(least.device_amounts, limits),
            host_needs=_needs(least.host_amounts, host_limits),
            device_wants=_needs(wanted.device_amounts, limits),
            host_wants=_needs(wanted.host_amounts, host_limits),
            too_fast=None,
        )


def bookable_of(limits: Mapping[Dimension, int], settings: PlacementSettings) -> Mapping[Dimension, int]:
    """Gives how much of each limit may be booked."""
    headroom = settings.headroom
    return {
        dimension: limit * headroom.numerator // headroom.denominator if dimension in RATES else limit
        for dimension, limit in limits.items()
    }


def too_fast(demand: Demand, settings: PlacementSettings) -> Refusal | None:
    """Tells whether a stream needs more than one engine, which no two share. None: none does, or all is admitted."""
    if not settings.admission:
        return None
    available = ENGINE * settings.headroom.numerator // settings.headroom.denominator
    for dimension in _STREAM_ENGINES:
        needed = demand.largest_amounts.get(dimension, 0)
        if needed > available:
            message = (
                f"One of its {_UNITS[dimension]}s offers {amount_in_words(dimension, available)}, "
                f"and a single stream needs {amount_in_words(dimension, needed)}."
            )
            return Refusal(
                rule="CAPACITY",
                message=message,
                dimension=dimension,
                needed=needed,
                available=available,
                permanent=True,
            )
    return None


def speed_within(needs_and_used: Iterable[tuple[Sequence[Need], Iterable[int]]]) -> Fraction:
    """Tells at which share of what it wants a session fits into what is left, at most 1.

    Args:
        needs_and_used: What it wants at full speed, by dimension, and what is taken of each already; of its device,
            and of the host.

    Returns:
        The share, 0 where nothing is left. Only what is used over time is shared.
    """
    speed = Fraction(1)
    for needs, used in needs_and_used:
        for (dimension, wanted, bookable), taken in zip(needs, used, strict=False):
            # A limit of 0 is a dimension that the device does not have; whoever needs it was refused before.
            if dimension in RATES and wanted and bookable and wanted > bookable - taken:
                speed = min(speed, Fraction(max(0, bookable - taken), wanted))
    return speed


def scaled(amounts: Mapping[Dimension, int], speed: Fraction) -> Mapping[Dimension, int]:
    """Gives what amounts are at another speed, rounded up. Only what is used over time follows the speed."""
    if speed == 1:
        return amounts
    return {
        dimension: -(-amount * speed.numerator // speed.denominator) if dimension in RATES else amount
        for dimension, amount in amounts.items()
    }


def _at_speed(demand: Demand, speed: Fraction) -> Demand:
    cost = -(-demand.cost_pixels_per_second * speed.numerator // speed.denominator)
    return Demand(
        cost_pixels_per_second=cost,
        device_amounts=scaled(demand.device_amounts, speed),
        host_amounts=scaled(demand.host_amounts, speed),
        largest_amounts=scaled(demand.largest_amounts, speed),
        capture_amounts=demand.capture_amounts,
    )


def _needs(amounts: Mapping[Dimension, int], limits: Mapping[Dimension, int]) -> tuple[Need, ...]:
    return tuple((dimension, amount, limits[dimension]) for dimension, amount in amounts.items() if dimension in limits)


_UNITS = {
    Dimension.DECODE: "decoder engine",
    Dimension.ENCODE: "encoder engine",
    Dimension.CORES: "core",
    Dimension.SCALE: "million scaled pixels/s",
    Dimension.ENCODER_SESSIONS: "encoder sessions",
    Dimension.MEMORY: "MiB of memory",
    Dimension.DISPLAYS: "displays",
    Dimension.UPLOAD: "Mbit/s of upload",
}
_MILLIONTHS = frozenset({Dimension.DECODE, Dimension.ENCODE, Dimension.CORES})


def amount_in_words(dimension: Dimension, amount: int) -> str:
    """Tells an amount as people read it: "0.250 encoder engines"."""
    unit = _UNITS[dimension]
    if dimension in _MILLIONTHS:
        return f"{amount / ENGINE:.3f} {unit}s"
    if dimension is Dimension.UPLOAD:
        return f"{amount / 1_000_000:.1f} {unit}"
    return f"{amount / 1_000_000:.0f} {unit}" if dimension is Dimension.SCALE else f"{amount} {unit}"
