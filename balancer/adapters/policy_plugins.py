"""Finds placement policies: those that ship, and those that an operator installed beside them.

A package of the operator's declares an entry point in the group `gpu_balancer.policies`; the name there is the one in
the settings. The shipped names cannot be taken over: a decision that says "wowza" was made by that rule. Shipped
policies are trusted and called as they are; an operator's are made and called under a guard.
"""

from __future__ import annotations

from datetime import timedelta
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, cast

from balancer.adapters.guarded_policy import FaultKind, GuardedPolicy
from balancer.adapters.policy_worker import PolicyWorker
from balancer.domain.policies import (
    Adaptive,
    BestFit,
    DominantResource,
    FirstFit,
    LeastUtilization,
    LeastWeightedLoad,
    Livepeer,
    Policy,
    RoundRobin,
    SessionCount,
    Wowza,
)
from gpu_balancer.runtime.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gpu_balancer.runtime.clock import Clock

ENTRY_POINT_GROUP: Final = "gpu_balancer.policies"
POLICY_TIMEOUT: Final = timedelta(milliseconds=50)
"""How long a call of an operator's policy may take, unless the settings say otherwise."""
LOAD_TIMEOUT: Final = timedelta(seconds=10)
"""How long an operator's policy may take to be imported and made."""

_SHIPPED: Mapping[str, Callable[[], Policy]] = {
    "least_weighted_load": LeastWeightedLoad,
    "adaptive": Adaptive,
    "dominant_resource": DominantResource,
    "best_fit": BestFit,
    "wowza": Wowza,
    "livepeer": Livepeer,
    "round_robin": RoundRobin,
    "first_fit": FirstFit,
    "session_count": SessionCount,
    "utilization": LeastUtilization,
}
_STUCK: dict[str, PolicyWorker] = {}
"""Of each entry point that did not come up in time, the thread that it keeps. It is not tried again while that lives:
threads cannot be stopped, and each try would leave one more."""
_HOOKS = ("on_settings", "on_devices", "on_session_created", "on_session_placed", "on_session_ended", "choose")


class PolicyUnavailable(Exception):
    """A policy cannot be used. The message says why and what to try."""


def policy_names() -> tuple[str, ...]:
    """Lists the names that the settings may have, shipped ones first."""
    found = {entry_point.name for entry_point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_SHIPPED, *sorted(found - _SHIPPED.keys()))


def load_policy(
    name: str,
    *,
    timeout: timedelta = POLICY_TIMEOUT,
    on_fault: Callable[[str, FaultKind], None] = lambda _name, _kind: None,
    clock: Clock | None = None,
) -> Policy:
    """Makes a policy.

    Args:
        name: As in the settings.
        timeout: How long a call of an operator's policy may take; shipped ones are not timed.
        on_fault: Called with name and kind of each fault of an operator's policy.
        clock: Tells when a fault was logged last. None: the machine's.

    Returns:
        A new one, told of nothing yet.

    Raises:
        PolicyUnavailable: There is none of that name, or it cannot be imported, made, or used as a policy.
    """
    shipped = _SHIPPED.get(name)
    if shipped is not None:
        return shipped()
    found = tuple(entry_points(group=ENTRY_POINT_GROUP, name=name))
    if not found:
        raise PolicyUnavailable(
            f"Cannot use the placement policy {name!r}: there is none of that name. "
            f"Try one of {', '.join(policy_names())}, or install the package that brings it."
        )
    if len({entry_point.value for entry_point in found}) > 1:
        raise PolicyUnavailable(
            f"Cannot use the placement policy {name!r}: {' and '.join(entry_point.value for entry_point in found)} "
            "both go by that name. Try to remove one of the packages."
        )
    policy, worker = _made(found[0])
    return GuardedPolicy(
        policy,
        worker,
        name=name,
        timeout=timeout,
        default=LeastWeightedLoad(),
        on_fault=on_fault,
        clock=clock or SystemClock(),
    )


def _made(entry_point: EntryPoint) -> tuple[Policy, PolicyWorker]:
    """Imports and makes a policy in a thread of its own, and looks at what it has there."""
    told = f"Cannot use the placement policy {entry_point.name!r} ({entry_point.value})"
    stuck = _STUCK.get(entry_point.value)
    if stuck is not None and stuck.alive:
        raise PolicyUnavailable(
            f"{told}: it has not come up since it was tried before. Try to mend its package and restart the daemon."
        )
    _STUCK.pop(entry_point.value, None)
    worker = PolicyWorker(entry_point.name)

    def make() -> tuple[object, list[str]]:
        policy = entry_point.load()()
        missing = [hook for hook in _HOOKS if not callable(getattr(policy, hook, None))]
        if not isinstance(getattr(policy, "name", None), str):
            missing.append("name")
        return policy, missing

    answer = worker.ask(make, LOAD_TIMEOUT)
    if answer is None:
        _STUCK[entry_point.value] = worker
        raise PolicyUnavailable(
            f"{told}: it did not come up within {LOAD_TIMEOUT.total_seconds():g} s. "
            "Try to have it do less when it is imported and made."
        )
    if answer.error is not None:
        raise PolicyUnavailable(f"{told}: {answer.told}. Try to mend its package.") from answer.error
    policy, missing = answer.value
    if missing:
        raise PolicyUnavailable(
            f"{told}: it lacks {', '.join(missing)}. Try to inherit from balancer.domain.policies.IndifferentPolicy."
        )
    return cast("Policy", policy), worker
