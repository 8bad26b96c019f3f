"""Replays one trace under several policies, and beside them on one device of all devices' capacity."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.policies.policy import Policy
from balancer.simulation.fleet import Fleet, pooled
from balancer.simulation.outcome import ReplayResult
from balancer.simulation.replay import ReplayRules, replay
from balancer.simulation.sustainable import STEPS, highest_factor
from balancer.simulation.trace import Trace

_MOST_FACTOR = 8.0
"""Times as many sessions as the trace has, up to which what can be sustained is searched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All results on one trace."""

    trace: Trace
    fleet: Fleet
    rules: ReplayRules
    seed: int
    results: tuple[ReplayResult, ...]
    """By policy, in the order in which they were asked for."""


def compare(
    trace: Trace,
    fleet: Fleet,
    rules: ReplayRules,
    policies: Sequence[Callable[[], Policy]],
    *,
    seed: int,
    sustainable: bool,
) -> Comparison:
    """Replays a trace under each policy.

    Args:
        trace: The sessions.
        fleet: The devices.
        rules: The same for all.
        policies: Each makes a new policy.
        seed: Of the choice of sessions when fewer or more of them are replayed.
        sustainable: Whether to find the highest load that is sustained, too, which takes ten times as long.
    """
    # Where nothing is refused all is begun, whoever chooses: there is nothing to compare.
    work = pool_work(trace, fleet, rules) if rules.settings.admission else 0.0
    results = []
    for make in policies:
        result = replay(trace, fleet, make(), rules)
        results.append(
            replace(
                result,
                work_share_of_pool=result.work_pixels / work if work else None,
                sustainable_load=sustainable_factor(trace, fleet, rules, make, seed=seed) if sustainable else None,
            )
        )
    return Comparison(trace=trace, fleet=fleet, rules=rules, seed=seed, results=tuple(results))


def sustainable_factor(
    trace: Trace,
    fleet: Fleet,
    rules: ReplayRules,
    make: Callable[[], Policy],
    *,
    seed: int,
    most: float = _MOST_FACTOR,
    steps: int = STEPS,
) -> float:
    """Finds how many times a trace's sessions are carried under a policy; see `sustainable`."""

    def replayed(scaled: Trace) -> ReplayResult:
        return replay(scaled, fleet, make(), rules)

    return highest_factor(trace, replayed, seed=seed, most=most, steps=steps)


def pool_work(trace: Trace, fleet: Fleet, rules: ReplayRules) -> float:
    """Gives what one device of all devices' capacity does of a trace, in pixels. It never fails."""
    return replay(trace, pooled(fleet), LeastWeightedLoad(), replace(rules, failures=())).work_pixels
