"""How a session's restarts lie in the store: its rule, why and where it began again, what it continues.

Beside them, what both halves of the codec write alike: failures, and instants as whole microseconds.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from balancer.domain.ids import DeviceId
from balancer.domain.restart import NO_RESTART, PASSING_REASONS, RestartMode, RestartRule
from balancer.domain.session import EndedAttempt, Failure, LastRestart, SessionRecord

MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_KEPT_RULES = 256


@lru_cache(maxsize=_KEPT_RULES)
def encoded_rule(rule: RestartRule) -> list[Any]:
    """Writes a rule down; that everything counts which may pass is written as that, and means what may by then."""
    reasons = None if rule.reasons == PASSING_REASONS else sorted(rule.reasons)
    backoffs = [rule.first_backoff // MICROSECOND, rule.longest_backoff // MICROSECOND]
    return [rule.mode, rule.max_restarts, *backoffs, reasons]


def encoded_course(record: SessionRecord) -> dict[str, Any]:
    """Writes down what became of earlier attempts; what is not there is left out."""
    changing: dict[str, Any] = {}
    if record.moving is not None:
        changing["moving"] = encoded_failure(record.moving)
    if (last := record.last_restart) is not None:
        told = [last.attempt, last.device_id, encoded_failure(last.failure), microseconds(last.restart_time)]
        changing["last_restart"] = told
    if record.ended_attempts:
        changing["ended_attempts"] = [[one.attempt, one.device_id, one.folder] for one in record.ended_attempts]
    if record.ran_for:
        changing["ran_for_us"] = record.ran_for // MICROSECOND
    return changing


def decoded_course(fixed: dict[str, Any], changing: dict[str, Any]) -> dict[str, Any]:
    """Gives the fields of a record that `encoded_course` and its `fixed` part tell of."""
    max_duration_us = fixed.get("max_duration_us")
    return {
        "restart": _rule(fixed.get("restart")),
        "resumable": fixed.get("resumable", False),
        "max_duration": None if max_duration_us is None else timedelta(microseconds=max_duration_us),
        "restart_count": whole(changing.get("restart_count", 0)),
        "restart_row": whole(changing.get("restart_row", 0)),
        "last_restart": _last_restart(changing.get("last_restart")),
        "not_before_time": instant_or_none(changing.get("not_before_time_us")),
        "moving": decoded_failure(changing.get("moving")),
        "folder": changing.get("folder", ""),
        "ended_attempts": tuple(
            EndedAttempt(attempt=whole(attempt), device_id=DeviceId(device_id), folder=folder)
            for attempt, device_id, folder in changing.get("ended_attempts", ())
        ),
        "ran_for": timedelta(microseconds=changing.get("ran_for_us", 0)),
    }


def _rule(stored: list[Any] | None) -> RestartRule:
    if stored is None:
        return NO_RESTART
    mode, max_restarts, first_us, longest_us, reasons = stored
    return RestartRule(
        mode=RestartMode(mode),
        max_restarts=max_restarts,
        first_backoff=timedelta(microseconds=first_us),
        longest_backoff=timedelta(microseconds=longest_us),
        reasons=PASSING_REASONS if reasons is None else frozenset(reasons),
    )


def _last_restart(stored: list[Any] | None) -> LastRestart | None:
    if stored is None:
        return None
    attempt, device_id, failure, restart_us = stored
    told = decoded_failure(failure)
    assert told is not None, "a restart has a reason"
    return LastRestart(attempt=attempt, device_id=DeviceId(device_id), failure=told, restart_time=instant(restart_us))


def encoded_failure(failure: Failure) -> list[Any]:
    """Writes a failure down."""
    return [failure.reason, failure.message, failure.exit_code, failure.log_tail]


def decoded_failure(stored: list[Any] | None) -> Failure | None:
    """Reads a failure. None: there is none."""
    if stored is None:
        return None
    reason, message, exit_code, log_tail = stored
    return Failure(reason=reason, message=message, exit_code=exit_code, log_tail=tuple(log_tail))


def whole(stored: object) -> int:
    """Reads a whole number.

    Raises:
        TypeError: It is something else.
    """
    if type(stored) is not int:
        raise TypeError(f"{stored!r} is no whole number")
    return stored


def microseconds(time: datetime) -> int:
    """Counts the microseconds of an instant since 1970."""
    return (time - _EPOCH) // MICROSECOND


def instant(told_us: int) -> datetime:
    """Gives the instant of so many microseconds since 1970."""
    return _EPOCH + timedelta(microseconds=told_us)


def instant_or_none(told_us: int | None) -> datetime | None:
    """Does as `instant`, also where there is none."""
    return None if told_us is None else instant(told_us)
