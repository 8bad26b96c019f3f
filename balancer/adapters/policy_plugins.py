"""Finds placement policies: those that ship, and those that an operator installed beside them.

A package of the operator's declares an entry point in the group `gpu_balancer.policies`; the name there is the one in
the settings. The shipped names cannot be taken over: a decision that says "wowza" was made by that rule.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Final, cast

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

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENTRY_POINT_GROUP: Final = "gpu_balancer.policies"

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
_HOOKS = ("on_settings", "on_devices", "on_session_created", "on_session_placed", "on_session_ended", "choose")


class PolicyUnavailable(Exception):
    """A policy cannot be used. The message says why and what to try."""


def policy_names() -> tuple[str, ...]:
    """Lists the names that the settings may have, shipped ones first."""
    found = {entry_point.name for entry_point in entry_points(group=ENTRY_POINT_GROUP)}
    return (*_SHIPPED, *sorted(found - _SHIPPED.keys()))


def load_policy(name: str) -> Policy:
    """Makes a policy.

    Args:
        name: As in the settings.

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
    return _made(found[0])


def _made(entry_point: EntryPoint) -> Policy:
    told = f"Cannot use the placement policy {entry_point.name!r} ({entry_point.value})"
    try:
        policy = entry_point.load()()
    except Exception as error:
        # The code is a stranger's: whatever it raises while it is imported or made, the settings are what is wrong.
        raise PolicyUnavailable(f"{told}: {type(error).__name__}: {error}. Try to mend its package.") from error
    missing = [hook for hook in _HOOKS if not callable(getattr(policy, hook, None))]
    if not isinstance(getattr(policy, "name", None), str):
        missing.append("name")
    if missing:
        raise PolicyUnavailable(
            f"{told}: it lacks {', '.join(missing)}. Try to inherit from balancer.domain.policies.IndifferentPolicy."
        )
    return cast("Policy", policy)
