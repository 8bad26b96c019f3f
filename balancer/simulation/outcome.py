"""What a replay found, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from balancer.domain.ids import DeviceId
from balancer.simulation.meters import Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceFailure:
    """A device that is dead for a while: what runs on it fails, and what is begun on it fails at once."""

    device_id: DeviceId
    time_s: float
    duration_s: float | None = None
    """None: for good."""

    def holds_at(self, time_s: float) -> bool:
        """Whether the device is dead at a time."""
        return self.time_s <= time_s and (self.duration_s is None or time_s < self.time_s + self.duration_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceSummary:
    """What one device did."""

    device_id: DeviceId
    name: str
    session_count: int
    """Sessions that were begun on it."""
    mean_busy: float
    """Share of the fullest dimension in use, on average."""
    highest_busy: float
    highest_busy_time_s: float | None
    """When that was. None: it was never busy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayResult:
    """One policy's figures. Every session that was offered has one end: completed, refused, expired or lost."""

    policy: str
    offered: int
    completed: int
    refused: int
    expired: int
    """Waited for a device until their patience ended."""
    lost: int
    """Were running or starting when a device failed, and could not go on elsewhere."""
    refused_by_rule: Mapping[str, int]
    """Refused sessions by the rule that most devices gave."""
    placed_at_once: int
    queued: int
    mean_wait_s: float | None
    """Of those that waited and were placed. None: there were none."""
    longest_wait_s: float | None
    moves: int
    """Times that a running session was placed again because its device failed."""
    preemptions: int
    """Times that a session was stopped for the sake of a live one, to wait and begin anew."""
    dead_first_tries: int
    """Sessions whose first try reached a dead device."""
    session_s: float
    real_time_s: float
    below_real_time_s: float
    lowest_speed: float
    work_pixels: float
    """Cost of sessions times the seconds that they ran."""
    work_share_of_pool: float | None = None
    """Of what one device of all devices' capacity does on the same trace. None: not asked."""
    spread_pixels_per_second: float
    """Largest less smallest weighted load, on average over time."""
    load_variation: float | None
    """Coefficient of variation of the devices' weighted loads, on average over time. None: nothing was loaded."""
    sustainable_load: float | None = None
    """Highest load at which at most 1 % of session-seconds are below real time and 1 % are refused. None: not asked."""
    devices: tuple[DeviceSummary, ...] = ()
    samples: tuple[Sample, ...] = field(default=(), repr=False)
    unserved_times_s: tuple[float, ...] = field(default=(), repr=False)
    """When sessions were refused, expired or lost, rising."""

    @property
    def unserved(self) -> int:
        """Sessions that were refused, expired or lost."""
        return self.refused + self.expired + self.lost

    @property
    def below_real_time_share(self) -> float:
        """Share of the session-seconds that are bound to real time in which that was missed."""
        return self.below_real_time_s / self.real_time_s if self.real_time_s else 0.0

    @property
    def unserved_share(self) -> float:
        """Share of the offered sessions that were refused, expired or lost."""
        return self.unserved / self.offered if self.offered else 0.0
