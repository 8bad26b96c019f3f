"""What a placement is asked with and what it answers: settings, refusals, reservations, verdicts, the decision.

Values only, apart from `placement` itself, because the ledger, demand and policies speak of them too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import NamedTuple

from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.workload import CostFactors, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSettings:
    """What the operator tuned."""

    factors: CostFactors = field(default_factory=CostFactors)
    headroom: Fraction = Fraction(9, 10)
    """Share of each dimension's capacity that may be booked, in (0, 1]."""
    least_batch_speed: Fraction = Fraction(1, 10)
    """What a session that is content with what is left keeps when LIVE work needs the room, in times real time."""
    admission: bool = True
    """Whether a device without room refuses. False compares policies as if nobody counted: for the simulator."""
    version: int = 1
    """Raised by one at each reload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a device cannot take a session."""

    rule: str
    """Stable: NOT_READY, WEIGHT_ZERO, CAPABILITY, RESOLUTION, ENCODER_SESSIONS, CAPACITY or HOST_CAPACITY."""
    message: str
    """A sentence about the device, which it does not name: "It has 0.2 of an encoder engine left, …"."""
    dimension: Dimension | None = None
    needed: int | None = None
    available: int | None = None
    permanent: bool = False
    """Whether waiting cannot help, because the device lacks the capability, or would have no room if it were empty."""
    host: bool = False
    """Whether the dimension is one of the host that the device sits in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a session takes of a device and its host."""

    cost_pixels_per_second: int
    """Factors times what the device itself does, in pixels of 8-bit H.264, encoded at speed "fast": a pixel that takes
    the device twice as long counts twice."""
    device_amounts: Mapping[Dimension, int]
    """In the dimensions' units."""
    host_amounts: Mapping[Dimension, int]
    largest_amounts: Mapping[Dimension, int]
    """Engine time of the largest single stream: one stream runs on one engine, however many there are."""
    capture_amounts: Mapping[Dimension, int] | None = None
    """What of the host's is for a display and what draws on it. None: there is no display."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A workload booked on a device and its host for a session."""

    device_id: DeviceId
    cost_pixels_per_second: int
    device_amounts: Mapping[Dimension, int]
    """In the dimensions' units."""
    host_amounts: Mapping[Dimension, int]
    firm_device_amounts: Mapping[Dimension, int] | None = None
    """What of it stays when work in real time needs the room. None: all of it."""
    firm_host_amounts: Mapping[Dimension, int] | None = None
    """The same of the host's. None: all of it."""
    capture_amounts: Mapping[Dimension, int] | None = None
    """What of the host's is for a display and what draws on it: an estimate, until it was measured. On a CPU device
    the same is part of what is booked there. None: there is no display."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DimensionNeed:
    """What a session needs in one limited dimension of a device or its host, and what there was, in its unit."""

    dimension: Dimension
    host: bool
    """Whether it is about the host that the device sits in."""
    needed: int
    used: int
    """Taken before it, by sessions and by others."""
    bookable: int
    """What may be taken by all together."""


Need = tuple[Dimension, int, int]
"""A limited dimension, how much of it a session needs, and how much of it may be booked by all sessions together."""


class Verdict(NamedTuple):
    """A device as the policy saw it. A named tuple, because one is kept for every device of every admission."""

    device_id: DeviceId
    weight: int
    session_count: int
    weighted_load_before: int | None
    """Pixels per second, rounded down. None when the weight is 0."""
    score: int | None = None
    """Rounded down for showing; the choice was made on exact figures. None when refused."""
    refusal: Refusal | None = None
    device_needs: tuple[Need, ...] = ()
    """Empty when the device cannot do it however empty it is."""
    device_used: tuple[int, ...] = ()
    """What was taken of each of those before, by what counts for the session."""
    host_needs: tuple[Need, ...] = ()
    host_used: tuple[int, ...] = ()

    @property
    def needs(self) -> tuple[DimensionNeed, ...]:
        """What the session would take of device and host, and what there was."""
        both = ((self.device_needs, self.device_used, False), (self.host_needs, self.host_used, True))
        return tuple(
            DimensionNeed(dimension=dimension, host=host, needed=needed, used=used, bookable=bookable)
            for needs, taken, host in both
            for (dimension, needed, bookable), used in zip(needs, taken, strict=True)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OmittedVerdicts:
    """Devices that are counted instead of listed, because there are very many."""

    rule: str | None
    """By which they refused. None: they were eligible, with scores no better than the listed ones."""
    device_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A placement with its reasons."""

    device_id: DeviceId | None
    """None: every device refused."""
    policy: str
    workload: Workload
    cost_pixels_per_second: int
    verdicts: Sequence[Verdict]
    """In device order; of very many devices those that mattered."""
    settings_version: int
    reservation: Reservation | None
    """What is to be booked. None when every device refused."""
    omitted: tuple[OmittedVerdicts, ...] = ()
    """What is not among the verdicts."""
    policy_fault: str = ""
    """What was wrong with the policy of the settings, which is why `policy` decided instead. Empty: nothing."""
    preempted: tuple[SessionId, ...] = ()
    """Sessions that are stopped and queued again to make room."""
