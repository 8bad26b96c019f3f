"""Placement: which device takes a session, and why not the others.

Filter, then choose: every device that cannot take the session is refused, by the first rule that says so, and the
policy chooses among the rest. A refusal is a value, never an exception. All comparisons are exact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import repeat
from operator import itemgetter

from balancer.domain.decision import (
    Decision,
    Need,
    OmittedVerdicts,
    PlacementSettings,
    Refusal,
    Reservation,
)
from balancer.domain.demand import nominal_cost
from balancer.domain.device import DeviceView, Dimension
from balancer.domain.fleet_index import FleetIndex
from balancer.domain.ids import DeviceId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import RATES, Offer, Offers, scaled, speed_within
from balancer.domain.policies.policy import Candidate, Policy
from balancer.domain.verdicts import Look, Verdicts
from balancer.domain.workload import Workload

__all__ = ["Decision", "PlacementSettings", "PolicyFault", "Refusal", "Reservation", "decide", "place"]


_NONE_CLOSED: Mapping[DeviceId, Refusal] = {}


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


def decide(
    workload: Workload,
    offers: Offers,
    ledger: Ledger,
    policy: Policy,
    *,
    closed: Mapping[DeviceId, Refusal] = _NONE_CLOSED,
) -> Decision:
    """Decides which device takes a session. Books nothing.

    Args:
        workload: The session.
        offers: Of all devices.
        ledger: What is booked.
        policy: Chooses among the devices that can take it.
        closed: Devices that do not take this session whatever room they have, and why.

    Returns:
        The device with the reservation to book, or neither; and every device's score or refusal.

    Raises:
        PolicyFault: The policy chose a device that is none of the candidates.
    """
    omitted: tuple[OmittedVerdicts, ...] = ()
    if offers.index is None:
        looked_at: Iterable[_Shown] = zip(offers.views, offers.of(workload), repeat(1))
    else:
        looked_at, omitted = _shortlist(workload, offers, offers.index, closed)
    admission = offers.settings.admission
    host_rooms: dict[int, _Room] = {}
    looks = [
        _look(
            view,
            offer,
            workload,
            ledger,
            host_rooms,
            admission=admission,
            closed=closed.get(view.identity.id) if closed else None,
            stands_for=stands_for,
        )
        for view, offer, stands_for in looked_at
    ]
    candidates = tuple([_candidate(one, offers.highest_weight) for one in looks if one.takes])
    choice = policy.choose(candidates, workload) if candidates else None
    chosen = None
    if choice is not None:
        chosen = next((one for one in looks if one.takes and one.view.identity.id == choice.device_id), None)
        if chosen is None:
            raise PolicyFault(
                f"Cannot place: policy {policy.name!r} chose {choice.device_id!r}, which is no candidate."
            )
    reservation = _reserved(chosen) if chosen is not None else None
    return Decision(
        device_id=chosen.view.id if chosen is not None else None,
        policy=policy.name,
        workload=workload,
        cost_pixels_per_second=reservation.cost_pixels_per_second
        if reservation
        else nominal_cost(workload, offers.settings.factors),
        verdicts=Verdicts(
            looks,
            scores=choice.scores if choice is not None else {},
            highest_weight=offers.highest_weight,
            admission=admission,
        ),
        settings_version=offers.settings.version,
        reservation=reservation,
        omitted=omitted,
    )


_Shown = tuple[DeviceView, Offer | Refusal, int]
"""A device to look at, what it offers, and how many it stands for."""


def _shortlist(
    workload: Workload, offers: Offers, index: FleetIndex, closed: Mapping[DeviceId, Refusal]
) -> tuple[list[_Shown], tuple[OmittedVerdicts, ...]]:
    """Picks the devices to look at, in device order, and counts the others by what speaks against them.

    Of a class without room one member is looked at, so that its refusal is told with figures.
    """
    shown: list[tuple[int, Offer | Refusal, int]] = []
    omitted: Counter[str | None] = Counter()
    for members in index.classes():
        size = len(members.order)
        if not size:
            continue
        offer = offers.of_class(workload, members)
        if isinstance(offer, Refusal):
            shown.append((members.order[0][2], offer, size))
            omitted[offer.rule] += size - 1
            continue
        needs = offer.device_needs if offers.settings.admission else ()
        places = index.with_room(members, needs, real_time=workload.real_time, closed=closed)
        if places:
            omitted[None] += size - len(places)
        else:
            places = [members.order[0][2]]
            omitted["CAPACITY"] += size - 1
        shown += [(place, offer, size // len(places)) for place in places]
    shown.sort(key=itemgetter(0))
    looked_at = [(offers.views[place], offer, stands_for) for place, offer, stands_for in shown]
    counted = tuple(OmittedVerdicts(rule=rule, device_count=count) for rule, count in omitted.items() if count)
    return looked_at, counted


def _look(
    view: DeviceView,
    offer: Offer | Refusal,
    workload: Workload,
    ledger: Ledger,
    host_rooms: dict[int, _Room],
    *,
    admission: bool,
    closed: Refusal | None,
    stands_for: int,
) -> Look:
    """Looks at one device. What was found of the host is kept in `host_rooms`: devices that are alike need the same."""
    device_id = view.identity.id
    cost, session_count = ledger.cost(device_id), ledger.session_count(device_id)
    if isinstance(offer, Refusal):
        return Look(view, None, offer, False, cost, session_count, (), (), stands_for)
    real_time = workload.real_time
    device_used, device_fits = _room(
        offer.device_needs, ledger.used(device_id), ledger.yielding(device_id) if real_time else None, admission
    )
    host_room = host_rooms.get(id(offer.host_needs))
    if host_room is None:
        host_room = host_rooms[id(offer.host_needs)] = _room(
            offer.host_needs, ledger.host_used(), ledger.host_yielding() if real_time else None, admission
        )
    host_used, host_fits = host_room
    takes = closed is None and device_fits and host_fits and (offer.too_fast is None or not admission)
    return Look(view, offer, closed, takes, cost, session_count, device_used, host_used, stands_for)


_Room = tuple[tuple[int, ...], bool]
"""What is taken of each needed dimension, and whether there is room."""


def _room(
    needs: tuple[Need, ...],
    used: Mapping[Dimension, int],
    yielding: Mapping[Dimension, int] | None,
    admission: bool,
) -> _Room:
    """Looks whether there is room; what yields to the session does not count."""
    taken, fits = [], True
    for dimension, needed, bookable in needs:
        amount = used.get(dimension, 0)
        if yielding:
            amount -= yielding.get(dimension, 0)
        taken.append(amount)
        if amount + needed > bookable and (admission or dimension not in RATES):
            fits = False
    return tuple(taken), fits


def _candidate(look: Look, highest_weight: int) -> Candidate:
    offer = look.offer
    assert offer is not None, "what takes a session has an offer"
    return Candidate(
        view=look.view,
        cost_pixels_per_second=offer.reservation.cost_pixels_per_second,
        booked_pixels_per_second=look.cost,
        session_count=look.session_count,
        highest_weight=highest_weight,
        device_needs=offer.device_needs,
        device_used=look.device_used,
        host_needs=offer.host_needs,
        host_used=look.host_used,
        stands_for=look.stands_for,
    )


def _reserved(chosen: Look) -> Reservation:
    """Gives what is to be booked. Who is content with what is left books that, of what it would like to have."""
    assert chosen.offer is not None, "what is no refusal is an offer"
    reservation = chosen.offer.reservation_on(chosen.view.id)
    wants, host_wants = chosen.offer.device_wants, chosen.offer.host_wants
    if not wants and not host_wants:
        return reservation
    speed = speed_within(((wants, chosen.device_used), (host_wants, chosen.host_used)))
    if speed == 1:
        return reservation
    return replace(
        reservation,
        device_amounts=scaled(reservation.device_amounts, speed),
        host_amounts=scaled(reservation.host_amounts, speed),
    )
