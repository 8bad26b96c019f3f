"""Metrics that are read when somebody asks for them: sessions by state, devices, their loads and measurements."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Observation

from balancer.domain.session import SessionState
from balancer.domain.workload import SessionKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.metrics import Meter

    from balancer.device_entry import DeviceEntry
    from balancer.device_registry import DeviceRegistry
    from balancer.session_engine import SessionEngine

_ENGINES = {
    "encoder_utilization_percent": "encoder",
    "decoder_utilization_percent": "decoder",
    "compute_utilization_percent": "compute",
}


class DeviceMetrics:
    """Reads the registry and the ledger for a meter. docs/telemetry.md lists every name."""

    def __init__(self, meter: Meter, *, registry: DeviceRegistry, engine: SessionEngine) -> None:
        """Makes the instruments."""
        self._meter = meter
        self._registry = registry
        self._engine = engine
        prefix = "gpu_balancer.device"
        self._gauge(
            "gpu_balancer.session.count", "{session}", "Sessions that have not ended, by state.", self._sessions
        )
        self._gauge("gpu_balancer.queue.length", "{session}", "Sessions that wait for a device.", self._queue_lengths)
        self._gauge(f"{prefix}.weighted_load", "{pixel}/s", "Cost of its sessions, weighted.", self._loads)
        self._gauge(f"{prefix}.capacity", "1", "Capacity by dimension, in the dimension's unit.", self._capacities)
        self._gauge(f"{prefix}.booked", "1", "Booked by sessions by dimension, in its unit.", self._booked)
        self._gauge(f"{prefix}.foreign", "1", "Taken by others, as measured, by dimension, in its unit.", self._foreign)
        self._gauge(f"{prefix}.weight", "1", "Relative capacity; 0 takes no new session.", self._weights)
        self._gauge(f"{prefix}.state", "1", "1 for the state that the device is in.", self._states)
        self._gauge(f"{prefix}.health", "1", "1 for how well the driver says that it is.", self._healths)
        self._gauge(f"{prefix}.utilization", "%", "Busy share of an engine, as measured.", self._utilizations)
        for field, name, unit, description in (
            ("encoder_sessions", "encoder_sessions", "{session}", "Open encoder sessions, of anybody."),
            ("memory_used_mib", "memory_used", "MiBy", "Used device memory."),
            ("temperature_celsius", "temperature", "Cel", "Core temperature."),
        ):
            self._gauge(f"{prefix}.{name}", unit, description, self._measured(field))

    def _gauge(self, name: str, unit: str, description: str, read: Callable[[], Iterable[Observation]]) -> None:
        def called(_: CallbackOptions) -> Iterable[Observation]:
            return tuple(read())

        self._meter.create_observable_gauge(name, callbacks=[called], unit=unit, description=description)

    def _sessions(self) -> Iterator[Observation]:
        counts = Counter((record.workload.kind, record.state) for record in self._engine.live())
        for kind in SessionKind:
            for state in SessionState:
                if not state.final:
                    yield Observation(counts[kind, state], {"session.kind": kind.value, "session.state": state.value})

    def _queue_lengths(self) -> Iterator[Observation]:
        waiting = self._engine.waiting
        yield Observation(waiting.live_count, {"session.priority": "live"})
        yield Observation(waiting.batch_count, {"session.priority": "batch"})

    def _loads(self) -> Iterator[Observation]:
        entries = self._registry.entries()
        highest = max((entry.weight for entry in entries), default=0)
        for entry in entries:
            if entry.weight:
                cost = self._engine.ledger.cost(entry.identity.id)
                yield Observation(cost * highest // entry.weight, _of(entry))

    def _capacities(self) -> Iterator[Observation]:
        for entry in self._registry.entries():
            for dimension, limit in entry.capacity.limits.items():
                yield Observation(limit, _of(entry, dimension=dimension.name.lower()))

    def _booked(self) -> Iterator[Observation]:
        for entry in self._registry.entries():
            used, foreign = self._engine.ledger.used(entry.identity.id), self._engine.ledger.foreign(entry.identity.id)
            for dimension in entry.capacity.limits:
                booked = used.get(dimension, 0) - foreign.get(dimension, 0)
                yield Observation(booked, _of(entry, dimension=dimension.name.lower()))

    def _foreign(self) -> Iterator[Observation]:
        for entry in self._registry.entries():
            for dimension, amount in self._engine.ledger.foreign(entry.identity.id).items():
                yield Observation(amount, _of(entry, dimension=dimension.name.lower()))

    def _weights(self) -> Iterator[Observation]:
        for entry in self._registry.entries():
            yield Observation(entry.weight, _of(entry))

    def _states(self) -> Iterator[Observation]:
        for entry in self._registry.entries():
            yield Observation(1, {**_of(entry), "device.state": entry.state.value})

    def _healths(self) -> Iterator[Observation]:
        for entry in self._registry.entries():
            health = entry.health
            if health is not None:
                told = {"device.health": health.state.value, "error.type": health.reason}
                yield Observation(1, {**_of(entry), **told})

    def _utilizations(self) -> Iterator[Observation]:
        for entry in self._registry.entries():
            for field, engine in _ENGINES.items():
                value = getattr(entry.measurements, field, None)
                if value is not None:
                    yield Observation(value, _of(entry, engine=engine))

    def _measured(self, field: str) -> Callable[[], Iterator[Observation]]:
        def read() -> Iterator[Observation]:
            for entry in self._registry.entries():
                value = getattr(entry.measurements, field, None)
                if value is not None:
                    yield Observation(value, _of(entry))

        return read


def _of(entry: DeviceEntry, **more: str) -> dict[str, str]:
    return {"device.id": entry.identity.id, **more}
