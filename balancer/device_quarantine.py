"""Puts devices aside that fail at sessions, and brings them back when a golden probe has passed.

What counts against a device is what it alone can be blamed for: that it is lost, or that a session which failed on it
before its first frame then ran on another device, and none began on the first one meanwhile. A session that fails
everywhere is nobody's fault but its own, and one that fails on a device again and again counts once, so no client can
put a device aside by asking for nonsense.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.domain.quarantine import Breaker, Quarantine, QuarantineSettings
from balancer.ports.session_observer import SilentObserver

if TYPE_CHECKING:
    from datetime import datetime

    from balancer.device_probes import DeviceProbes
    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import Failure, SessionRecord
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_log = structlog.stdlib.get_logger(__name__)

_OWN = frozenset({"DEVICE_LOST"})
"""Failures that no session can cause."""
_HEALTH = frozenset({"DEVICE_UNHEALTHY", "ENGINE_FAULT"})
"""What `device_health` acts on, from what the driver itself says: here it would put all of a device aside for one
engine, or for what is known already."""
_HOST = frozenset({"DISK_LOW"})
"""What no device of the host can help."""


class QuarantinedDevices(Protocol):
    """What is told of devices that are put aside."""

    def set_quarantine(self, device_id: DeviceId, quarantine: Quarantine | None, retry_time: datetime | None) -> None:
        """Puts a device aside, or lets it back."""
        ...


class DeviceQuarantine(SilentObserver):
    """Listens to what becomes of sessions, and probes the devices that are put aside."""

    def __init__(
        self,
        devices: QuarantinedDevices,
        probes: DeviceProbes,
        *,
        clock: Clock,
        tasks: TaskGuard,
        settings: QuarantineSettings,
    ) -> None:
        """Begins without anything against any device.

        Args:
            devices: Told of those that are put aside.
            probes: Probe them.
            clock: Tells when.
            tasks: Owns the probes.
            settings: What the operator tuned.
        """
        self._devices = devices
        self._probes = probes
        probes.on_passed_for_operator(self._passed)
        self._clock = clock
        self._tasks = tasks
        self._breaker = Breaker(settings)
        self._waiting: dict[DeviceId, asyncio.Task[None]] = {}
        self._suspects: dict[SessionId, dict[DeviceId, str]] = {}
        """Where sessions failed that may yet run elsewhere, and how."""
        self._blamed: dict[DeviceId, set[SessionId]] = {}
        """Which sessions counted against a device since one began there."""

    @property
    def settings(self) -> QuarantineSettings:
        """What the operator tuned."""
        return self._breaker.settings

    @settings.setter
    def settings(self, settings: QuarantineSettings) -> None:
        self._breaker.settings = settings

    def on_not_begun(self, record: SessionRecord, failure: Failure) -> None:
        """Blames a device for a failure before the first frame, or suspects it."""
        if record.device_id is None or failure.reason in _HEALTH | _HOST:
            return
        if failure.reason in _OWN:
            self._failed(record.device_id, failure.message)
        else:
            self._suspects.setdefault(record.id, {})[record.device_id] = failure.message

    def on_changed(self, before: SessionRecord, after: SessionRecord) -> None:
        """Clears the device of a session that runs, and blames those that it could not begin on."""
        if before.running_time is None and after.running_time is not None and after.device_id is not None:
            self._succeeded(after.device_id)
            for device_id, message in self._suspects.pop(after.id, {}).items():
                blamed = self._blamed.setdefault(device_id, set())
                if after.id not in blamed:
                    blamed.add(after.id)
                    self._failed(device_id, message)
        if after.state.final:
            self._suspects.pop(after.id, None)
            for blamed in self._blamed.values():
                blamed.discard(after.id)

    def _succeeded(self, device_id: DeviceId) -> None:
        """Clears a device, of what it is suspected of, too."""
        self._breaker.succeeded(device_id)
        self._blamed.pop(device_id, None)
        for suspects in self._suspects.values():
            suspects.pop(device_id, None)

    def _failed(self, device_id: DeviceId, message: str) -> None:
        quarantine = self._breaker.failed(device_id, self._clock.monotonic_s(), message)
        if quarantine is not None:
            _log.error(
                "the device is put aside: sessions failed on it",
                device=device_id,
                failures=quarantine.failure_count,
                problem=message,
            )
            self._tell(device_id, quarantine)
            task = self._tasks.spawn(self._probe_until_passed(device_id), name=f"quarantine {device_id}")
            self._waiting[device_id] = task

    def _tell(self, device_id: DeviceId, quarantine: Quarantine | None) -> None:
        retry_time = None
        if quarantine is not None:
            pause_s = max(0.0, quarantine.probe_s - self._clock.monotonic_s())
            retry_time = self._clock.now() + timedelta(seconds=pause_s)
        self._devices.set_quarantine(device_id, quarantine, retry_time)

    async def _probe_until_passed(self, device_id: DeviceId) -> None:
        while (quarantine := self._breaker.quarantine(device_id)) is not None:
            await asyncio.sleep(max(0.0, quarantine.probe_s - self._clock.monotonic_s()))
            problem = await self._probes.probe(device_id)
            if problem is None:
                self._passed(device_id)
                return
            self._breaker.probe_failed(device_id, self._clock.monotonic_s(), problem)
            _log.warning("the device failed its probe and stays aside", device=device_id, problem=problem)
            self._tell(device_id, self._breaker.quarantine(device_id))

    def _passed(self, device_id: DeviceId) -> None:
        """Lets a device back, whoever had it probed."""
        waiting = self._waiting.pop(device_id, None)
        if self._breaker.quarantine(device_id) is None:
            return
        self._breaker.probe_passed(device_id)
        _log.info("the device passed its probe and takes sessions again", device=device_id)
        self._tell(device_id, None)
        if waiting is not None and waiting is not asyncio.current_task():
            waiting.cancel()
