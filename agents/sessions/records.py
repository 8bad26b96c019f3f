"""What an attempt's folder holds as JSON: how it was launched, as a transcode or a recording, and its status.

All carry a version. A folder that a newer agent wrote is left alone and said so, never guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from agents.pipelines.command import FileParts, HlsPresentation, OutputMove
from agents.pipelines.holding import Hold
from agents.pipelines.job import IngestProtocol
from agents.pipelines.recording import RecordingJob
from agents.sessions.attempt import AttemptStatus
from agents.sessions.output_folders import PresentationFolder


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRecord:
    """Everything that is needed to watch an attempt of a transcode, by whichever agent."""

    version: Literal[1] = 1
    argv: tuple[str, ...]
    """Program and arguments, with secrets."""
    env: Mapping[str, str] = field(default_factory=dict)
    output_moves: tuple[OutputMove, ...] = ()
    presentations: tuple[PresentationFolder, ...] = ()
    """Where it writes HLS outside of its artifacts."""
    secrets: tuple[str, ...] = ()
    """What must not be shown of argv and log."""
    has_video: bool
    """Whether the first video frame shows that it runs; else the first sound does."""
    first_frame_timeout: timedelta
    """For an ingest: how long to await the publisher."""
    max_duration: timedelta | None = None
    """Of running. None: no bound."""
    total_time: timedelta | None = None
    """Media time to be done. None: unknown."""
    input_name: str | None = None
    """The input as it stands in argv. None: an ingest."""
    ingest_protocol: IngestProtocol | None = None
    ingest_port: int | None = None
    traceparent: str = ""
    hold: Hold | None = None
    """How its program can be held at a speed. None: not at all."""
    real_time: bool = False
    """Whether it is to keep up with real time."""
    frame_rate: float | None = None
    """Frames per second of its first video. None: not known."""
    hls_folders: tuple[str, ...] = ()
    """Absolute paths of its HLS presentations."""
    leaves_artifacts: bool = True
    """Whether it writes files into its folder, besides its log."""
    pushes: bool = False
    """Whether an output is pushed to a server."""
    urgent: bool = False
    """Whether it is LIVE, and so goes after all others when disks run full."""
    playlists: tuple[HlsPresentation, ...] = ()
    """Of live HLS: to be ended, and joined with earlier ones."""
    files: tuple[FileParts, ...] = ()
    """To be joined with what earlier attempts have made."""
    may_continue: bool = False
    """Whether another attempt may go on with what this one has made, should it fail."""
    fences: str = ""
    """Generation of the host's fences when it was launched. Empty: there were none."""

    @property
    def every_move(self) -> tuple[OutputMove, ...]:
        """Its moves, and those of its parts of files that are joined first."""
        own = [replace(file.move, part_path=file.own_path) for file in self.files if file.move is not None]
        return (*self.output_moves, *own)


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRecord:
    """Everything that is needed to direct a recording, by whichever agent."""

    kind: Literal["recording"] = "recording"
    version: Literal[1] = 1
    job: RecordingJob
    """With secrets."""
    output_moves: tuple[OutputMove, ...] = ()
    presentations: tuple[PresentationFolder, ...] = ()
    """Where it writes HLS outside of its artifacts."""
    secrets: tuple[str, ...] = ()
    """What must not be shown of logs."""
    max_duration: timedelta | None = None
    """Of what is recorded. None: no bound."""
    traceparent: str = ""
    urgent: bool = True
    """As of a transcode. What a recording misses is gone, so it is LIVE unless the balancer says otherwise."""
    fences: str = ""
    """Generation of the host's fences when it was launched. Empty: there were none."""
    playlists: tuple[HlsPresentation, ...] = ()
    """Of its HLS: to be ended, and joined with earlier ones."""
    may_continue: bool = False
    """Whether another attempt may go on with what this one has made, should it fail."""

    @property
    def every_move(self) -> tuple[OutputMove, ...]:
        """Its moves."""
        return self.output_moves


AnyRecord = LaunchRecord | RecordingRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord:
    """A status as it is kept."""

    version: Literal[1] = 1
    status: AttemptStatus


class RecordUnreadableError(Exception):
    """A folder's record is damaged, or was written by a newer agent."""


_MAX_EVENT_NUMBER = 10**18
"""Below the 64 bits in which numbers travel, with room to go on."""
_LAUNCH: TypeAdapter[LaunchRecord] = TypeAdapter(LaunchRecord)
_RECORDING: TypeAdapter[RecordingRecord] = TypeAdapter(RecordingRecord)
_IS_RECORDING = re.compile(rb'\s*\{\s*"kind":\s*"recording"')
"""A transcode's record has no kind: there were no others when it was made."""
_STATUS = TypeAdapter(StatusRecord)


def dump_launch(record: AnyRecord) -> bytes:
    """Writes a launch record as JSON."""
    if isinstance(record, RecordingRecord):
        return _RECORDING.dump_json(record, indent=1)
    return _LAUNCH.dump_json(record, indent=1)


def load_launch(content: bytes) -> AnyRecord:
    """Reads a launch record.

    Raises:
        RecordUnreadableError: When it is none of this version.
    """
    try:
        if _IS_RECORDING.match(content):
            return _RECORDING.validate_json(content)
        return _LAUNCH.validate_json(content)
    except ValidationError as error:
        raise RecordUnreadableError(f"Cannot read a launch record: {error.errors()[0]['msg']}.") from error


def dump_status(status: AttemptStatus) -> bytes:
    """Writes a status as JSON."""
    return _STATUS.dump_json(StatusRecord(status=status), indent=1)


def load_status(content: bytes) -> AttemptStatus:
    """Reads a status.

    Raises:
        RecordUnreadableError: When it is none of this version.
    """
    try:
        status = _STATUS.validate_json(content).status
    except ValidationError as error:
        raise RecordUnreadableError(f"Cannot read a status: {error.errors()[0]['msg']}.") from error
    times = (status.launch_time, status.running_time, status.end_time, status.signal_time)
    if any(time is not None and time.tzinfo is None for time in times):
        raise RecordUnreadableError("Cannot read a status: a time lacks its zone.")
    if not 0 <= status.event_number <= _MAX_EVENT_NUMBER:
        raise RecordUnreadableError("Cannot read a status: its event number is out of range.")
    return status
