"""What a placement is asked with and what it answers: settings, refusals, reservations, verdicts, the decision.

Values only, apart from `placement` itself, because the ledger, demand and policies speak of them too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId
from balancer.domain.workload import CostFactors, Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementSettings:
    """What the operator tuned."""

    factors: CostFactors = field(default_factory=CostFactors)
    headroom: Fraction = Fraction(9, 10)
    """Share of each dimension's capacity that may be booked, in (0, 1]."""
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
    """Whether waiting cannot help, because the device lacks the capability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A workload booked on a device and its host for a session."""

    device_id: DeviceId
    cost_pixels_per_second: int
    device_amounts: Mapping[Dimension, int]
    """In the dimensions' units."""
    host_amounts: Mapping[Dimension, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A device as the policy saw it."""

    device_id: DeviceId
    weight: int
    session_count: int
    weighted_load_before: int | None
    """Pixels per second, rounded down. None when the weight is 0."""
    score: int | None = None
    """Rounded down for showing; the choice was made on exact figures. None when refused."""
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A placement with its reasons."""

    device_id: DeviceId | None
    """None: every device refused."""
    policy: str
    workload: Workload
    cost_pixels_per_second: int
    verdicts: tuple[Verdict, ...]
    """In device order."""
    settings_version: int
    reservation: Reservation | None
    """What is to be booked. None when every device refused."""
