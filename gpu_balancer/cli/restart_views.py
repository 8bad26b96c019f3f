"""How the command says what becomes of a session that ends short of its work, and what has become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.words import brief, clean, device_word, enum_word, moment
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.v1.session_pb2 import RestartPolicy, Session

_WAYS = {"RESTARTING": "beginning again", "MOVING": "moving to another device"}


def way_words(session: Session) -> str:
    """Tells why a session waits that ran before, "beginning again" for instance. Empty: it did not, or gave way."""
    return next((_WAYS[one.type] for one in session.conditions if one.type in _WAYS), "")


def rest_words(session: Session) -> str:
    """Tells until when a session rests. Empty: it does not."""
    queue = session.queue
    return f"rests until {moment(queue.not_before_time)}" if queue.HasField("not_before_time") else ""


def restart_facts(session: Session) -> Iterator[tuple[str, str]]:
    """Gives everything about the restarts of a session, name by name; what is unknown has no value."""
    yield "restart", _policy_words(session.restart) if session.HasField("restart") else ""
    times = "once" if session.restart_count == 1 else f"{session.restart_count} times"
    yield "restarted", times if session.restart_count else ""
    last = session.last_restart
    told = f"attempt {last.attempt} on {device_word(last.device)} ended {moment(last.restart_time)}"
    why = f"{clean(last.failure.message)} ({last.failure.reason})"
    yield "last time", f"{told}\n{why}" if session.HasField("last_restart") else ""


def _policy_words(policy: RestartPolicy) -> str:
    """Tells a policy, "on failure, 3 in a row, after 1 s to 1:00" for instance."""
    mode = enum_word(session_pb2.RestartMode.Name, policy.mode, "RESTART_MODE_").replace("_", " ")
    if policy.mode == session_pb2.RESTART_MODE_NEVER:
        return mode
    told = f"{mode}, {policy.max_restarts} in a row, after {brief(policy.first_backoff)}"
    if policy.first_backoff != policy.longest_backoff:
        told += f" to {brief(policy.longest_backoff)}"
    counting = ", ".join(clean(reason) for reason in policy.reasons) or "everything that may pass"
    return f"{told}\ncounts {counting}"
