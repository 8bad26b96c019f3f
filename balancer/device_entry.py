"""One device with all that is known of it, and whether it takes sessions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer.domain.device import DeviceState

if TYPE_CHECKING:
    from datetime import datetime

    from balancer.domain.calibration import Calibration
    from balancer.domain.device import Capability, DeviceCapacity, DeviceIdentity, FigureSource, RecordingAbility
    from balancer.domain.drain import DeviceDrain
    from balancer.domain.health import DeviceHealth
    from balancer.domain.quarantine import Quarantine
    from balancer.ports.agent_client import FfmpegBuild, Measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEntry:
    """One device, all that is known."""

    identity: DeviceIdentity
    capacity: DeviceCapacity
    weight: int
    weight_source: FigureSource
    revision: int
    ffmpeg_builds: tuple[FfmpegBuild, ...] = ()
    capabilities: tuple[Capability, ...] = ()
    measurements: Measurements | None = None
    agent_version: str = ""
    """Empty: its agent was never heard."""
    probed: bool = False
    reachable: bool = False
    cordoned: bool = False
    """Whether its operator closed it to new sessions, for which a drain is one reason."""
    drain: DeviceDrain | None = None
    """How it is being emptied, or was since it was closed. None: it was only closed, or is open."""
    calibration: Calibration | None = None
    """What real runs showed of it. None: it was not calibrated."""
    calibrating: bool = False
    fault_message: str = ""
    """Why the device cannot work at all. Empty when it can."""
    silence_message: str = ""
    """Why its agent counts as silent. Empty when it answers, or was never heard yet."""
    quarantine: Quarantine | None = None
    """Why it is put aside although its operator lets it take sessions. None: it is not."""
    quarantine_retry_time: datetime | None = None
    """When it is probed then."""
    health: DeviceHealth | None = None
    """How well its driver says it is. None: it is not watched."""
    shared_fault: str = ""
    """What took it together with all GPUs of its host. Empty: nothing did."""
    recording: RecordingAbility | None = None
    """None: its agent has not told what it records."""
    ready_display_count: int = 0
    """Placement does not look at it."""

    @property
    def state(self) -> DeviceState:
        """Whether the device takes sessions; the most serious hindrance is named."""
        if not self.reachable:
            return DeviceState.UNREACHABLE if self.silence_message else DeviceState.PROBING
        if self.health is not None and self.health.bars:
            return DeviceState.UNHEALTHY
        if not self.probed:
            return DeviceState.PROBING
        if self.fault_message or self.quarantine is not None:
            return DeviceState.UNHEALTHY
        if self.calibrating:
            return DeviceState.PROBING
        if not self.cordoned:
            return DeviceState.READY
        return DeviceState.DRAINING if self.drain is not None and self.drain.session_count else DeviceState.CORDONED

    @property
    def state_message(self) -> str:
        """Why the device does not take sessions. Empty when it does."""
        match self.state:
            case DeviceState.PROBING if self.calibrating and self.reachable:
                return "Being calibrated."
            case DeviceState.PROBING:
                return "Its agent is starting or trying what the device can do."
            case DeviceState.DRAINING | DeviceState.CORDONED:
                return self.drain.message if self.drain is not None else "Closed to new sessions by an operator."
            case DeviceState.UNREACHABLE:
                return self.silence_message
            case _:
                barred = self.health.message if self.health is not None and self.health.bars else ""
                return (barred and self.shared_fault) or barred or self.fault_message or _put_aside(self.quarantine)


def _put_aside(quarantine: Quarantine | None) -> str:
    if quarantine is None:
        return ""
    return f"Put aside after {quarantine.failure_count} failures, until a probe passes. The last: {quarantine.message}"
