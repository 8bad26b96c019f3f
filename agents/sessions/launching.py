"""From a launch order to what is written into the attempt's folder. Decides nothing about devices; starts nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.command_builder import build_command
from agents.pipelines.holding import hold_of, keeps_real_time
from agents.pipelines.job import CaptureInput, HlsOutput, IngestInput, Job, PushOutput, UriInput, VideoEncoding
from agents.pipelines.pipeline_error import PipelineError
from agents.sessions.joining import resolved
from agents.sessions.records import LaunchRecord
from agents.sessions.refusals import pipeline_refusal
from gpu_balancer.runtime.failures import Violation, invalid

if TYPE_CHECKING:
    from pathlib import Path

    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.command import Command
    from agents.sessions.attempt import AttemptKey
    from agents.sessions.continuation import EarlierAttempt
    from agents.sessions.folder import AttemptFolder, SessionFolders
    from agents.sessions.ingest import IngestPoint


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOrder:
    """What is to be run."""

    job: Job
    plan: bytes
    """The plan as it was received, kept for people."""
    max_duration: timedelta | None = None
    """Of running. None: no bound."""
    traceparent: str = ""
    """W3C trace context of the session's trace. Empty: not traced."""
    speed_limit: float | None = None
    """The speed at which it begins, in times real time, above 0. None: as fast as it goes."""
    urgent: bool = False
    """Whether it is LIVE."""
    continues: tuple[EarlierAttempt, ...] = ()
    """Whose outputs it goes on with."""
    may_continue: bool = False
    """Whether another attempt may go on with what it makes, should it fail."""


def named_folder(folders: SessionFolders, key: AttemptKey) -> AttemptFolder:
    """Gives the folder of an attempt, which need not exist.

    Raises:
        RequestFailure: When the session's id cannot be one.
    """
    try:
        return folders.of(key)
    except ValueError:
        description = f"{key.session!r} must be letters, digits, '-' and '_', at most 63."
        raise invalid(Violation(field="id.session", description=description)) from None


def plan_command(job: Job, device: PipelineDevice, folder: AttemptFolder, ingest_url: str | None) -> Command:
    """Builds a job's command for its folder.

    Args:
        job: What is to be done.
        device: What it runs on.
        folder: Where it will run; need not exist.
        ingest_url: Where its publisher comes, for an ingest.

    Raises:
        RequestFailure: When the device, or any device, cannot do it.
    """
    try:
        return build_command(
            job,
            device,
            artifacts_dir=str(folder.artifacts),
            progress_path=str(folder.progress),
            ingest_url=ingest_url,
        )
    except PipelineError as error:
        raise pipeline_refusal(error, where="session.transcode") from error


def make_record(
    order: LaunchOrder, command: Command, point: IngestPoint | None, *, first_frame_timeout: timedelta
) -> LaunchRecord:
    """Makes what is kept of a launch.

    Args:
        order: What is to be run.
        command: Its command.
        point: Where its publisher comes, for an ingest.
        first_frame_timeout: How long the first frame may take; an ingest has its own.
    """
    source = order.job.input
    return LaunchRecord(
        argv=command.argv,
        env=dict(command.env),
        output_moves=command.output_moves,
        secrets=command.secrets,
        has_video=any(rendition.video is not None for rendition in order.job.renditions),
        first_frame_timeout=source.publisher_timeout if isinstance(source, IngestInput) else first_frame_timeout,
        max_duration=order.max_duration,
        total_time=total_time(order.job),
        input_name=source.uri if isinstance(source, UriInput) else None,
        ingest_protocol=None if point is None else point.protocol,
        ingest_port=None if point is None else point.port,
        traceparent=order.traceparent,
        hold=hold_of(order.job),
        real_time=order.urgent or keeps_real_time(order.job),
        frame_rate=_frame_rate(order.job),
        leaves_artifacts=leaves_artifacts(order.job),
        pushes=any(isinstance(output, PushOutput) for output in order.job.outputs),
        urgent=order.urgent,
        playlists=command.presentations,
        files=resolved(command.files, command.output_moves),
        may_continue=order.may_continue,
    )


def _frame_rate(job: Job) -> float | None:
    """Tells how many frames per second the program counts: those of its first video."""
    videos = (rendition.video for rendition in job.renditions if rendition.video is not None)
    asked = next((video.frame_rate for video in videos if isinstance(video, VideoEncoding)), None)
    rate = asked or job.facts.frame_rate
    return None if rate is None else rate.numerator / rate.denominator


def hls_folders(job: Job, artifacts: Path) -> tuple[str, ...]:
    """Gives the absolute paths of a job's HLS presentations."""
    return tuple(str(artifacts / output.path) for output in job.outputs if isinstance(output, HlsOutput))


def leaves_artifacts(job: Job) -> bool:
    """Tells whether a job writes files into its attempt's folder."""
    written = (output for output in job.outputs if not isinstance(output, PushOutput))
    return any(not output.path.startswith("/") for output in written)


def total_time(job: Job) -> timedelta | None:
    """Tells the media time that a job will take. None: unknown, or without end."""
    source = job.input
    if isinstance(source, CaptureInput):
        return None
    if isinstance(source, IngestInput):
        return source.duration
    return _uri_time(source, job.facts.duration)


def _uri_time(source: UriInput, length: timedelta | None) -> timedelta | None:
    if source.repeat_forever:
        return source.duration
    if length is None:
        return source.duration
    available = max(length * (1 + source.repeat_count) - (source.start_offset or timedelta()), timedelta())
    return available if source.duration is None else min(source.duration, available)
