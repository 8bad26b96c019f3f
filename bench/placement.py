"""How good placement is, replayed, and how fast: every figure over several seeds, both sides on the same traces.

Replays are the simulator's, `balancer.simulation`, which runs the daemon's own placement code; docs/simulator.md says
what it leaves out. Intervals hold 95 % of resampled means (bootstrap over seeds).
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from balancer.adapters.policy_plugins import load_policy
from balancer.domain.decision import PlacementSettings
from balancer.simulation.chance import seeded
from balancer.simulation.comparison import pool_work, sustainable_factor
from balancer.simulation.fleet import fleet_of_models, pooled
from balancer.simulation.outcome import DeviceFailure
from balancer.simulation.replay import ReplayRules, replay
from balancer.simulation.traffic import generate
from bench import placement_speed
from bench.measuring import Figure

MIXED = ("Tesla T4", "NVIDIA A10", "NVIDIA L4", "NVIDIA GeForce RTX 4090")
EQUAL = ("NVIDIA L4",) * 4
TRAFFIC = ("mixed", "4k", "hevc", "capture", "blend")
RIVALS = ("livepeer", "utilization", "wowza", "session_count", "round_robin", "first_fit")
OURS = "least_weighted_load"
POOL = "one pooled device"
"""No policy: what all devices' capacity would carry in one, which hardly any can beat."""
_WARM_UP_S = 2 * 3600.0
_PROCESSES = 2
_RESAMPLES = 2000


def measure(
    *,
    seeds: Sequence[int] = range(1, 7),
    load_seeds: Sequence[int] = range(1, 25),
    hours: float = 16,
    traffic: Sequence[str] = TRAFFIC,
    device_counts: Sequence[int] = (4, 8, 16),
    steps: int = 9,
    scale: float = 1.0,
) -> list[Figure]:
    """Measures everything.

    Args:
        seeds: Of the traces with a dead device.
        load_seeds: Of those by which sustained loads are compared, which differ much from one to the next, and, from
            the first of them on, of those for work served: of the most devices as many, of half of them twice as many.
        hours: Length of each trace.
        traffic: Kinds of traffic.
        device_counts: Mixed devices for work served with admission; multiples of four.
        steps: Halvings when a sustainable load is searched: 9 find it to a quarter of a percent of the capacity.
        scale: Of the numbers of devices, sessions and operations when time and memory are measured, up to 1.
    """
    print(f"  seeds {_listed(seeds)}, of loads {_listed(load_seeds)}; traces of {hours:g} h")
    with ProcessPoolExecutor(_PROCESSES) as pool:
        return [
            *_sustainable(pool.map, load_seeds, hours, traffic, steps),
            *_equal(pool.map, load_seeds, hours, traffic, steps),
            # Shares of work differ by little, so their traces are longer.
            *_served(pool.map, _seeds_by_count(load_seeds, device_counts), 3 * hours),
            *_dead_device(pool.map, seeds, round(2000 * scale)),
            *placement_speed.measure(scale=scale),
        ]


def _seeds_by_count(seeds: Sequence[int], device_counts: Sequence[int]) -> dict[int, Sequence[int]]:
    """Gives every number of devices as many hours of devices: of few, one trace differs more from the next."""
    most = max(device_counts, default=0)
    return {count: range(seeds[0], seeds[0] + len(seeds) * most // count) for count in device_counts}


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


Mapped = Callable[..., Iterable[float]]
"""Runs a function for each item, in several processes."""


# -------------------------------------------------------------------------------------------- without admission: load


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """One search for the highest load that is sustained."""

    models: tuple[str, ...]
    kind: str
    policy: str
    seed: int
    hours: float
    steps: int


def _sustained_load(search: _Search) -> float:
    """Finds the highest load of which at most 1 % of session time is below real time, 1 = all capacity together."""
    fleet = fleet_of_models(search.models)
    trace = generate(search.kind, fleet, seeded(search.seed), load=1.0, duration_s=search.hours * 3600)
    rules = ReplayRules(settings=PlacementSettings(admission=False), from_s=_WARM_UP_S, queue=None)
    policy = search.policy
    if policy == POOL:
        fleet, policy = pooled(fleet), OURS
    return sustainable_factor(
        trace, fleet, rules, lambda: load_policy(policy), seed=search.seed, most=1.25, steps=search.steps
    )


def _loads(
    mapped: Mapped,
    models: tuple[str, ...],
    kinds: Sequence[str],
    policies: Sequence[str],
    seeds: Sequence[int],
    hours: float,
    steps: int,
) -> dict[tuple[str, str], list[float]]:
    """Gives the sustained loads by kind of traffic and policy, in the order of seeds."""
    searches = [
        _Search(models=models, kind=kind, policy=policy, seed=seed, hours=hours, steps=steps)
        for kind in kinds
        for policy in policies
        for seed in seeds
    ]
    loads: dict[tuple[str, str], list[float]] = {}
    for search, load in zip(searches, mapped(_sustained_load, searches), strict=True):
        loads.setdefault((search.kind, search.policy), []).append(load)
    return loads


def _sustainable(
    mapped: Mapped, seeds: Sequence[int], hours: float, traffic: Sequence[str], steps: int
) -> list[Figure]:
    """Compares on unequal cards, with nothing refused."""
    policies = (OURS, "livepeer", "utilization", "adaptive", POOL)
    loads = _loads(mapped, MIXED, traffic, policies, seeds, hours, steps)
    figures = []
    for kind in traffic:
        ours = loads[kind, OURS]
        for rival, bound in (("livepeer", ">= 1.7"), ("utilization", ">= 1.25")):
            theirs = loads[kind, rival]
            figures.append(_ratio(f"T4+A10+L4+4090, {kind}: / {rival}", ours, theirs, bound))
            figures.append(_ratio(f"… {POOL} / {rival}", loads[kind, POOL], theirs, "told"))
        figures.append(_ratio(f"T4+A10+L4+4090, {kind}: adaptive / ours", loads[kind, "adaptive"], ours, ">= 0.97"))
    return figures


def _equal(mapped: Mapped, seeds: Sequence[int], hours: float, traffic: Sequence[str], steps: int) -> list[Figure]:
    """Compares on equal cards with the best of the rivals, which may be another one for each kind of traffic."""
    loads = _loads(mapped, EQUAL, traffic, (OURS, *RIVALS), seeds, hours, steps)
    figures = []
    for kind in traffic:
        best = max(RIVALS, key=lambda rival: statistics.mean(loads[kind, rival]))
        figures.append(_ratio(f"4 x L4, {kind}: / best rival, {best}", loads[kind, OURS], loads[kind, best], ">= 1"))
    return figures


def _ratio(name: str, ours: Sequence[float], theirs: Sequence[float], bound: str) -> Figure:
    """Makes a ratio of mean loads, with its interval."""
    pairs = list(zip(ours, theirs, strict=True))

    def ratio(chosen: Sequence[tuple[float, float]]) -> float:
        return sum(one for one, _ in chosen) / max(1e-9, sum(other for _, other in chosen))

    low, high = _interval(pairs, ratio)
    detail = f"[{low:.2f}, {high:.2f}]  {statistics.mean(ours):.3f} / {statistics.mean(theirs):.3f}"
    return Figure(name=name, value=ratio(pairs), unit="x", bound=bound, detail=detail)


def _interval(items: Sequence, statistic: Callable[[Sequence], float]) -> tuple[float, float]:  # type: ignore[type-arg]
    """Gives the bounds between which 95 % of the statistics of resampled items are."""
    chance = seeded(0)
    found = sorted(statistic(chance.choices(items, k=len(items))) for _ in range(_RESAMPLES))
    return found[_RESAMPLES // 40], found[-_RESAMPLES // 40 - 1]


# ------------------------------------------------------------------------------------------------ with admission: work


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """One replay with admission, beside the same on one device."""

    device_count: int
    policy: str
    seed: int
    hours: float


def _work_share(serving: _Serving) -> tuple[float, float]:
    """Gives the work done as a share of one device's of the same capacity, and session-seconds below real time."""
    fleet = fleet_of_models(MIXED * (serving.device_count // len(MIXED)))
    trace = generate("mixed", fleet, seeded(serving.seed), load=1.1, duration_s=serving.hours * 3600)
    rules = ReplayRules(from_s=_WARM_UP_S, queue=None)
    result = replay(trace, fleet, load_policy(serving.policy), rules)
    return result.work_pixels / pool_work(trace, fleet, rules), result.below_real_time_s


def _served(
    mapped: Callable[..., Iterable[tuple[float, float]]],
    seeds_by_count: dict[int, Sequence[int]],
    hours: float,
) -> list[Figure]:
    """Compares the work that is done when more is offered than there is capacity for."""
    policies = ((OURS, ">= 0.93"), ("adaptive", ">= 0.975"), ("best_fit", ""), ("livepeer", ""), ("utilization", ""))
    servings = [
        _Serving(device_count=count, policy=policy, seed=seed, hours=hours)
        for count, seeds in seeds_by_count.items()
        for policy, _ in policies
        for seed in seeds
    ]
    found: dict[tuple[int, str], list[float]] = {}
    below = 0.0
    for serving, (share, below_s) in zip(servings, mapped(_work_share, servings), strict=True):
        found.setdefault((serving.device_count, serving.policy), []).append(share)
        below += below_s
    figures = [Figure(name="with admission: time below real time", value=below, unit="s", bound="= 0")]
    for count, seeds in seeds_by_count.items():
        for policy, bound in policies:
            shares = found[count, policy]
            low, high = _interval(shares, statistics.mean)
            figures.append(
                Figure(
                    name=f"{count} devices, load 1.1: work, {policy}",
                    value=statistics.mean(shares),
                    unit="of one",
                    bound=bound or "-",
                    detail=f"[{low:.3f}, {high:.3f}]  seeds {seeds[0]} to {seeds[-1]}",
                )
            )
    return figures


# -------------------------------------------------------------------------------------------------------- dead devices


@dataclass(frozen=True, slots=True, kw_only=True)
class _Dead:
    """One replay with a device that is dead from the start."""

    models: tuple[str, ...]
    seed: int
    session_count: int
    breaker: bool


def _dead_tries(dead: _Dead) -> float:
    """Counts first tries that reach the dead one of four devices."""
    fleet = fleet_of_models(dead.models)
    # Three of four devices carry it; so many hours have somewhat more sessions than are wanted.
    trace = generate("mixed", fleet, seeded(dead.seed), load=0.4, duration_s=3600.0 * max(2, dead.session_count / 7))
    sessions = trace.sessions[: dead.session_count]
    assert len(sessions) == dead.session_count, "the trace is too short"
    failure = DeviceFailure(device_id=fleet.views[dead.seed % len(fleet.views)].id, time_s=0.0)
    rules = ReplayRules(failures=(failure,))
    if not dead.breaker:
        rules = ReplayRules(failures=(failure,), breaker=None)
    trace = type(trace)(sessions=sessions, end_s=sessions[-1].arrival_s)
    return replay(trace, fleet, load_policy(OURS), rules).dead_first_tries


def _dead_device(mapped: Mapped, seeds: Sequence[int], session_count: int) -> list[Figure]:
    """Counts first tries of a dead device with the breaker, and what they would be without."""
    runs = [
        _Dead(models=models, seed=seed, session_count=session_count, breaker=breaker)
        for models in (EQUAL, MIXED)
        for breaker in (True, False)
        for seed in seeds
    ]
    tries = list(mapped(_dead_tries, runs))
    figures = []
    for number, cards in enumerate(("equal", "mixed")):
        first = 2 * number * len(seeds)
        with_breaker, without = tries[first : first + len(seeds)], tries[first + len(seeds) : first + 2 * len(seeds)]
        detail = (
            f"of {session_count:,} sessions, worst of {len(seeds)} seeds; "
            f"{statistics.mean(without):.0f} without breaker"
        )
        figures.append(
            Figure(
                name=f"first tries of one dead device of four, {cards} cards",
                value=max(with_breaker),
                unit="tries",
                bound="<= 3",
                detail=detail,
            )
        )
    return figures
