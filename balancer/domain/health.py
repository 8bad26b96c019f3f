"""How well a device is, as its agent tells it, and what follows for the devices of a host together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from balancer.domain.device import Direction
from balancer.domain.ids import DeviceId


class HealthState(StrEnum):
    """How well a device is."""

    OK = "ok"
    DEGRADED = "degraded"
    """It works; something about it should be looked at."""
    UNHEALTHY = "unhealthy"
    """It takes no session until a golden probe has passed."""
    LOST = "lost"
    """It takes no session until an operator has asked for a golden probe, and that has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealth:
    """How well a device is, as its driver says."""

    state: HealthState
    reason: str = ""
    """Stable; docs/health.md lists them. Empty when OK."""
    message: str = ""
    xid: int | None = None
    """The driver's number of the error. None: it was none."""
    since_time: datetime | None = None
    faulty_engines: tuple[Direction, ...] = ()
    """Engines that are out of use while the device works."""

    @property
    def bars(self) -> bool:
        """Whether it keeps sessions away."""
        return self.state in (HealthState.UNHEALTHY, HealthState.LOST)

    @property
    def moves(self) -> bool:
        """Whether the sessions that run on the device are to go elsewhere."""
        return self.bars and self.reason not in _LEFT_ALONE

    @property
    def wants_probe(self) -> bool:
        """Whether a golden probe may bring back what is out of use, without an operator."""
        return self.state is not HealthState.LOST and (self.bars or bool(self.faulty_engines))


_LEFT_ALONE = frozenset({"RECOVERY_DRAIN", "DRIVER_HANGS"})
"""Under the first the driver wants nothing new and lets go on what runs. Under the second nobody knows: what does run
would be ended for nothing, and what does not shows by itself that it stands still."""
_GONE = frozenset({"CONTAINER_LOST_GPUS", "UNKNOWN_ERROR", "GPU_LOST", "GPU_MISSING", "DRIVER_GONE", "XID_79"})
"""Reasons that say that a GPU is no longer there."""
AT_ONCE = timedelta(seconds=10)
"""GPUs that went within this time of one another went by one fault."""


def lost_together(healths: Mapping[DeviceId, DeviceHealth | None]) -> str:
    """Tells whether all GPUs of a host went at once, which is no fault of theirs.

    Args:
        healths: Of every GPU. None: nothing was told of it.

    Returns:
        What it is and what to do, as a sentence. Empty: they did not, or there is only one, which may say so itself.
    """
    told = [health for health in healths.values() if health is not None and health.bars and health.reason in _GONE]
    if len(told) < len(healths) or len(healths) < 2 or not _within(told, AT_ONCE):
        return ""
    return (
        f"Cannot use any of the {len(healths)} GPUs: all were lost at once, so it is no fault of theirs. In a "
        "container its devices were taken away (a systemd daemon-reload does that): try re-creating it, with device "
        "rules that outlive a reload. Elsewhere try the driver, the power and the kernel's log."
    )


def _within(healths: Sequence[DeviceHealth], span: timedelta) -> bool:
    times = [health.since_time for health in healths if health.since_time is not None]
    return len(times) == len(healths) and max(times) - min(times) <= span
