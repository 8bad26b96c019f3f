"""An attempt of a session as values: which one, where it stands, how it ended, and what is kept of both on disk.

The status is the whole truth about an attempt and travels as one event; there are no partial updates that could be
lost or come in the wrong order.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agents.pipelines.progress import Progress
from agents.pipelines.recording_report import MeasuredUse, RecordingReport


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class AttemptKey:
    """Names an attempt."""

    session: str
    """The session's id, without "sessions/"."""
    attempt: int
    """From 1."""

    def __str__(self) -> str:
        return f"attempt {self.attempt} of sessions/{self.session}"


class Phase(StrEnum):
    """Where an attempt stands."""

    STARTING = "starting"
    """Its folder exists; the program has not written a frame."""
    RUNNING = "running"
    """The first frame was written."""
    ENDED = "ended"
    """Its processes are known to be gone."""


class Ending(StrEnum):
    """How an attempt ended."""

    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


class StopCause(StrEnum):
    """Why a running program is being ended."""

    ASKED = "asked"
    MAX_DURATION = "max_duration"
    NO_PUBLISHER = "no_publisher"
    WRONG_STREAM_KEY = "wrong_stream_key"
    NO_FIRST_FRAME = "no_first_frame"
    SHIM_LOST = "shim_lost"
    STALLED = "stalled"
    OUTPUT_STALLED = "output_stalled"
    DISK_LOW = "disk_low"
    DISK_FULL = "disk_full"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Something true of an attempt besides its phase."""

    type: str
    """"AWAITING_PUBLISHER", "STALLED", "DEGRADED", or for a recording "AWAITING_DISPLAY", "AWAITING_GATE", "PAUSED" or
    "FINALISING"."""
    message: str
    since_time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt failed."""

    reason: str
    message: str
    exit_code: int | None = None
    """None: the program never ran, or its end was not seen. 128 + signal when a signal ended it."""
    log_tail: tuple[str, ...] = ()
    """The last lines of the log, secrets redacted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStatus:
    """The whole truth about an attempt."""

    key: AttemptKey
    event_number: int = 0
    """Number under which it was told last. 0: not yet."""
    phase: Phase = Phase.STARTING
    ending: Ending | None = None
    failure: Failure | None = None
    progress: Progress | None = None
    conditions: tuple[Condition, ...] = ()
    ingest_url: str | None = None
    """Where to publish, for an ingest; holds a secret."""
    folder: str = ""
    """Path of its folder. Empty: it never came here."""
    launch_time: datetime | None = None
    """When its folder was made. None: it never came here."""
    running_time: datetime | None = None
    end_time: datetime | None = None
    stop_cause: StopCause | None = None
    """Set as soon as the program is to be ended."""
    signal_time: datetime | None = None
    """When the program was signalled; it is never signalled twice."""
    discard_outputs: bool = False
    """Whether what it made is thrown away at its end, because another attempt begins anew."""
    to_be_continued: bool = False
    """Whether it was stopped so that another attempt goes on with what it made."""
    recording_report: RecordingReport | None = None
    measured_use: MeasuredUse | None = None

    @property
    def live(self) -> bool:
        """Whether it has not ended."""
        return self.phase is not Phase.ENDED
