"""Acts on how well devices are: sessions leave those that cannot work, and golden probes bring these back.

That no session is placed any more follows from the registry alone, in the moment in which an agent tells. Here is what
takes time: sessions are moved, probes are run with pauses that double, and GPUs that all went at once are told of as
one fault, since nobody should look for sixteen. A device that is lost is left to its operator.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.domain.device import DeviceKind
from balancer.domain.health import DeviceHealth, lost_together
from balancer.domain.quarantine import Breaker, QuarantineSettings
from balancer.domain.session import Failure
from balancer.ports.session_observer import SilentObserver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence

    from balancer.device_entry import DeviceEntry
    from balancer.device_probes import DeviceProbes
    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_log = structlog.stdlib.get_logger(__name__)

REASON = "DEVICE_UNHEALTHY"
"""Why sessions leave a device."""
_MOVE_AGAIN_S = 1.0


class WatchedDevices(Protocol):
    """The registry, as far as health goes."""

    def watch(self) -> AsyncIterator[DeviceEntry]:
        """Gives every device, then each change."""
        ...

    def entries(self) -> Sequence[DeviceEntry]:
        """Gives every device."""
        ...

    def get(self, device_id: DeviceId) -> DeviceEntry | None:
        """Gives a device by its id. None: it is not known."""
        ...

    def set_shared_fault(self, device_ids: Collection[DeviceId], message: str) -> None:
        """Says of some devices, and of no others, that one fault took them all."""
        ...


class MovedSessions(Protocol):
    """The sessions, as far as they leave devices."""

    def move(self, device_id: DeviceId, failure: Failure) -> None:
        """Has every session on a device go on elsewhere, or end, by its own rule.

        MUST NOT wait, and MUST take it calmly when it is told the same again.
        """
        ...


class LeavingSessions(Protocol):
    """The engine, as far as sessions leave devices."""

    def live(self, device_id: DeviceId) -> tuple[SessionRecord, ...]:
        """Gives a device's sessions that have not ended."""
        ...

    def move(self, session_id: SessionId, failure: Failure) -> bool:
        """Has a session go on elsewhere, if its rule lets it and there is room; tells whether it does."""
        ...


class SessionsLeave:
    """Has each session leave that may and finds room elsewhere. Who does not runs on, or fails by itself."""

    def __init__(self, engine: LeavingSessions) -> None:
        """Makes it."""
        self._engine = engine

    def move(self, device_id: DeviceId, failure: Failure) -> None:
        """Implements `MovedSessions`."""
        for record in self._engine.live(device_id):
            self._engine.move(record.id, failure)


class DeviceHealthWatch(SilentObserver):
    """Watches over the health of all devices."""

    def __init__(
        self,
        devices: WatchedDevices,
        probes: DeviceProbes,
        *,
        clock: Clock,
        tasks: TaskGuard,
        settings: QuarantineSettings,
    ) -> None:
        """Begins knowing nothing of any device.

        Args:
            devices: The registry.
            probes: Probe them.
            clock: Tells when.
            tasks: Owns the waiting for probes.
            settings: How long the pauses between probes are.
        """
        self._devices = devices
        self._probes = probes
        self._sessions: MovedSessions | None = None
        self._clock = clock
        self._tasks = tasks
        self._breaker = Breaker(_at_once(settings))
        self._known: dict[DeviceId, DeviceHealth | None] = {}
        self._waiting: dict[DeviceId, asyncio.Task[None]] = {}
        self._last_probe_s: dict[DeviceId, float] = {}
        self._shared_fault = ""

    @property
    def settings(self) -> QuarantineSettings:
        """How long the pauses between probes are."""
        return self._breaker.settings

    @settings.setter
    def settings(self, settings: QuarantineSettings) -> None:
        self._breaker.settings = _at_once(settings)

    def attach(self, sessions: MovedSessions) -> None:
        """Has sessions leave devices from now on."""
        self._sessions = sessions

    async def keep_moving(self) -> None:
        """Has those leave, for ever, that found no room before, or came to a device in the last moment."""
        while True:
            await asyncio.sleep(_MOVE_AGAIN_S)
            for device_id, health in self._known.items():
                if health is not None and health.moves:
                    self._leave(device_id, health)

    async def watch(self) -> None:
        """Acts on what agents tell, for ever."""
        async for entry in self._devices.watch():
            device_id, health = entry.identity.id, entry.health
            before = self._known.get(device_id)
            if health != before:
                self._known[device_id] = health
                self._changed(device_id, before, health)

    def on_changed(self, before: SessionRecord, after: SessionRecord) -> None:
        """Forgets what was against a device on which a session runs."""
        if before.running_time is None and after.running_time is not None and after.device_id is not None:
            self._breaker.succeeded(after.device_id)

    def _changed(self, device_id: DeviceId, before: DeviceHealth | None, health: DeviceHealth | None) -> None:
        self._tell_shared_fault()
        if health is None:
            return
        if health.moves and not (before is not None and before.moves):
            self._move(device_id, health)
        if health.wants_probe:
            self._await_probe(device_id, health)
        elif (waiting := self._waiting.pop(device_id, None)) is not None:
            waiting.cancel()
            self._breaker.probe_passed(device_id)

    def _move(self, device_id: DeviceId, health: DeviceHealth) -> None:
        _log.error(
            "the device is out of use; its sessions leave it",
            device=device_id,
            state=health.state.value,
            reason=health.reason,
            problem=health.message,
        )
        self._leave(device_id, health)

    def _leave(self, device_id: DeviceId, health: DeviceHealth) -> None:
        if self._sessions is not None:
            why = f"Cannot go on on device {device_id}: {health.message}"
            self._sessions.move(device_id, Failure(reason=REASON, message=why))

    def _tell_shared_fault(self) -> None:
        """Tells once of GPUs that all went at once."""
        gpus = [entry.identity.id for entry in self._devices.entries() if entry.identity.kind is DeviceKind.NVIDIA]
        message = lost_together({device_id: self._known.get(device_id) for device_id in gpus})
        if message == self._shared_fault:
            return
        self._shared_fault = message
        self._devices.set_shared_fault(gpus if message else (), message)
        if message:
            _log.error("all GPUs were lost at once", gpus=len(gpus), problem=message)
        else:
            _log.info("the GPUs are no longer all lost")

    def _await_probe(self, device_id: DeviceId, health: DeviceHealth) -> None:
        """Has a device probed: at once the first time, then after pauses. News of it bring a probe nearer."""
        now_s = self._clock.monotonic_s()
        waiting = self._waiting.get(device_id)
        if waiting is not None:
            last_s = self._last_probe_s.get(device_id)
            if last_s is None or now_s - last_s < self.settings.first_pause.total_seconds():
                return
            waiting.cancel()
        else:
            self._breaker.failed(device_id, now_s, health.message)
        hurry = waiting is not None
        task = self._tasks.spawn(self._probe_until_passed(device_id, hurry=hurry), name=f"health {device_id}")
        self._waiting[device_id] = task

    async def _probe_until_passed(self, device_id: DeviceId, *, hurry: bool) -> None:
        while (quarantine := self._breaker.quarantine(device_id)) is not None:
            pause_s = 0.0 if hurry else max(0.0, quarantine.probe_s - self._clock.monotonic_s())
            hurry = False
            await asyncio.sleep(pause_s)
            if not self._reachable(device_id):
                # It cannot be probed, which says nothing against it.
                await asyncio.sleep(self.settings.first_pause.total_seconds())
                continue
            self._last_probe_s[device_id] = self._clock.monotonic_s()
            problem = await self._probes.probe(device_id)
            entry = self._devices.get(device_id)
            if problem is None and (entry is None or entry.health is None or not entry.health.wants_probe):
                _log.info("the device passed its probe and is in use again", device=device_id)
                return  # the watch sees it, too, and forgets this task
            why = problem or "What is out of use did not pass its probe."
            self._breaker.probe_failed(device_id, self._clock.monotonic_s(), why)
            _log.warning("the device failed its probe and stays out of use", device=device_id, problem=why)

    def _reachable(self, device_id: DeviceId) -> bool:
        entry = self._devices.get(device_id)
        return entry is not None and entry.reachable


def _at_once(settings: QuarantineSettings) -> QuarantineSettings:
    """The settings of quarantines, for what needs no second failure to be believed."""
    return replace(settings, failures=1)
