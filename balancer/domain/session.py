"""A session as the balancer keeps it.

The client's own words travel in `payload`, opaque to the domain: what placement and lifecycle need is beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction

from balancer.domain.decision import Reservation
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.restart import NO_RESTART, RestartMode, RestartRule
from balancer.domain.workload import Workload


class SessionState(StrEnum):
    """Where a session stands. The last three are final."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing can change any more."""
        return self in (SessionState.SUCCEEDED, SessionState.FAILED, SessionState.CANCELLED)


PLACED = frozenset({SessionState.STARTING, SessionState.RUNNING, SessionState.STOPPING})
"""States in which an attempt may live."""


class Priority(StrEnum):
    """What matters more when both cannot be had."""

    LIVE = "live"
    BATCH = "batch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something true of a session besides its state."""

    type: str
    message: str
    since_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a session has come."""

    frames: int = 0
    frames_per_second: float = 0.0
    speed: float | None = None
    duplicated_frames: int = 0
    dropped_frames: int = 0
    out_time: timedelta = timedelta()
    written_bytes: int = 0
    total_time: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a session failed."""

    reason: str
    message: str
    exit_code: int | None = None
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredUse:
    """What all processes of a session were seen to take of their host."""

    cores: int
    """Processor time, in millionths of one core."""
    memory_mib: int
    measured_time: timedelta
    """Over which it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStanding:
    """Where a session stands that waits for a device."""

    position: int
    """From 1."""
    estimated_wait: timedelta | None
    """How long it may still take. None: unknown."""
    message: str
    """What it waits for, as a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedAttempt:
    """An attempt whose outputs the next one continues."""

    attempt: int
    device_id: DeviceId
    folder: str
    """On its agent's host. Empty: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """A session has ended but for what its attempts left open for a further one, which an agent still completes."""

    state: SessionState
    """How it will have ended."""
    attempt: int
    """Whose agent is asked. Not the present attempt where that was never begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRestart:
    """The last time that a session began anew by itself, or was moved."""

    attempt: int
    """The one that ended."""
    device_id: DeviceId
    failure: Failure
    restart_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """Everything the balancer knows of a session."""

    id: SessionId
    state: SessionState
    payload: bytes
    """The client's session, serialized `gpu_balancer.v1.Session` with profile, defaults and input facts filled in."""
    priority: Priority
    workload: Workload
    create_time: datetime
    labels: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None
    request_digest: str | None = None
    """Hash of the request as it came, to tell a retry from another request with the same id."""
    device_id: DeviceId | None = None
    attempt: int = 0
    """Number of the present placement, from 1. 0: never placed."""
    reservation: Reservation | None = None
    """None: nothing is booked. Of a queued session: room that is being made for it."""
    conditions: tuple[Condition, ...] = ()
    progress: Progress | None = None
    failure: Failure | None = None
    ingest_url: str | None = None
    running_time: datetime | None = None
    end_time: datetime | None = None
    stop_requested: bool = False
    preemptible: bool = False
    """Whether it may be stopped and queued again for the sake of LIVE work."""
    requeue: bool = False
    """Whether it is being stopped to be queued again."""
    preemption_count: int = 0
    retry_count: int = 0
    """Attempts that a device could not begin, so that another one was tried."""
    avoided_device_ids: tuple[DeviceId, ...] = ()
    """Where that was."""
    earlier_device_ids: tuple[DeviceId, ...] = ()
    """Devices of earlier attempts, whose agents may keep something of them."""
    queued_time: datetime | None = None
    """When it began to wait, the last time it did. None: it never waited."""
    queue_deadline: datetime | None = None
    """When it is given up if it waits then. None: never."""
    standing: QueueStanding | None = None
    """Not stored: it is true again a second later."""
    speed_limit: Fraction | None = None
    """The speed at which it is held, in times real time. None: as fast as it goes. Not stored."""
    restart: RestartRule = NO_RESTART
    """What becomes of it when an attempt ends short of its work."""
    resumable: bool = False
    """Whether a further attempt continues what an earlier one made, as with a live input; else it begins anew."""
    max_duration: timedelta | None = None
    """Of running, all attempts together. None: no bound."""
    restart_count: int = 0
    """Restarts and moves in all."""
    restart_row: int = 0
    """Restarts in a row."""
    last_restart: LastRestart | None = None
    not_before_time: datetime | None = None
    """When a session that failed has rested for long enough. None: it need not."""
    moving: Failure | None = None
    """Why it is being stopped to go on as another attempt elsewhere. None: it is not."""
    settling: Settling | None = None
    """What is awaited before it ends; it is STOPPING until then. None: it has not come to that."""
    folder: str = ""
    """Of the present attempt, as its agent told it. Empty: not known."""
    ended_attempts: tuple[EndedAttempt, ...] = ()
    """Those that the present attempt continues, oldest first."""
    ran_for: timedelta = timedelta()
    """How long earlier attempts ran that it continues."""
    measured_use: MeasuredUse | None = None
    """What it was seen to take of its host, which is booked since then. None: it was not measured."""
    recording_report: bytes | None = None
    """What has become of a recording, serialized `gpu_balancer.v1.RecordingReport`, opaque as the payload. Stored with
    other changes: what is in it of progress is true again a second later. None: nothing was told."""
    revision: int = 1
    traceparent: str | None = None

    @property
    def may_continue(self) -> bool:
        """Whether a further attempt may go on with what the present one leaves, should that fail or be moved."""
        return self.resumable and self.restart.mode is not RestartMode.NEVER
