"""The words of health: states, engines, and one statement of how well a device is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class HealthState(StrEnum):
    """How well a device is, from best to worst."""

    OK = "ok"
    DEGRADED = "degraded"
    """It works; something about it should be looked at."""
    UNHEALTHY = "unhealthy"
    """It takes no session until a golden probe has passed."""
    LOST = "lost"
    """It takes no session until an operator has asked for a golden probe, and that has passed."""

    @property
    def bars(self) -> bool:
        """Whether no session may be started on the device."""
        return self in (HealthState.UNHEALTHY, HealthState.LOST)


class Engine(StrEnum):
    """A kind of engine that can be out of use while the rest of a device works."""

    DECODE = "decode"
    ENCODE = "encode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that keeps a device from working, or that should be looked at."""

    state: HealthState
    """Never OK."""
    reason: str
    """Stable; docs/health.md lists them."""
    message: str
    """A sentence for people, with what to do."""
    xid: int | None = None
    """The driver's number of the error. None: it was none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceHealth:
    """How well a device is."""

    state: HealthState
    reason: str = ""
    """Empty when OK."""
    message: str = ""
    xid: int | None = None
    since_time: datetime | None = None
    """None when OK."""
    faulty_engines: frozenset[Engine] = frozenset()
    """Engines that are out of use while the device works."""
    engines_message: str = ""
    """Why they are. Empty when none is."""


HEALTHY = DeviceHealth(state=HealthState.OK)
