"""What is asked of the engine for a new session, and how it says that no device takes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from balancer.domain.decision import Decision
from balancer.domain.restart import NO_RESTART, RestartRule
from balancer.domain.session import Priority
from balancer.domain.workload import Workload
from gpu_balancer.runtime.failures import Reason, RequestFailure

_TOLD_DEVICES = 8
"""How many devices a refusal's message names. The decision, which travels beside it, has them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """A session that is to be placed and started."""

    payload: bytes
    """The client's session, serialized, with profile, defaults and input facts filled in."""
    workload: Workload
    priority: Priority
    labels: Mapping[str, str] = field(default_factory=dict)
    max_wait: timedelta | None = None
    """How long it may wait for a device when none has room. None: not at all."""
    preemptible: bool = False
    """Whether it may be stopped and queued again for the sake of LIVE work."""
    request_id: str | None = None
    """None: every admission makes a session."""
    request_digest: str | None = None
    """Hash of the request as it came."""
    traceparent: str | None = None
    restart: RestartRule = NO_RESTART
    """What becomes of it when an attempt ends short of its work."""
    resumable: bool = False
    """Whether a further attempt continues what an earlier one made."""
    max_duration: timedelta | None = None
    """Of running, all attempts together. None: no bound."""


@dataclass(slots=True, kw_only=True, eq=False)
class PlacementRefused(RequestFailure):
    """Every device refused a session. The decision says why."""

    decision: Decision


def placement_refused(decision: Decision, *, retry_after: timedelta) -> PlacementRefused:
    """Makes the failure of a session that no device takes.

    It is NO_CAPABLE_DEVICE when waiting cannot help, NO_DEVICE_READY when each device that might do it does not take
    sessions now, else NO_CAPACITY.

    Args:
        decision: A decision without a device.
        retry_after: When trying again may help.

    Returns:
        The failure, with every device's refusal.
    """
    refused = [verdict for verdict in decision.verdicts if verdict.refusal is not None]
    hopeful_ones = [verdict for verdict in refused if verdict.refusal and not verdict.refusal.permanent]
    if not refused:
        reason, problem, advice = (
            Reason.NO_DEVICE_READY,
            "no device is known yet",
            "Try again when its agents have started",
        )
    elif not hopeful_ones:
        reason, problem, advice = Reason.NO_CAPABLE_DEVICE, "no device can do it", "Try other codecs or sizes"
    elif all(verdict.refusal and verdict.refusal.rule == "NOT_READY" for verdict in hopeful_ones):
        reason, problem, advice = Reason.NO_DEVICE_READY, "no device that might do it is ready", "Try again later"
    else:
        reason, problem, advice = Reason.NO_CAPACITY, "no device has room", "Try again later, or ask for less"
    told = told_refusals(decision)
    return PlacementRefused(
        reason=reason,
        message=f"Cannot place the session: {problem}{told}. {advice}.",
        retry_after=None if reason is Reason.NO_CAPABLE_DEVICE else retry_after,
        decision=decision,
    )


def queue_full(decision: Decision, *, max_sessions: int, retry_after: timedelta) -> PlacementRefused:
    """Makes the failure of a session that may wait where too many wait already.

    Args:
        decision: A decision without a device.
        max_sessions: How many may wait.
        retry_after: When trying again may help.
    """
    return PlacementRefused(
        reason=Reason.QUEUE_FULL,
        message=f"Cannot queue the session: no device has room{told_refusals(decision)}, and {max_sessions} sessions "
        "wait already. Try again later, or raise queue.max_sessions.",
        retry_after=retry_after,
        decision=decision,
    )


def hopeful(decision: Decision) -> bool:
    """Whether waiting may help a session that every device refused."""
    return any(verdict.refusal is None or not verdict.refusal.permanent for verdict in decision.verdicts) or (
        not decision.verdicts
    )


def told_refusals(decision: Decision) -> str:
    """Gives the refusals of the first devices as words in brackets, a space before them. Empty: nobody refused."""
    refused = [verdict for verdict in decision.verdicts if verdict.refusal is not None]
    if not refused:
        return ""
    told = [
        f"{verdict.device_id}: {verdict.refusal.message.rstrip('.')}"
        for verdict in refused[:_TOLD_DEVICES]
        if verdict.refusal
    ]
    if len(refused) > _TOLD_DEVICES:
        told.append(f"and {len(refused) - _TOLD_DEVICES} more")
    return f" ({'; '.join(told)})"
