"""Launches recordings: writes their folders. Everything else is their directors' work.

So the launch of a recording is quick and can hardly fail, and whoever asked for it learns of displays, pages and gates
by its conditions.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.pipelines.recording import PageSource
from agents.pipelines.recording_files import file_places
from agents.recordings.earlier_state import state_before
from agents.recordings.state import RecordingState, state_file, write_state
from agents.recordings.thumbnails import last_thumbnail
from agents.sessions.attempt import AttemptKey, AttemptStatus
from agents.sessions.continuation import EarlierAttempt, folders_of, take_over
from agents.sessions.launching import named_folder
from agents.sessions.live_playlists import keep_earlier
from agents.sessions.output_folders import (
    look_up_folders,
    look_up_presentations,
    make_presentation_folders,
    make_private_folders,
    outside_of,
)
from agents.sessions.records import RecordingRecord, dump_launch, dump_status
from agents.sessions.refusals import folder_refusal
from agents.sessions.running import Launched
from agents.sessions.session_trace import SessionTrace
from agents.sessions.status_book import Attempt
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.runtime.redaction import url_secrets

if TYPE_CHECKING:
    from datetime import timedelta

    from opentelemetry.trace import Tracer

    from agents.pipelines.command import Command
    from agents.pipelines.recording import RecordingJob
    from agents.recordings.shooting import Shooting
    from agents.sessions.fence import Fences
    from agents.sessions.folder import AttemptFolder, SessionFolders
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_LEAST_SECRET = 4
"""Characters. To hide shorter ones would leave nothing of a log, and a value like that keeps no secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingOrder:
    """What is to be recorded."""

    job: RecordingJob
    """Guarded: its watermark's links are followed."""
    plan: bytes
    """The plan as it was received, kept for people."""
    max_duration: timedelta | None = None
    """Of what is recorded. None: no bound."""
    traceparent: str = ""
    """W3C trace context of the session's trace. Empty: not traced."""
    urgent: bool = True
    """Whether it is LIVE."""
    continues: tuple[EarlierAttempt, ...] = ()
    """Whose outputs it goes on with."""
    may_continue: bool = False
    """Whether another attempt may go on with what it makes, should it fail."""


class RecordingLauncher:
    """Launches recordings on one device."""

    def __init__(
        self,
        folders: SessionFolders,
        shooting: Shooting,
        *,
        fences: Fences,
        tracer: Tracer,
        clock: Clock,
        output_roots: tuple[str, ...],
    ) -> None:
        """Makes a launcher.

        Args:
            folders: Where attempts live.
            shooting: Makes commands.
            fences: Of this host.
            tracer: Makes spans.
            clock: For times.
            output_roots: Folders under which outputs with absolute paths may be written.
        """
        self._folders = folders
        self._shooting = shooting
        self._fences = fences
        self._tracer = tracer
        self._clock = clock
        self._output_roots = output_roots

    async def launch(self, key: AttemptKey, order: RecordingOrder) -> Launched:
        """Writes down that a recording is to be made.

        Args:
            key: Which attempt.
            order: What is to be recorded.

        Raises:
            RequestFailure: When the device cannot do it, or its folder cannot be written; nothing of it is left then.
        """
        folder = named_folder(self._folders, key)
        command = await asyncio.to_thread(self._shooting.planned, order.job, folder.artifacts)
        attempt = Attempt(folder, AttemptStatus(key=key, folder=str(folder.path), launch_time=self._clock.now()))
        trace = SessionTrace(self._tracer, order.traceparent, key)
        with (
            trace.launching(),
            await asyncio.to_thread(self._fences.take, key, folder.path, folders_of(order.continues)),
        ):
            try:
                record = await asyncio.to_thread(self._write_folders, attempt, order, command)
            except RequestFailure:
                await asyncio.to_thread(self._folders.remove_attempt, folder)
                raise
            except OSError as error:
                await asyncio.to_thread(self._folders.remove_attempt, folder)
                raise folder_refusal(key, error) from error
            if order.job.continues:
                await asyncio.to_thread(self._take_over, folder, order, record)
        return Launched(attempt=attempt, record=record, trace=trace)

    def describe(self, order: RecordingOrder) -> Command:
        """Builds the command of the first take, without launching.

        Raises:
            RequestFailure: When the device cannot do it.
        """
        key = AttemptKey(session=order.job.session, attempt=order.job.attempt)
        return self._shooting.planned(order.job, named_folder(self._folders, key).artifacts)

    def _write_folders(self, attempt: Attempt, order: RecordingOrder, command: Command) -> RecordingRecord:
        folder = attempt.folder
        moves = look_up_folders(self._shooting.moves(order.job), self._output_roots)
        outside = outside_of(folder.artifacts, command.directories)
        record = RecordingRecord(
            job=order.job,
            output_moves=moves,
            presentations=look_up_presentations(outside, self._output_roots) if outside else (),
            secrets=secrets_of(order.job),
            max_duration=order.max_duration,
            traceparent=order.traceparent,
            urgent=order.urgent,
            fences=self._fences.generation(),
            playlists=command.presentations,
            may_continue=order.may_continue,
        )
        state = RecordingState(max_duration=order.max_duration)
        files = {
            "plan.binpb": order.plan,
            "launch.json": dump_launch(record),
            "status.json": dump_status(attempt.status),
        }
        folder.create(files | state_file(state))
        job = order.job
        make_presentation_folders(outside, self._output_roots, session=job.session, continued=job.continues)
        make_private_folders(moves)
        return record

    def _take_over(self, folder: AttemptFolder, order: RecordingOrder, record: RecordingRecord) -> None:
        """Takes over what earlier attempts have made. What could not be is left where it is, and said so."""
        try:
            take_over(folder, order.continues, file_places(order.job, artifacts_dir=str(folder.artifacts)))
            before = state_before(folder, order.continues)
            state = RecordingState(
                max_duration=order.max_duration,
                # It rests until somebody resumes its session.
                paused_time=before.paused_time,
                resumed_at=keep_earlier(record.playlists),
                thumbnails_before=last_thumbnail(folder),
                recorded_before=before.recorded(),
            )
            write_state(folder, state)
        except OSError as error:
            _LOG.error("Cannot take over what was made before %s: %s: %s", folder.key, error.strerror, error.filename)


def secrets_of(job: RecordingJob) -> tuple[str, ...]:
    """Gives what must not be shown of a recording, wherever its log or command is; longest first."""
    found = [secret for output in job.outputs for secret in url_secrets(getattr(output, "url", ""))]
    source = job.source
    if isinstance(source, PageSource):
        found += url_secrets(source.url)
        found += [cookie.value for cookie in source.cookies] + list(source.headers.values())
        found += [source.basic_auth.password] if source.basic_auth is not None else []
    return tuple(sorted({secret for secret in found if len(secret) >= _LEAST_SECRET}, key=len, reverse=True))
