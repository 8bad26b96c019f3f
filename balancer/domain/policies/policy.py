"""The policy port: how a device is chosen among those that can take a session.

A policy is found by name among the entry points `gpu_balancer.policies`, so that an operator can bring his own class;
it is made without arguments. Which devices are eligible is not its business: the common filter has run before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple, Protocol, runtime_checkable

from balancer.domain.decision import Need, PlacementSettings
from balancer.domain.device import DeviceView, Utilization
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.workload import Workload


class Candidate(NamedTuple):
    """A device that can take the session. A named tuple, because one is made for every device at every decision."""

    view: DeviceView
    cost_pixels_per_second: int
    """What the session would cost on this device, before any weight."""
    booked_pixels_per_second: int
    """What the device's sessions cost already, before any weight."""
    session_count: int
    """Sessions on the device already."""
    highest_weight: int
    """Of all devices, eligible or not."""
    device_needs: tuple[Need, ...] = ()
    """Each limited dimension of the device, how much of it the session needs, and how much all may book. Devices that
    share this very tuple are alike."""
    device_used: tuple[int, ...] = ()
    """What is taken of each of those already."""
    host_needs: tuple[Need, ...] = ()
    """The same of the host that the device sits in."""
    host_used: tuple[int, ...] = ()
    stands_for: int = 1
    """How many devices like it there are for each that is shown, itself counted: among very many devices not every one
    is shown."""

    @property
    def weighted_load_before(self) -> Fraction:
        """The device's load without the session, in pixels per second of the best device."""
        return Fraction(self.booked_pixels_per_second * self.highest_weight, self.view.weight)

    @property
    def weighted_load_after(self) -> Fraction:
        """The device's load with the session, in pixels per second of the best device."""
        booked = self.booked_pixels_per_second + self.cost_pixels_per_second
        return Fraction(booked * self.highest_weight, self.view.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a policy decided."""

    device_id: DeviceId
    """One of the candidates'."""
    scores: Mapping[DeviceId, int]
    """What each candidate was judged by, for people. The lowest is the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """Who decided in place of a policy that could not."""

    policy: str
    """The name of the one that decided."""
    fault: str
    """What was wrong with the one that should have: a sentence about it, which does not name it."""


@runtime_checkable
class FallingBack(Protocol):
    """What a policy is besides that has another one behind it."""

    @property
    def fallback(self) -> Fallback | None:
        """Who made the latest choice instead of it. None: it chose itself."""
        ...


class Policy(Protocol):
    """Chooses devices, and is told of everything it may want to keep in mind for that.

    MUST choose one of the candidates and MUST choose the same one when asked again before it is told anything: plans
    are choices too. MUST NOT block, raise or keep what it is given from changing hands; everything is called from one
    thread. What it remembers is lost at a restart, and told again: settings, devices, then every live session as
    created and placed.
    """

    @property
    def name(self) -> str:
        """Its name, for decisions and for people."""
        ...

    def on_settings(self, settings: PlacementSettings) -> None:
        """Hears the settings, at start and whenever they are read again."""
        ...

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Hears of all devices, in device order, whenever one was inspected, changed its state or its weight."""
        ...

    def on_measured(self, device_id: DeviceId, utilization: Utilization) -> None:
        """Hears how busy a device was, about once a second for each."""
        ...

    def on_session_created(self, session_id: SessionId, workload: Workload) -> None:
        """Hears of a session that is about to be placed."""
        ...

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Hears that a session was booked on a device. A session that moves is told as placed again."""
        ...

    def on_session_ended(self, session_id: SessionId) -> None:
        """Hears that a session holds no device any more. It may never have been placed."""
        ...

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses a device.

        Args:
            candidates: At least one, in device order.
            workload: What is to be placed.
        """
        ...


class IndifferentPolicy:
    """What a policy that keeps nothing in mind hears: nothing. For inheriting."""

    def on_settings(self, settings: PlacementSettings) -> None:
        """Ignores the settings."""

    def on_devices(self, devices: Sequence[DeviceView]) -> None:
        """Ignores devices."""

    def on_measured(self, device_id: DeviceId, utilization: Utilization) -> None:
        """Ignores measurements."""

    def on_session_created(self, session_id: SessionId, workload: Workload) -> None:
        """Ignores a new session."""

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        """Ignores a placement."""

    def on_session_ended(self, session_id: SessionId) -> None:
        """Ignores an end."""
