"""Books what others than this balancer take of a device, from what its agent measures every second.

It stands between the agents' watches and the registry and hands everything on. What it books must be calm and never be
our own: a session that has just begun or ended shows for a moment as somebody else's. So a figure rises only to the
least of its last measurements, falls at once, and moves in steps.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from balancer.domain.capacity import shares_session_cap
from balancer.domain.device import DeviceKind, Dimension, Utilization

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from balancer.device_entry import DeviceEntry
    from balancer.domain.ids import DeviceId
    from balancer.domain.ledger import Ledger
    from balancer.ports.agent_client import AgentReport, Measurements
    from balancer.ports.device_news import DeviceNews

_MEASUREMENTS = 3
"""How many measurements have to show a rise."""
_UNKNOWN_MEASUREMENTS = 5
"""After so many that do not tell, what was known before counts as unknown."""
_PERCENT_STEP, _MEMORY_STEP_MIB = 5, 64
_STEPS = {Dimension.ENCODER_SESSIONS: 1, Dimension.MEMORY: _MEMORY_STEP_MIB}
"""Smallest change that is booked. Of every other dimension in percent of all engines or cores together."""


class KnownDevices(Protocol):
    """Tells what is known of a device."""

    def get(self, device_id: DeviceId) -> DeviceEntry | None:
        """Gives a device by its id. None: it is not known."""
        ...


@dataclass(slots=True)
class _Figure:
    """What others take of one dimension, as it settles."""

    step: int
    latest: deque[int] = field(default_factory=lambda: deque(maxlen=_MEASUREMENTS))
    unknown_count: int = 0
    settled: int = 0

    def take(self, measured: int | None) -> int:
        if measured is None:
            self.unknown_count += 1
            if self.unknown_count >= _UNKNOWN_MEASUREMENTS:
                self.latest.clear()
                self.settled = 0
            return self.settled
        self.unknown_count = 0
        self.latest.append(measured)
        least = min(self.latest) if len(self.latest) == _MEASUREMENTS else min(self.settled, *self.latest)
        if least == 0 or abs(least - self.settled) >= self.step:
            # Rounded up: what is short of a step is taken all the same.
            self.settled = -(-least // self.step) * self.step
        return self.settled


class ForeignLoad:
    """Hands the news of devices on to the registry, and books foreign load in the ledger."""

    def __init__(
        self,
        news: DeviceNews,
        devices: KnownDevices,
        ledger: Ledger,
        *,
        kinds: Collection[DeviceKind],
        on_measured: Callable[[DeviceId, Utilization], None] | None = None,
    ) -> None:
        """Begins with nothing booked.

        Args:
            news: Where everything goes on to; the registry.
            devices: Tells of which kind a device is, and what it has.
            ledger: Where foreign load is booked.
            kinds: Of which kinds of devices it is.
            on_measured: Told how busy a device is, at each measurement; must not wait or raise. None: nobody is told.
        """
        self._news = news
        self._devices = devices
        self._ledger = ledger
        self._kinds = frozenset(kinds)
        self._on_measured = on_measured
        self._figures: dict[DeviceId, dict[Dimension, _Figure]] = {}

    def use(self, kinds: Collection[DeviceKind]) -> None:
        """Takes new settings: what is booked of other kinds is given back at once."""
        self._kinds = frozenset(kinds)
        for device_id in tuple(self._figures):
            entry = self._devices.get(device_id)
            if entry is None or entry.identity.kind not in self._kinds:
                self._forget(device_id)

    def update_agent(self, report: AgentReport) -> None:
        """Takes what an agent tells of itself. A device that cannot work is not measured any more either."""
        self._news.update_agent(report)
        if report.fault_message or (report.health is not None and report.health.bars):
            self._forget(report.identity.id)

    def update_measurements(self, device_id: DeviceId, measurements: Measurements) -> None:
        """Takes what was measured on a device, and books what others take of it."""
        self._news.update_measurements(device_id, measurements)
        entry = self._devices.get(device_id)
        if entry is None:
            return
        if self._on_measured is not None:
            self._on_measured(device_id, _utilization(entry, measurements))
        if entry.identity.kind in self._kinds:
            self._book(entry, self._measured(entry, measurements))

    def mark_unreachable(self, device_id: DeviceId, message: str) -> None:
        """Notes that a device's agent is silent; nothing is known of others then."""
        self._news.mark_unreachable(device_id, message)
        self._forget(device_id)

    def mark_reachable(self, device_id: DeviceId) -> None:
        """Notes that a device's agent answers."""
        self._news.mark_reachable(device_id)

    def _measured(self, entry: DeviceEntry, measurements: Measurements) -> dict[Dimension, int | None]:
        """Gives what others take now. Engines and cores in percent of all together; None: unknown."""
        if entry.identity.kind is DeviceKind.CPU:
            return {Dimension.CORES: measurements.foreign_compute_utilization_percent}
        sessions = measurements.foreign_encoder_sessions
        if sessions is None and measurements.encoder_sessions is not None:
            # Less all that is booked, also by sessions that are only starting: rather a few too few than our own.
            sessions = max(measurements.encoder_sessions - self._booked_encoder_sessions(entry), 0)
        return {
            Dimension.ENCODER_SESSIONS: sessions,
            Dimension.ENCODE: measurements.foreign_encoder_utilization_percent,
            Dimension.DECODE: measurements.foreign_decoder_utilization_percent,
            Dimension.MEMORY: measurements.foreign_memory_used_mib,
        }

    def _booked_encoder_sessions(self, entry: DeviceEntry) -> int:
        device_id, dimension = entry.identity.id, Dimension.ENCODER_SESSIONS
        return self._ledger.used(device_id).get(dimension, 0) - self._ledger.foreign(device_id).get(dimension, 0)

    def _book(self, entry: DeviceEntry, measured: Mapping[Dimension, int | None]) -> None:
        device_id = entry.identity.id
        figures = self._figures.setdefault(device_id, {})
        amounts: dict[Dimension, int] = {}
        for dimension, figure in measured.items():
            known = figures.setdefault(dimension, _Figure(_STEPS.get(dimension, _PERCENT_STEP)))
            settled = known.take(figure)
            if dimension not in _STEPS:
                settled = min(settled, 100) * entry.capacity.limits.get(dimension, 0) // 100
            if settled:
                amounts[dimension] = settled
        shared = amounts.get(Dimension.ENCODER_SESSIONS, 0) if shares_session_cap(entry.identity) else 0
        self._set(device_id, amounts, {Dimension.ENCODER_SESSIONS: shared} if shared else {})

    def _forget(self, device_id: DeviceId) -> None:
        self._figures.pop(device_id, None)
        self._set(device_id, {}, {})

    def _set(
        self, device_id: DeviceId, amounts: Mapping[Dimension, int], host_amounts: Mapping[Dimension, int]
    ) -> None:
        if dict(self._ledger.foreign(device_id)) != amounts:
            self._ledger.set_foreign(device_id, amounts, host_amounts)


def _utilization(entry: DeviceEntry, measurements: Measurements) -> Utilization:
    used, total = measurements.memory_used_mib, entry.identity.memory_total_mib
    return Utilization(
        encoder_percent=measurements.encoder_utilization_percent,
        decoder_percent=measurements.decoder_utilization_percent,
        compute_percent=measurements.compute_utilization_percent,
        memory_percent=None if used is None or not total else min(100, 100 * used // total),
    )
