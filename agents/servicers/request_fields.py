"""Names and fields of requests: taking ids out of resource names, and collecting what is wrong with a request."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from agents.sessions.continuation import EarlierAttempt
from gpu_balancer.runtime.failures import Violation, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sized

    from gpu_balancer.v1 import agent_service_pb2 as pb

Value = TypeVar("Value")

_SESSION = re.compile(r"sessions/([A-Za-z0-9][A-Za-z0-9_-]{0,62})")


@dataclass(slots=True)
class Mistakes:
    """Collects what is wrong with a request, so that its sender learns all of it at once."""

    found: list[Violation] = field(default_factory=list)

    def add(self, path: str, description: str) -> None:
        """Notes that a field is wrong."""
        self.found.append(Violation(field=path, description=description))

    def check_count(self, path: str, items: Sized, most: int) -> None:
        """Notes a list that is too long; nothing else should then be done with it."""
        if len(items) > most:
            self.add(path, f"must be at most {most}, not {len(items):,}.")

    def choose(self, known: Mapping[int, Value], number: int, path: str) -> Value | None:
        """Looks an enum's value up; a number that this version does not know is a mistake."""
        if number not in known:
            self.add(path, f"{number} is not known to this agent. Try a value of the contract.")
        return known.get(number)

    def refuse(self) -> None:
        """Raises the failure of everything that was noted; does nothing when that is nothing.

        Raises:
            RequestFailure: INVALID_REQUEST.
        """
        if self.found:
            raise invalid(*self.found)


def session_id(name: str, *, path: str) -> str:
    """Takes the id out of "sessions/{id}".

    Args:
        name: The session's name.
        path: Where it stands in the request.

    Raises:
        RequestFailure: When it is no such name.
    """
    match = _SESSION.fullmatch(name)
    if match is None:
        raise invalid(Violation(field=path, description=f'{name!r} is no session. Try "sessions/" and its id.'))
    return match[1]


def artifact_name(name: str) -> tuple[str, str]:
    """Takes session id and path out of "sessions/{id}/artifacts/{path}".

    Raises:
        RequestFailure: When it is no such name.
    """
    session, slash, path = name.partition("/artifacts/")
    if not slash:
        description = f'{name!r} is no artifact. Try "sessions/{{id}}/artifacts/{{path}}".'
        raise invalid(Violation(field="name", description=description))
    return session_id(session, path="name"), path


def earlier_attempts(plan: pb.LaunchPlan) -> tuple[EarlierAttempt, ...]:
    """Reads which attempts a launch goes on with."""
    return tuple(EarlierAttempt(attempt=one.attempt, folder=one.folder) for one in plan.continues)


def speed_limit(message: pb.LaunchPlan | pb.PaceSessionRequest, *, path: str) -> float | None:
    """Reads the speed at which a program is held, in times real time. None: it is not held.

    Args:
        message: What has it.
        path: Where it stands in the request.

    Raises:
        RequestFailure: When it is no speed.
    """
    if not message.HasField("speed_limit"):
        return None
    limit = message.speed_limit
    if not (math.isfinite(limit) and limit > 0):
        raise invalid(Violation(field=path, description=f"must be a number above 0, not {limit:g}."))
    return limit
