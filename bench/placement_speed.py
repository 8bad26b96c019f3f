"""How long one decision takes, what a live session takes in the ledger, and what is left of a million operations."""

from __future__ import annotations

import gc
import time
import tracemalloc
from dataclasses import replace
from random import Random

from balancer.adapters.policy_plugins import load_policy
from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.fleet_index import FULL_LOOK, FleetIndex
from balancer.domain.ids import SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import KEPT_WORKLOADS, Offer, Offers
from balancer.domain.placement import decide
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.workload import Workload
from balancer.simulation.chance import seeded
from balancer.simulation.fleet import Fleet, fleet_of_models
from balancer.simulation.replay import ReplayRules, replay
from balancer.simulation.traffic import KINDS, generate
from bench.measuring import Figure
from gpu_balancer.runtime.garbage import collect_seldom

_MODELS = ("Tesla T4", "NVIDIA A10", "NVIDIA L4", "NVIDIA GeForce RTX 4090")
_DECISIONS = 1000
_LARGE_SESSIONS = 5
"""Of the usual size, with which a device is about half full."""


def measure(*, scale: float) -> list[Figure]:
    """Measures.

    Args:
        scale: Of the numbers of devices, sessions and operations, up to 1.
    """
    collect_seldom()  # As the daemon does once it has started.
    few, many = max(4, round(64 * scale)), max(4, round(10_000 * scale))
    return [
        _decisions(few, round(2_000 * scale), "<= 1"),
        _decisions(few, round(2_000 * scale), "told", all_new=True),
        _decisions(few, round(2_000 * scale), "<= 1", policy_name="adaptive"),
        _decisions(many, round(100_000 * scale), "<= 2"),
        _decisions(many, round(100_000 * scale), "told", all_new=True),
        _decisions(many, round(100_000 * scale), "<= 2", policy_name="adaptive"),
        _memory(round(4_000 * scale)),
        _residue(round(1_000_000 * scale)),
        _replay(round(10_000 * scale)),
    ]


def _workloads() -> list[Workload]:
    return [shape.workload for kind in ("mixed", "4k", "hevc", "capture") for shape in KINDS[kind].shapes]


def _smaller(workload: Workload, times: int) -> Workload:
    """Gives a session of the same shape with fewer pixels a second."""
    decode = workload.decode
    return replace(
        workload,
        decode=replace(decode, pixels_per_second=decode.pixels_per_second // times) if decode is not None else None,
        scale_pixels_per_second=workload.scale_pixels_per_second // times,
        encodes=tuple(replace(one, pixels_per_second=one.pixels_per_second // times) for one in workload.encodes),
    )


def _unlike_any(workload: Workload, number: int) -> Workload:
    """Gives a session that nobody has asked for yet."""
    return replace(workload, scale_pixels_per_second=workload.scale_pixels_per_second + number)


def _fleet(device_count: int) -> Fleet:
    return fleet_of_models([_MODELS[number % len(_MODELS)] for number in range(device_count)])


def _filled(fleet: Fleet, session_count: int, workloads: list[Workload]) -> tuple[Ledger, Offers]:
    """Books sessions in turn on all devices, whatever room there is: some devices are full then, and refuse."""
    ledger, index = Ledger(), None
    if len(fleet.views) > FULL_LOOK:
        index = FleetIndex(ledger)
        index.update(fleet.views)
    offers = Offers(fleet.views, PlacementSettings(), fleet.host_capacity, index=index)
    offered: dict[int, Offer | Refusal] = {}
    for number in range(session_count):
        # Devices of a model offer alike, and there are more devices than offers that are worth keeping.
        shape, place = number % len(workloads), number % len(fleet.views)
        key = shape * len(_MODELS) + place % len(_MODELS)
        if key not in offered:
            offered[key] = offers.of_device(workloads[shape], fleet.views[place])
        offer = offered[key]
        if isinstance(offer, Offer):
            ledger.book(SessionId(f"s{number}"), replace(offer.reservation, device_id=fleet.views[place].id))
    return ledger, offers


def _decisions(
    device_count: int, session_count: int, bound: str, *, all_new: bool = False, policy_name: str = ""
) -> Figure:
    """Times decisions with a session booked after each and one released, as in service.

    Sessions are so small that most devices have room for another: refusing is sooner done than choosing.

    Args:
        device_count: Devices, of four models.
        session_count: Live sessions.
        bound: Of the figure.
        all_new: Whether no session is like an earlier one. Otherwise they are of a few shapes.
        policy_name: Of another policy than the default.
    """
    fleet = _fleet(device_count)
    times_smaller = max(1, round(session_count / device_count / _LARGE_SESSIONS))
    workloads = [_smaller(workload, times_smaller) for workload in _workloads()]
    ledger, offers = _filled(fleet, session_count, workloads)
    policy = load_policy(policy_name) if policy_name else LeastWeightedLoad()
    chance = seeded(1)
    policy.on_settings(offers.settings)
    policy.on_devices(fleet.views)
    for workload in workloads:
        decide(workload, offers, ledger, policy)
    live = [SessionId(f"s{number}") for number in range(session_count)]
    for number, session_id in enumerate(live):
        policy.on_session_placed(session_id, fleet.views[0].id, workloads[number % len(workloads)])
    times_ms, with_room = [], 0
    for number in range(min(_DECISIONS, 20 * session_count)):
        ended = live.pop(chance.randrange(len(live)))
        ledger.release(ended)
        policy.on_session_ended(ended)
        workload = chance.choice(workloads)
        if all_new:
            workload = _unlike_any(workload, number + 1)
        # The thread's own time: what else the machine does at the same time is not the decision's.
        began = time.thread_time()
        decision = decide(workload, offers, ledger, policy)
        times_ms.append(1000 * (time.thread_time() - began))
        with_room += sum(verdict.refusal is None for verdict in decision.verdicts)
        with_room += sum(omitted.device_count for omitted in decision.omitted if omitted.rule is None)
        live.append(SessionId(f"n{number}"))
        if decision.reservation is not None:
            ledger.book(live[-1], decision.reservation)
            policy.on_session_placed(live[-1], decision.reservation.device_id, workload)
    times_ms.sort()
    how = (", all new" if all_new else "") + (f", {policy_name}" if policy_name else "")
    middle, late = times_ms[len(times_ms) // 2], times_ms[len(times_ms) * 99 // 100]
    return Figure(
        name=f"decision p99, {device_count:,} devices, {session_count:,} sessions{how}",
        value=late,
        unit="ms",
        bound=bound,
        detail=f"median {middle:.3f} ms of {len(times_ms):,}, of processor time; "
        f"{with_room / len(times_ms):,.0f} devices had room",
    )


def _memory(session_count: int) -> Figure:
    """Measures what the ledger holds for a session that is like no other: its reservation, its id and the sums."""
    fleet = _fleet(16)
    offers = Offers(fleet.views, PlacementSettings(admission=False), fleet.host_capacity)
    policy, workloads = LeastWeightedLoad(), _workloads()
    ledger = Ledger()
    tracemalloc.start()
    try:
        # What is kept in mind of shapes is not the sessions', however many there are.
        for number in range(KEPT_WORKLOADS):
            decide(_unlike_any(workloads[number % len(workloads)], session_count + number), offers, ledger, policy)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(session_count):
            decision = decide(_unlike_any(workloads[number % len(workloads)], number), offers, ledger, policy)
            if decision.reservation is not None:
                ledger.book(SessionId(f"session-{number:016}"), decision.reservation)
            del decision
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    return Figure(
        name="ledger: memory per live session",
        value=taken / session_count,
        unit="bytes",
        bound="<= 1024",
        detail=f"{session_count:,} sessions, none like another",
    )


def _residue(operation_count: int) -> Figure:
    """Books, books elsewhere and releases at random, releases all, and sums up what is left anywhere."""
    fleet = _fleet(16)
    ledger, offers = Ledger(), Offers(fleet.views, PlacementSettings(), fleet.host_capacity)
    reservations = [
        offer.reservation_on(view.id)
        for workload in _workloads()
        for view, offer in zip(fleet.views, offers.of(workload), strict=True)
        if isinstance(offer, Offer)
    ]
    chance = Random(11)
    for _ in range(operation_count):
        session_id = SessionId(str(chance.randrange(2000)))
        if chance.random() < 0.5:
            ledger.book(session_id, chance.choice(reservations))
        else:
            ledger.release(session_id)
    for number in range(2000):
        ledger.release(SessionId(str(number)))
    left = sum(
        ledger.cost(view.id) + ledger.session_count(view.id) + sum(ledger.used(view.id).values())
        for view in fleet.views
    )
    left += sum(ledger.host_used().values()) + sum(ledger.host_yielding().values())
    return Figure(
        name="ledger: residue of random operations",
        value=left,
        unit="",
        bound="= 0",
        detail=f"{operation_count:,} operations",
    )


def _replay(session_count: int) -> Figure:
    """Times the replay of a trace on eight devices."""
    fleet = _fleet(8)
    trace = generate("mixed", fleet, seeded(1), load=0.9, duration_s=3600.0 * max(3, session_count / 20))
    sessions = trace.sessions[:session_count]
    trace = type(trace)(sessions=sessions, end_s=sessions[-1].arrival_s)
    began = time.perf_counter()
    result = replay(trace, fleet, LeastWeightedLoad(), ReplayRules())
    return Figure(
        name=f"replay of {result.offered:,} sessions on 8 devices",
        value=time.perf_counter() - began,
        unit="s",
        bound="<= 5",
    )
