"""What becomes of a session whose attempt ends short of its work: as its client says, or else as the settings do.

What a client does not say beside a mode of its own is taken from the settings, but for the failures that count: whoever
chooses a mode means everything that may pass, while the settings may mean losses alone.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from balancer.domain.restart import PASSING_REASONS, RestartMode, RestartRule
from balancer.servicers.contract_words import words
from balancer.servicers.input_validation import InputKind
from balancer.servicers.violations import DAY, SECOND
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from balancer.servicers.violations import Violations
    from gpu_balancer.v1.session_pb2 import RestartPolicy, Session

MAX_RESTARTS = 1_000
MAX_REASONS = 64
"""More than there are; a client may name one twice."""
LONGEST_FIRST_BACKOFF, LONGEST_BACKOFF = 3_600 * SECOND, DAY

MODES = words("RESTART_MODE_", session_pb2.RestartMode.items())

_MODES = {
    session_pb2.RESTART_MODE_NEVER: RestartMode.NEVER,
    session_pb2.RESTART_MODE_ON_FAILURE: RestartMode.ON_FAILURE,
    session_pb2.RESTART_MODE_ALWAYS: RestartMode.ALWAYS,
}
_NUMBERS = {mode: number for number, mode in _MODES.items()}
_WHERE = "session.restart"
_LIVE_INPUTS = frozenset({InputKind.LIVE, InputKind.INGEST})


def check_restart(found: Violations, session: Session, kind: InputKind | None) -> None:
    """Notes everything that is wrong with what a client says of restarts.

    Args:
        found: Takes what is wrong.
        session: As its client asks for it.
        kind: How its input comes in. None: it has none, or that cannot be told.
    """
    if not session.HasField("restart"):
        return
    policy = session.restart
    found.check_enum(f"{_WHERE}.mode", policy.mode, MODES)
    if policy.max_restarts:
        found.check_range(f"{_WHERE}.max_restarts", policy.max_restarts, 1, MAX_RESTARTS)
    _check_backoffs(found, policy)
    for index, reason in enumerate(policy.reasons):
        if reason not in PASSING_REASONS:
            told = f"must be a failure that may pass: {', '.join(sorted(PASSING_REASONS))}"
            found.add(f"{_WHERE}.reasons[{index}]", told)
    # Over http it may turn out to be live; a file never does, and a recording ends when it is told to.
    if kind is not InputKind.ON_DEMAND:
        check_always(found, session, live=kind in _LIVE_INPUTS)


def check_always(found: Violations, session: Session, *, live: bool) -> None:
    """Notes that a session is to go on for ever whose input ends for good.

    Args:
        found: Takes what is wrong.
        session: As its client asks for it.
        live: Whether it has a live input.
    """
    if session.restart.mode == session_pb2.RESTART_MODE_ALWAYS and not live:
        told = "must be ON_FAILURE or NEVER where there is no live input: what has ended is done"
        found.add(f"{_WHERE}.mode", told)


def _check_backoffs(found: Violations, policy: RestartPolicy) -> None:
    first = longest = None
    if policy.HasField("first_backoff"):
        first = found.check_duration(f"{_WHERE}.first_backoff", policy.first_backoff, 0, LONGEST_FIRST_BACKOFF)
    if policy.HasField("longest_backoff"):
        longest = found.check_duration(f"{_WHERE}.longest_backoff", policy.longest_backoff, 0, LONGEST_BACKOFF)
    if first is not None and longest is not None and longest < first:
        found.add(f"{_WHERE}.longest_backoff", f"must not be below first_backoff, which is {first / SECOND:g} s")


def restart_rule_of(session: Session, default: RestartRule, *, live: bool) -> RestartRule:
    """Gives the rule of a session.

    Args:
        session: Without violations.
        default: What the settings say.
        live: Whether it has a live input.
    """
    rule = _asked_rule(session.restart, default) if session.HasField("restart") else default
    if rule.mode is RestartMode.ALWAYS and not live:
        # The settings say it of everybody; nobody asked for it here.
        return replace(rule, mode=RestartMode.ON_FAILURE)
    return rule


def _asked_rule(policy: RestartPolicy, default: RestartRule) -> RestartRule:
    first = policy.first_backoff.ToTimedelta() if policy.HasField("first_backoff") else default.first_backoff
    longest = policy.longest_backoff.ToTimedelta() if policy.HasField("longest_backoff") else default.longest_backoff
    others = PASSING_REASONS if policy.mode else default.reasons
    return RestartRule(
        mode=_MODES.get(policy.mode, default.mode),
        max_restarts=policy.max_restarts or default.max_restarts,
        # Whoever says one of them means it; the other one follows.
        first_backoff=first if policy.HasField("first_backoff") else min(first, longest),
        longest_backoff=max(first, longest) if policy.HasField("first_backoff") else longest,
        reasons=frozenset(policy.reasons) or others,
    )


@lru_cache(maxsize=256)
def policy_of(rule: RestartRule) -> RestartPolicy:
    """Tells a rule to clients. The message is shared: it is to be copied, not changed."""
    policy = session_pb2.RestartPolicy(mode=_NUMBERS[rule.mode])
    if rule.mode is RestartMode.NEVER:
        return policy
    policy.max_restarts = rule.max_restarts
    policy.first_backoff.FromTimedelta(rule.first_backoff)
    policy.longest_backoff.FromTimedelta(rule.longest_backoff)
    if rule.reasons != PASSING_REASONS:
        policy.reasons.extend(sorted(rule.reasons))
    return policy
