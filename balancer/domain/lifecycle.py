"""The life of a session as a pure, total function: `advance(record, event, now) -> (record, commands)`.

Every state × event cell is filled, because late and duplicate events are normal. Final states never change.
RUNNING means evidence: the agent reported the first encoded frame. A reservation is released only when the processes
are known to be gone, or known never to have been.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import Condition, Failure, Progress


class AttemptPhase(StrEnum):
    """Where an attempt stands on its agent."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


class AttemptOutcome(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReported:
    """The agent told the whole truth about an attempt."""

    attempt: int
    phase: AttemptPhase
    outcome: AttemptOutcome | None = None
    failure: Failure | None = None
    progress: Progress | None = None
    conditions: tuple[Condition, ...] = ()
    ingest_url: str | None = None
    running_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchAccepted:
    """The agent took the attempt."""

    attempt: int
    ingest_url: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRefused:
    """The agent answered that it will not run the attempt; nothing was started."""

    attempt: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptMissing:
    """The agent does not know the attempt although it was launched, and nothing of it runs."""

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    """A client or the operator asked for the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSilent:
    """The agent of the session's device does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHeard:
    """The agent answers again."""


SessionEvent = (
    AttemptReported | LaunchAccepted | LaunchRefused | AttemptMissing | StopRequested | AgentSilent | AgentHeard
)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOnAgent:
    """Start the attempt on its device's agent. Idempotent there."""

    session_id: SessionId
    device_id: DeviceId
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOnAgent:
    """End the attempt on its device's agent. Idempotent there."""

    session_id: SessionId
    device_id: DeviceId
    attempt: int


Command = LaunchOnAgent | StopOnAgent
