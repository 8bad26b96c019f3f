"""Learns how many encoder sessions the driver gives to the GeForce cards of this host together, and keeps to it.

What is learned is kept over restarts, for as long as the driver is the same. It becomes a limit of the host, beside its
cores, so that the next session goes elsewhere or waits instead of failing.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.domain.capacity import shares_session_cap
from balancer.domain.device import Dimension
from balancer.domain.session_cap import SessionCap, after_refusal
from balancer.ports.session_observer import SilentObserver
from balancer.ports.session_store import StoreError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from balancer.device_entry import DeviceEntry
    from balancer.device_registry import DeviceRegistry
    from balancer.domain.ledger import Ledger
    from balancer.domain.session import Failure, SessionRecord
    from balancer.placer import PlacementRules
    from gpu_balancer.runtime.task_guard import TaskGuard

_log = structlog.stdlib.get_logger(__name__)

_KEY = "encoder-session-cap"
_REASON = "ENCODER_SESSION_LIMIT"
_FULL_MEMORY_PERCENT = 95
"""From here on a card that opens no encoder lacks memory, not sessions; the driver says the same of both."""


class CappedEngine(Protocol):
    """What is needed of the engine."""

    rules: PlacementRules

    @property
    def ledger(self) -> Ledger:
        """What is booked."""
        ...

    @property
    def findings(self) -> Mapping[str, str]:
        """What was found out before."""
        ...

    async def keep_finding(self, key: str, text: str | None) -> None:
        """Keeps what was found out."""
        ...


class EncoderCaps(SilentObserver):
    """Hears of encoders that did not open."""

    def __init__(self, registry: DeviceRegistry, tasks: TaskGuard) -> None:
        """Begins without knowing a cap.

        Args:
            registry: Knows the cards and what is open on them.
            tasks: Owns what is being kept.
        """
        self._registry = registry
        self._tasks = tasks
        self._engine: CappedEngine | None = None
        self._cap: SessionCap | None = None

    def attach(self, engine: CappedEngine) -> None:
        """Takes the engine, once it has started, and what it was told before."""
        self._engine = engine
        text = engine.findings.get(_KEY)
        if text is not None:
            try:
                self._cap = SessionCap(**json.loads(text))
            except (ValueError, TypeError) as error:
                _log.warning("the learned encoder session cap cannot be read; it is learned anew", problem=str(error))
            self._apply()

    async def watch(self) -> None:
        """Forgets the cap when the driver is another one, or when more is open than it says; for ever."""
        async for entry in self._registry.watch():
            cap = self._cap
            if cap is None or not shares_session_cap(entry.identity):
                continue
            driver = entry.identity.driver_version
            if driver is not None and driver != cap.driver_version:
                self._learn(None, f"the driver is {driver} now")
            elif cap.after_open(self._measured_count()) is None:
                self._learn(None, f"{self._measured_count()} encoder sessions are open")

    def on_not_begun(self, record: SessionRecord, failure: Failure) -> None:
        """Learns from an attempt that failed for want of an encoder session."""
        if failure.reason != _REASON or record.device_id is None:
            return
        entry = self._registry.get(record.device_id)
        if entry is None or not shares_session_cap(entry.identity) or _memory_full(entry) or self._engine is None:
            return
        booked = self._engine.ledger.host_used().get(Dimension.ENCODER_SESSIONS, 0)
        asked = record.reservation.host_amounts.get(Dimension.ENCODER_SESSIONS, 0) if record.reservation else 0
        self._learn(
            after_refusal(
                self._cap,
                driver_version=entry.identity.driver_version or "",
                open_count=max(0, booked - asked),
                asked_count=max(1, asked),
            ),
            "the driver opened no further one",
        )

    def _measured_count(self) -> int:
        return sum(
            entry.measurements.encoder_sessions or 0
            for entry in self._registry.entries()
            if entry.measurements is not None and shares_session_cap(entry.identity)
        )

    def _learn(self, cap: SessionCap | None, why: str) -> None:
        if cap == self._cap:
            return
        self._cap = cap
        _log.warning("learned the encoder session cap of this host", cap=cap.most if cap else "none", why=why)
        self._apply()
        self._tasks.spawn(self._keep(), name="keep encoder session cap")

    def _apply(self) -> None:
        engine, cap = self._engine, self._cap
        if engine is None:
            return
        limits = dict(engine.rules.host_capacity)
        limits.pop(Dimension.ENCODER_SESSIONS, None)
        if cap is not None:
            limits[Dimension.ENCODER_SESSIONS] = cap.most
        engine.rules = replace(engine.rules, host_capacity=limits)

    async def _keep(self) -> None:
        assert self._engine is not None, "only an attached one learns"
        try:
            await self._engine.keep_finding(_KEY, json.dumps(asdict(self._cap)) if self._cap else None)
        except StoreError as error:
            _log.warning("the encoder session cap is not kept over a restart", problem=str(error))


def _memory_full(entry: DeviceEntry) -> bool:
    used = entry.measurements.memory_used_mib if entry.measurements else None
    total = entry.identity.memory_total_mib
    return used is not None and total is not None and 100 * used >= _FULL_MEMORY_PERCENT * total
