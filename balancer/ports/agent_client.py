"""How the balancer speaks to the agent of one device.

Requests that the agent refuses raise `RequestFailure` with the agent's own reason; an agent that does not answer
raises `AgentUnreachableError`. Everything that changes something is idempotent on the agent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Protocol

from balancer.domain.calibration import Calibration, CalibrationProgress
from balancer.domain.device import Capability, DeviceIdentity, RecordingAbility, SoundTiming
from balancer.domain.health import DeviceHealth
from balancer.domain.ids import SessionId
from balancer.domain.session import SessionRecord
from balancer.domain.session_events import AttemptReported


class AgentUnreachableError(Exception):
    """The agent did not answer. The message says which and how long it was tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FfmpegBuild:
    """An ffmpeg program of an agent."""

    path: str
    version: str
    candidate: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentReport:
    """What an agent is and what its device can do."""

    incarnation: str
    version: str
    process_id: int
    identity: DeviceIdentity
    ffmpeg_builds: tuple[FfmpegBuild, ...]
    capabilities: tuple[Capability, ...]
    probed: bool
    fault_message: str
    last_event_number: int
    recording: RecordingAbility | None = None
    """What it records. None: it has not found out yet."""
    ready_display_count: int = 0
    """Displays that stand ready, unused."""
    health: DeviceHealth | None = None
    """How well its device is. None: it is not watched, as cores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What was measured on a device lately. None: unknown or unsupported."""

    encoder_utilization_percent: int | None = None
    decoder_utilization_percent: int | None = None
    compute_utilization_percent: int | None = None
    memory_used_mib: int | None = None
    encoder_sessions: int | None = None
    temperature_celsius: int | None = None
    measure_time: datetime | None = None
    foreign_encoder_sessions: int | None = None
    """Of processes that are not the agent's own, like the figures that follow."""
    foreign_encoder_utilization_percent: int | None = None
    foreign_decoder_utilization_percent: int | None = None
    foreign_memory_used_mib: int | None = None
    foreign_compute_utilization_percent: int | None = None
    """Of the cores of a CPU device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent:
    """An attempt's status."""

    session_id: SessionId
    report: AttemptReported


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """All kept events were given."""

    live_attempts: Mapping[SessionId, int]
    """Every attempt that has not ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """One event of an agent."""

    number: int
    """0: not kept by the agent (progress, measurements, news of the agent)."""
    body: AttemptEvent | Measurements | AgentReport | CaughtUp


class AgentClient(Protocol):
    """Speaks to one agent."""

    async def describe(self) -> AgentReport:
        """Asks what the agent and its device are."""
        ...

    async def launch(self, record: SessionRecord) -> str | None:
        """Starts the record's present attempt.

        Returns:
            Where to publish, for an ingest, else None.
        """
        ...

    async def stop(
        self, session_id: SessionId, attempt: int, *, discard_outputs: bool = False, to_be_continued: bool = False
    ) -> AttemptReported | None:
        """Asks an attempt to end.

        Args:
            session_id: Of which session.
            attempt: Which one.
            discard_outputs: Whether what it made is thrown away, because another attempt begins anew.
            to_be_continued: Whether another attempt goes on with what it made.

        Returns:
            Where it stands then, which the stream of events may tell later. None: the agent does not tell.
        """
        ...

    async def pace(self, session_id: SessionId, attempt: int, speed_limit: Fraction | None) -> None:
        """Holds an attempt at a speed, in times real time. None: lets it run freely. An ended one is left alone."""
        ...

    async def delete(self, session_id: SessionId) -> None:
        """Removes what an ended session left."""
        ...

    def events(self, after: int) -> AsyncIterator[AgentEvent]:
        """Streams events after a cursor; ends by AgentUnreachableError only."""
        ...

    async def probe(self, *, by_operator: bool = False) -> AgentReport:
        """Runs the golden probe again.

        Args:
            by_operator: Whether an operator asked for it: only then a lost device comes back.
        """
        ...

    def calibrate(self, *, sound: bool = False) -> AsyncIterator[CalibrationProgress | Calibration | SoundTiming]:
        """Measures how much the device carries; tells how far that is and last what came of it. Closing it ends it.

        Args:
            sound: Measures how far sound and picture are apart in recordings of pages instead. The agent keeps that,
                and records by it; what comes last is a `SoundTiming`.
        """
        ...

    async def shutdown(self) -> None:
        """Ends the agent; refused while it has live sessions."""
        ...

    async def close(self) -> None:
        """Gives the connection back."""
        ...
