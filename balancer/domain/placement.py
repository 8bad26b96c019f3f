"""Placement: which device takes a session, and why not the others.

Filter, then choose: `place` refuses every device that cannot take the session, by the first rule that says so, and
lets the policy choose among the rest. A refusal is a value, never an exception. All comparisons are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from balancer.domain.capacity import ENGINE
from balancer.domain.decision import Decision, PlacementSettings, Refusal, Reservation, Verdict
from balancer.domain.demand import Demand, demand_on, nominal_cost
from balancer.domain.device import DeviceState, DeviceView, Dimension
from balancer.domain.ids import DeviceId
from balancer.domain.ledger import Ledger
from balancer.domain.policies.policy import Candidate, Policy
from balancer.domain.workload import Workload

__all__ = ["Decision", "PlacementSettings", "PolicyFault", "Refusal", "Reservation", "Verdict", "place"]

_RATES = frozenset({Dimension.DECODE, Dimension.SCALE, Dimension.ENCODE, Dimension.CORES})
"""Dimensions that are used over time: there is headroom, and a session without a deadline takes what there is."""
_STREAM_ENGINES = (Dimension.DECODE, Dimension.ENCODE)


class PolicyFault(Exception):
    """A policy chose something that was not to choose from. The message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """How much of everything may be booked."""

    numerator: int
    denominator: int
    real_time: bool

    def of(self, dimension: Dimension, limit: int) -> int:
        """Gives how much of a limit may be booked."""
        return limit * self.numerator // self.denominator if dimension in _RATES else limit

    def clip(self, amounts: Mapping[Dimension, int], limits: Mapping[Dimension, int]) -> Mapping[Dimension, int]:
        """Takes from a session that may be slower than real time what even an empty device does not have."""
        if self.real_time:
            return amounts
        return {
            dimension: min(amount, self.of(dimension, limits[dimension]) or amount)
            if dimension in _RATES and dimension in limits
            else amount
            for dimension, amount in amounts.items()
        }


def place(
    workload: Workload,
    views: Sequence[DeviceView],
    ledger: Ledger,
    policy: Policy,
    settings: PlacementSettings,
    host_capacity: Mapping[Dimension, int],
) -> Decision:
    """Decides which device takes a session. Books nothing.

    Args:
        workload: The session.
        views: All devices, in device order.
        ledger: What is booked.
        policy: Chooses among the devices that can take it.
        settings: What the operator tuned.
        host_capacity: What the host has, in the dimensions' units; an absent dimension is not limited.

    Returns:
        The device with the reservation to book, or neither; and every device's score or refusal.

    Raises:
        PolicyFault: The policy chose a device that is none of the candidates.
    """
    bounds = _Bounds(
        numerator=settings.headroom.numerator,
        denominator=settings.headroom.denominator,
        real_time=workload.real_time,
    )
    highest_weight = max((view.weight for view in views), default=0)
    candidates: list[Candidate] = []
    reservations: dict[DeviceId, Reservation] = {}
    refusals: dict[DeviceId, Refusal] = {}
    for view in views:
        answer = _try(workload, view, ledger, settings, host_capacity, bounds)
        if isinstance(answer, Refusal):
            refusals[view.id] = answer
            continue
        reservations[view.id] = answer
        candidates.append(
            Candidate(
                view=view,
                cost_pixels_per_second=answer.cost_pixels_per_second,
                booked_pixels_per_second=ledger.cost(view.id),
                session_count=ledger.session_count(view.id),
                highest_weight=highest_weight,
            )
        )
    chosen, scores = _choose(policy, candidates, workload)
    reservation = reservations[chosen] if chosen is not None else None
    return Decision(
        device_id=chosen,
        policy=policy.name,
        workload=workload,
        cost_pixels_per_second=reservation.cost_pixels_per_second
        if reservation
        else nominal_cost(workload, settings.factors),
        verdicts=tuple(_verdict(view, ledger, highest_weight, scores, refusals) for view in views),
        settings_version=settings.version,
        reservation=reservation,
    )


def _verdict(
    view: DeviceView,
    ledger: Ledger,
    highest_weight: int,
    scores: Mapping[DeviceId, int],
    refusals: Mapping[DeviceId, Refusal],
) -> Verdict:
    device_id, weight = view.identity.id, view.weight
    return Verdict(
        device_id=device_id,
        weight=weight,
        session_count=ledger.session_count(device_id),
        weighted_load_before=ledger.cost(device_id) * highest_weight // weight if weight else None,
        score=scores.get(device_id),
        refusal=refusals.get(device_id),
    )


def _choose(
    policy: Policy, candidates: list[Candidate], workload: Workload
) -> tuple[DeviceId | None, Mapping[DeviceId, int]]:
    if not candidates:
        return None, {}
    choice = policy.choose(tuple(candidates), workload)
    if not any(candidate.view.id == choice.device_id for candidate in candidates):
        raise PolicyFault(f"Cannot place: policy {policy.name!r} chose {choice.device_id!r}, which is no candidate.")
    return choice.device_id, choice.scores


def _try(
    workload: Workload,
    view: DeviceView,
    ledger: Ledger,
    settings: PlacementSettings,
    host_capacity: Mapping[Dimension, int],
    bounds: _Bounds,
) -> Reservation | Refusal:
    """Tells what would be booked on a device, or the first rule that speaks against it."""
    if view.state is not DeviceState.READY:
        told = f": {view.state_message}" if view.state_message else "."
        return Refusal(rule="NOT_READY", message=f"It is {view.state.value}{told}")
    if view.weight <= 0:
        return Refusal(rule="WEIGHT_ZERO", message="Its weight is 0, so it takes no new session.")
    demand = demand_on(workload, view, settings.factors)
    if isinstance(demand, Refusal):
        return demand
    limits = view.capacity.limits
    device_amounts = bounds.clip(demand.device_amounts, limits)
    host_amounts = bounds.clip(demand.host_amounts, host_capacity)
    refusal = (
        _no_room(device_amounts, limits, ledger.used(view.id), bounds, "It")
        or _streams_too_fast(demand, bounds)
        or _no_room(host_amounts, host_capacity, ledger.host_used(), bounds, "Its host")
    )
    if refusal is not None:
        return refusal
    return Reservation(
        device_id=view.id,
        cost_pixels_per_second=demand.cost_pixels_per_second,
        device_amounts=device_amounts,
        host_amounts=host_amounts,
    )


def _streams_too_fast(demand: Demand, bounds: _Bounds) -> Refusal | None:
    """Refuses a stream that a single engine cannot do in real time, however many engines there are."""
    if not bounds.real_time:
        return None
    for dimension in _STREAM_ENGINES:
        needed = demand.largest_amounts.get(dimension, 0)
        available = bounds.of(dimension, ENGINE)
        if needed > available:
            kind = _UNITS[dimension]
            message = (
                f"One of its {kind}s offers {_amount(dimension, available)}, "
                f"and a single stream needs {_amount(dimension, needed)}."
            )
            return Refusal(rule="CAPACITY", message=message, dimension=dimension, needed=needed, available=available)
    return None


def _no_room(
    amounts: Mapping[Dimension, int],
    limits: Mapping[Dimension, int],
    used: Mapping[Dimension, int],
    bounds: _Bounds,
    whose: str,
) -> Refusal | None:
    """Refuses by the first dimension that lacks room, encoder sessions before all others."""
    full: Refusal | None = None
    numerator, denominator = bounds.numerator, bounds.denominator
    for dimension, needed in amounts.items():
        limit = limits.get(dimension)
        if limit is None:
            continue
        bookable = limit * numerator // denominator if dimension in _RATES else limit
        available = bookable - used.get(dimension, 0)
        if needed <= available:
            continue
        refusal = _full(dimension, needed, max(0, available), whose)
        if refusal.rule == "ENCODER_SESSIONS":
            return refusal
        full = full or refusal
    return full


def _full(dimension: Dimension, needed: int, available: int, whose: str) -> Refusal:
    if dimension is Dimension.ENCODER_SESSIONS:
        rule = "ENCODER_SESSIONS"
    else:
        rule = "CAPACITY" if whose == "It" else "HOST_CAPACITY"
    message = f"{whose} has {_amount(dimension, available)} left, and the session needs {_amount(dimension, needed)}."
    return Refusal(rule=rule, message=message, dimension=dimension, needed=needed, available=available)


_UNITS = {
    Dimension.DECODE: "decoder engine",
    Dimension.ENCODE: "encoder engine",
    Dimension.CORES: "core",
    Dimension.SCALE: "million scaled pixels/s",
    Dimension.ENCODER_SESSIONS: "encoder sessions",
    Dimension.MEMORY: "MiB of memory",
}
_MILLIONTHS = frozenset({Dimension.DECODE, Dimension.ENCODE, Dimension.CORES})


def _amount(dimension: Dimension, amount: int) -> str:
    unit = _UNITS[dimension]
    if dimension in _MILLIONTHS:
        return f"{amount / ENGINE:.3f} {unit}s"
    return f"{amount / 1_000_000:.0f} {unit}" if dimension is Dimension.SCALE else f"{amount} {unit}"
