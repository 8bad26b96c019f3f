"""What can happen to a session, and what is to be done then: the words that `lifecycle` speaks in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction

from balancer.domain.decision import Reservation
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import Condition, Failure, MeasuredUse, Progress, QueueStanding


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
class Placed:
    """A device took the session; its reservation is booked."""

    reservation: Reservation


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
    device_id: DeviceId | None = None
    """Whose agent told it; an attempt that moved on may live on another device. None: the session's device."""
    measured_use: MeasuredUse | None = None
    recording_report: bytes | None = None
    """As in the session's record."""
    folder: str = ""
    """Of the attempt, on its agent's host. Empty: not told."""


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

    failure: Failure | None = None
    """Why, where it was not the session's client who asked. None: it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amended:
    """The client changed something of what it had asked for, which its agent was told already."""

    payload: bytes
    """The whole of it, as in the session's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopForgotten:
    """The agent may not know any more that it was asked to end the attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopHeard:
    """The agent was asked to end an attempt. Of one that had ended already, it has completed what that left open."""

    attempt: int
    report: AttemptReported | None = None
    """Where the attempt stands then. None: it did not tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSilent:
    """The agent of the session's device does not answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHeard:
    """The agent answers again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLost:
    """The agent of the session's device has been silent for so long that it is not waited for any more."""

    device_id: DeviceId
    silence: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveRequested:
    """The session is to go on elsewhere: its device is sick, or is being emptied."""

    device_id: DeviceId
    """The device that it is to leave; a session that is not there, or not any more, stays where it is."""
    failure: Failure
    """Why. By the reason DEVICE_DRAINED an operator asks for it, which needs no rule; else the session's rule must let
    it restart for that reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomKept:
    """Room is being made for a session that waits; it is booked already, over what still runs there."""

    reservation: Reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomLost:
    """The device on which room was being made takes no sessions any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitEnded:
    """The session has waited for as long as it may, or nothing can take it any more."""

    deadline: datetime | None
    """What ended this wait, so that it ends no later one. None: it had none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """The session's standing in the queue."""

    standing: QueueStanding


@dataclass(frozen=True, slots=True, kw_only=True)
class Preempted:
    """Work in real time needs the room of the session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Paced:
    """How fast the session may run has changed."""

    speed_limit: Fraction | None
    """In times real time. None: as fast as it goes."""


SessionEvent = (
    Placed
    | RoomKept
    | RoomLost
    | WaitEnded
    | Ranked
    | Preempted
    | Paced
    | AttemptReported
    | LaunchAccepted
    | LaunchRefused
    | AttemptMissing
    | StopRequested
    | Amended
    | StopForgotten
    | StopHeard
    | AgentSilent
    | AgentHeard
    | AgentLost
    | MoveRequested
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
    discard_outputs: bool = False
    """Whether what it made is thrown away, because another attempt begins anew."""
    to_be_continued: bool = False
    """Whether another attempt goes on with what it made, so that players are not told of an end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaceOnAgent:
    """Hold the attempt on its device's agent at the speed that its session has now. Idempotent there."""

    session_id: SessionId
    device_id: DeviceId
    attempt: int


Command = LaunchOnAgent | StopOnAgent | PaceOnAgent
