"""What is measured while sessions are replayed: time integrals, samples over time, and who is below real time.

A device is too busy when sessions use more of an engine, of its scaling or of cores than there is; whoever of them is
bound to real time then runs at capacity / demand, which is below it. Work that gives way is paced by the daemon, so
that it never keeps others from real time and does not count as demand.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from balancer.domain.device import DeviceView, Dimension, Utilization
from balancer.domain.ids import DeviceId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import RATES

_BITS = {Dimension.DECODE: 1, Dimension.SCALE: 2, Dimension.ENCODE: 4, Dimension.CORES: 8}
_HOST_CORES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """How busy devices were at one instant, in device order."""

    time_s: float
    busy_shares: tuple[float, ...]
    """What is used of the fullest dimension that is used over time, of all that the device has: 1 = full."""
    weighted_loads: tuple[float, ...]
    """Pixels per second of the best device."""
    session_count: int
    waiting_count: int


@dataclass(slots=True, kw_only=True)
class Totals:
    """What has added up since measuring began."""

    session_s: float = 0.0
    real_time_s: float = 0.0
    """Session-seconds of sessions that are bound to real time."""
    below_real_time_s: float = 0.0
    work: float = 0.0
    """Cost of running sessions times seconds, pixels."""
    lowest_speed: float = 1.0
    """Of any session that is bound to real time, in times real time."""


@dataclass(slots=True, kw_only=True)
class _Device:
    """One device's sessions that are bound to real time."""

    view: DeviceView
    limits: tuple[tuple[Dimension, int, int], ...]
    """Each dimension that is used over time: its bit and what there is of it."""
    users: Counter[int] = field(default_factory=Counter)
    """Sessions by the bits of the dimensions that they use."""
    over: int = 0
    """Bits of the dimensions that are over what there is."""
    below: int = 0
    """Sessions that are below real time."""


class Meters:
    """Measures a replay. Told of every change, and of time before it passes."""

    def __init__(
        self, views: Sequence[DeviceView], host_capacity: Mapping[Dimension, int], ledger: Ledger, *, from_s: float
    ) -> None:
        """Begins at time 0 without sessions.

        Args:
            views: The devices.
            host_capacity: What the host has.
            ledger: What is booked.
            from_s: When totals begin to add up: before it devices only fill.
        """
        self.totals = Totals()
        self._ledger = ledger
        self._from_s = from_s
        self._now_s = 0.0
        self._highest_weight = max((view.weight for view in views), default=1)
        self._host_cores = host_capacity.get(Dimension.CORES)
        self._host_over = False
        self._devices = {
            view.id: _Device(
                view=view,
                limits=tuple(
                    (dimension, _BITS[dimension], limit)
                    for dimension, limit in view.capacity.limits.items()
                    if dimension in RATES
                ),
            )
            for view in views
        }
        self._session_count = 0
        self._real_time_count = 0
        self._cost = 0

    @property
    def session_count(self) -> int:
        """Sessions that run."""
        return self._session_count

    def pass_time(self, time_s: float) -> None:
        """Adds up what has been the case since the last change."""
        elapsed = time_s - max(self._now_s, self._from_s)
        self._now_s = time_s
        if elapsed <= 0:
            return
        totals = self.totals
        totals.session_s += elapsed * self._session_count
        totals.real_time_s += elapsed * self._real_time_count
        totals.work += elapsed * self._cost
        below = sum(device.below for device in self._devices.values())
        if below:
            totals.below_real_time_s += elapsed * below
            totals.lowest_speed = min(totals.lowest_speed, self._lowest_speed())

    def count(self, device_id: DeviceId, bits: int | None, cost: int, sign: int) -> None:
        """Notes that a session began (1) or ended (-1) to run.

        Args:
            device_id: Where.
            bits: What it uses, as `bits_of` gives it. None: it is not bound to real time.
            cost: Pixels per second.
            sign: 1 or -1.
        """
        self._session_count += sign
        self._cost += sign * cost
        if bits is not None:
            self._real_time_count += sign
            self._devices[device_id].users[bits] += sign

    def look(self, device_id: DeviceId) -> None:
        """Looks again at a device on which something was booked or released."""
        device = self._devices[device_id]
        used, yielding = self._ledger.used(device_id), self._ledger.yielding(device_id)
        device.over = 0
        for dimension, bit, limit in device.limits:
            if used.get(dimension, 0) - yielding.get(dimension, 0) > limit:
                device.over |= bit
        if self._host_cores is not None:
            host_over = self._host_firm() > self._host_cores
            if host_over != self._host_over:
                self._host_over = host_over
                for other in self._devices.values():
                    self._count_below(other)
        self._count_below(device)

    def bits_of(self, device_amounts: Mapping[Dimension, int], host_amounts: Mapping[Dimension, int]) -> int:
        """Tells which of what can be too busy a session uses."""
        bits = sum(_BITS[dimension] for dimension in device_amounts if dimension in RATES)
        return bits | (_HOST_CORES if host_amounts.get(Dimension.CORES) else 0)

    def sample(self, time_s: float, waiting_count: int) -> Sample:
        """Looks at all devices."""
        return Sample(
            time_s=time_s,
            busy_shares=tuple(self._busy(device) for device in self._devices.values()),
            weighted_loads=tuple(
                self._ledger.cost(device_id) * self._highest_weight / device.view.weight
                for device_id, device in self._devices.items()
                if device.view.weight
            ),
            session_count=self._session_count,
            waiting_count=waiting_count,
        )

    def utilization(self, device_id: DeviceId) -> Utilization:
        """Gives what NVML would tell of a device at this instant: figures end at 100."""
        capacity, used = self._devices[device_id].view.capacity, self._ledger.used(device_id)

        def percent(dimension: Dimension) -> int | None:
            limit = capacity.limits.get(dimension)
            return min(100, 100 * used.get(dimension, 0) // limit) if limit else None

        computing = percent(Dimension.CORES)
        return Utilization(
            encoder_percent=percent(Dimension.ENCODE),
            decoder_percent=percent(Dimension.DECODE),
            compute_percent=percent(Dimension.SCALE) if computing is None else computing,
            memory_percent=percent(Dimension.MEMORY),
        )

    def _count_below(self, device: _Device) -> None:
        over = device.over | (_HOST_CORES if self._host_over else 0)
        device.below = sum(count for bits, count in device.users.items() if bits & over) if over else 0

    def _host_firm(self) -> int:
        return self._ledger.host_used().get(Dimension.CORES, 0) - self._ledger.host_yielding().get(Dimension.CORES, 0)

    def _busy(self, device: _Device) -> float:
        used = self._ledger.used(device.view.id)
        return max((used.get(dimension, 0) / limit for dimension, _, limit in device.limits if limit), default=0.0)

    def _lowest_speed(self) -> float:
        speeds = [1 / share for device in self._devices.values() if (share := self._busy(device)) > 1]
        if self._host_over and self._host_cores:
            speeds.append(self._host_cores / self._host_firm())
        return min(speeds, default=1.0)


def variation(loads: Sequence[float]) -> float | None:
    """Gives the coefficient of variation: standard deviation / mean. None: nothing is loaded."""
    mean = sum(loads) / len(loads) if loads else 0.0
    if not mean:
        return None
    return math.sqrt(sum((load - mean) ** 2 for load in loads) / len(loads)) / mean
