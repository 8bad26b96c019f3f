"""Placement: which device takes a session, and why not the others.

Filter, then choose: every device that cannot take the session is refused, by the first rule that says so, and the
policy chooses among the rest. A refusal is a value, never an exception. All comparisons are exact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from balancer.domain.decision import Decision, PlacementSettings, Refusal, Reservation, Verdict
from balancer.domain.demand import nominal_cost
from balancer.domain.device import DeviceView, Dimension
from balancer.domain.ids import DeviceId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import Need, Offer, Offers, amount_in_words
from balancer.domain.policies.policy import Candidate, Policy
from balancer.domain.workload import Workload

__all__ = ["Decision", "PlacementSettings", "PolicyFault", "Refusal", "Reservation", "Verdict", "decide", "place"]


class PolicyFault(Exception):
    """A policy chose something that was not to choose from. The message names it."""


def place(
    workload: Workload,
    views: Sequence[DeviceView],
    ledger: Ledger,
    policy: Policy,
    settings: PlacementSettings,
    host_capacity: Mapping[Dimension, int],
) -> Decision:
    """Decides which device takes a session, once. Who decides often keeps the `Offers` and asks `decide`.

    Args:
        workload: The session.
        views: All devices, in device order.
        ledger: What is booked.
        policy: Chooses among the devices that can take it.
        settings: What the operator tuned.
        host_capacity: What the host has, in the dimensions' units; an absent dimension is not limited.

    Returns:
        As `decide`.

    Raises:
        PolicyFault: As `decide`.
    """
    return decide(workload, Offers(views, settings, host_capacity), ledger, policy)


def decide(workload: Workload, offers: Offers, ledger: Ledger, policy: Policy) -> Decision:
    """Decides which device takes a session. Books nothing.

    Args:
        workload: The session.
        offers: Of all devices.
        ledger: What is booked.
        policy: Chooses among the devices that can take it.

    Returns:
        The device with the reservation to book, or neither; and every device's score or refusal.

    Raises:
        PolicyFault: The policy chose a device that is none of the candidates.
    """
    candidates: list[Candidate] = []
    reservations: dict[DeviceId, Reservation] = {}
    refusals: dict[DeviceId, Refusal] = {}
    for view, offer in zip(offers.views, offers.of(workload), strict=True):
        device_id = view.identity.id
        refusal = offer if isinstance(offer, Refusal) else _full(offer, ledger)
        if refusal is not None:
            refusals[device_id] = refusal
            continue
        assert isinstance(offer, Offer), "what is no refusal is an offer"
        reservations[device_id] = offer.reservation
        candidates.append(
            Candidate(
                view=view,
                cost_pixels_per_second=offer.reservation.cost_pixels_per_second,
                booked_pixels_per_second=ledger.cost(device_id),
                session_count=ledger.session_count(device_id),
                highest_weight=offers.highest_weight,
            )
        )
    choice = policy.choose(tuple(candidates), workload) if candidates else None
    if choice is not None and choice.device_id not in reservations:
        raise PolicyFault(f"Cannot place: policy {policy.name!r} chose {choice.device_id!r}, which is no candidate.")
    reservation = reservations[choice.device_id] if choice is not None else None
    return Decision(
        device_id=choice.device_id if choice is not None else None,
        policy=policy.name,
        workload=workload,
        cost_pixels_per_second=reservation.cost_pixels_per_second
        if reservation
        else nominal_cost(workload, offers.settings.factors),
        verdicts=_verdicts(offers, ledger, choice.scores if choice is not None else {}, refusals),
        settings_version=offers.settings.version,
        reservation=reservation,
    )


def _verdicts(
    offers: Offers, ledger: Ledger, scores: Mapping[DeviceId, int], refusals: Mapping[DeviceId, Refusal]
) -> tuple[Verdict, ...]:
    verdicts: list[Verdict] = []
    for view in offers.views:
        device_id, weight = view.identity.id, view.weight
        verdicts.append(
            Verdict(
                device_id=device_id,
                weight=weight,
                session_count=ledger.session_count(device_id),
                weighted_load_before=ledger.cost(device_id) * offers.highest_weight // weight if weight else None,
                score=scores.get(device_id),
                refusal=refusals.get(device_id),
            )
        )
    return tuple(verdicts)


def _full(offer: Offer, ledger: Ledger) -> Refusal | None:
    """Tells the first rule that speaks against an offer now."""
    return (
        _no_room(offer.device_needs, ledger.used(offer.reservation.device_id), "It")
        or offer.too_fast
        or _no_room(offer.host_needs, ledger.host_used(), "Its host")
    )


def _no_room(needs: tuple[Need, ...], used: Mapping[Dimension, int], whose: str) -> Refusal | None:
    """Refuses by the first dimension that lacks room, encoder sessions before all others."""
    full: Refusal | None = None
    for dimension, needed, bookable in needs:
        available = bookable - used.get(dimension, 0)
        if needed <= available:
            continue
        refusal = _lacking(dimension, needed, max(0, available), whose)
        if refusal.rule == "ENCODER_SESSIONS":
            return refusal
        full = full or refusal
    return full


def _lacking(dimension: Dimension, needed: int, available: int, whose: str) -> Refusal:
    if dimension is Dimension.ENCODER_SESSIONS:
        rule = "ENCODER_SESSIONS"
    else:
        rule = "CAPACITY" if whose == "It" else "HOST_CAPACITY"
    message = (
        f"{whose} has {amount_in_words(dimension, available)} left, "
        f"and the session needs {amount_in_words(dimension, needed)}."
    )
    return Refusal(rule=rule, message=message, dimension=dimension, needed=needed, available=available)
