"""Starts attempts: chooses where their publishers come, writes their folders, spawns their shims.

A launch either leaves a running shim and its folder, or nothing at all.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.job import IngestInput, IngestProtocol
from agents.sessions.attempt import AttemptKey, AttemptStatus, Condition
from agents.sessions.continuation import folders_of, take_over
from agents.sessions.ingest import open_point
from agents.sessions.launching import hls_folders, make_record, named_folder, plan_command
from agents.sessions.live_playlists import keep_earlier
from agents.sessions.output_folders import (
    look_up_folders,
    look_up_presentations,
    make_presentation_folders,
    make_private_folders,
    outside_of,
)
from agents.sessions.output_moves import remove_parts
from agents.sessions.records import dump_launch, dump_status
from agents.sessions.refusals import folder_refusal
from agents.sessions.running import Launched
from agents.sessions.session_trace import SessionTrace
from agents.sessions.spawning import spawn_shim
from agents.sessions.status_book import Attempt
from gpu_balancer.runtime.durable_file import write_durably
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from opentelemetry.trace import Tracer

    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.command import Command, OutputMove
    from agents.sessions.fence import FenceHold, Fences
    from agents.sessions.folder import AttemptFolder, SessionFolders
    from agents.sessions.ingest import IngestPoint
    from agents.sessions.launching import LaunchOrder
    from agents.sessions.output_folders import PresentationFolder
    from agents.sessions.records import LaunchRecord
    from gpu_balancer.runtime.clock import Clock


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """How attempts are launched."""

    ingest_host: str = "127.0.0.1"
    rtmp_ports: range = range(19350, 19450)
    srt_ports: range = range(19450, 19550)
    first_frame_timeout: timedelta = timedelta(seconds=30)
    output_roots: tuple[str, ...] = ()
    """Folders under which outputs with absolute paths may be written."""


class Launcher:
    """Starts attempts on one device."""

    def __init__(
        self,
        folders: SessionFolders,
        *,
        fences: Fences,
        device: Callable[[], PipelineDevice],
        tracer: Tracer,
        clock: Clock,
        settings: LaunchSettings,
    ) -> None:
        """Makes a launcher.

        Args:
            folders: Where attempts live.
            fences: Of this host.
            device: Gives the device as it was proved; raises RequestFailure while that is not known.
            tracer: Makes spans.
            clock: For times.
            settings: How attempts are launched.
        """
        self._folders = folders
        self._fences = fences
        self._device = device
        self._tracer = tracer
        self._clock = clock
        self._settings = settings
        self._claimed_ports: set[int] = set()

    async def launch(self, key: AttemptKey, order: LaunchOrder, *, used_ports: Collection[int]) -> Launched:
        """Starts an attempt.

        Args:
            key: Which one.
            order: What is to be run.
            used_ports: Ingest ports of live attempts.

        Raises:
            RequestFailure: When it cannot be started; then nothing of it is left.
        """
        device, folder = self._device(), self.folder(key)
        with self._claimed_point(order, used_ports) as point:
            command = plan_command(order.job, device, folder, None if point is None else point.url)
            moves = await self._looked_up(key, command)
            command = replace(command, output_moves=moves)
            record = make_record(order, command, point, first_frame_timeout=self._settings.first_frame_timeout)
            record = replace(
                record,
                presentations=await self._presentations(key, folder, command),
                hls_folders=hls_folders(order.job, folder.artifacts),
            )
            attempt = Attempt(folder, self._first_status(key, point))
            trace = SessionTrace(self._tracer, order.traceparent, key)
            with (
                trace.launching(),
                await asyncio.to_thread(self._fences.take, key, folder.path, folders_of(order.continues)) as fence,
            ):
                try:
                    record = replace(record, fences=await asyncio.to_thread(self._fences.generation))
                    await asyncio.to_thread(self._write_folders, attempt, order.plan, record, command.directories)
                except RequestFailure:
                    await asyncio.to_thread(self._folders.remove_attempt, folder)
                    raise
                except OSError as error:
                    await asyncio.to_thread(self._folders.remove_attempt, folder)
                    raise folder_refusal(key, error) from error
                record, shim = await self._begun(order, record, folder, fence, point)
        return Launched(attempt=attempt, record=record, trace=trace, shim=shim, speed_limit=order.speed_limit)

    def describe(self, order: LaunchOrder) -> Command:
        """Builds the command that a launch would run, without launching.

        Raises:
            RequestFailure: When the device cannot do it.
        """
        folder = self.folder(AttemptKey(session=order.job.session, attempt=order.job.attempt))
        with self._claimed_point(order, ()) as point:
            return plan_command(order.job, self._device(), folder, None if point is None else point.url)

    def folder(self, key: AttemptKey) -> AttemptFolder:
        """Gives the folder of an attempt, which need not exist.

        Raises:
            RequestFailure: When the session's id cannot be one.
        """
        return named_folder(self._folders, key)

    async def _looked_up(self, key: AttemptKey, command: Command) -> tuple[OutputMove, ...]:
        if not command.output_moves:
            return ()
        try:
            return await asyncio.to_thread(look_up_folders, command.output_moves, self._settings.output_roots)
        except OSError as error:
            raise folder_refusal(key, error) from error

    async def _presentations(
        self, key: AttemptKey, folder: AttemptFolder, command: Command
    ) -> tuple[PresentationFolder, ...]:
        outside = outside_of(folder.artifacts, command.directories)
        if not outside:
            return ()
        try:
            return await asyncio.to_thread(look_up_presentations, outside, self._settings.output_roots)
        except OSError as error:
            raise folder_refusal(key, error) from error

    def _write_folders(self, attempt: Attempt, plan: bytes, record: LaunchRecord, directories: Sequence[str]) -> None:
        files = {"plan.binpb": plan, "launch.json": dump_launch(record), "status.json": dump_status(attempt.status)}
        attempt.folder.create(files)
        outside = outside_of(attempt.folder.artifacts, directories)
        for path in directories:
            if path not in outside:
                Path(path).mkdir(parents=True, exist_ok=True)
        continued = any(presentation.part is not None for presentation in record.playlists)
        roots = self._settings.output_roots
        make_presentation_folders(outside, roots, session=attempt.key.session, continued=continued)
        make_private_folders(record.output_moves)

    async def _begun(
        self,
        order: LaunchOrder,
        record: LaunchRecord,
        folder: AttemptFolder,
        fence: FenceHold,
        point: IngestPoint | None,
    ) -> tuple[LaunchRecord, int | None]:
        """Starts the program, once it has taken over what there is. Gives its record and its shim.

        No shim: it could not be started, and its attempt ends with what it had taken over by then.

        Raises:
            RequestFailure: When it could not be started, and had nothing to take over.
        """
        try:
            if order.job.continues:
                await asyncio.to_thread(take_over, folder, order.continues, record.files)
                resumed_at = await asyncio.to_thread(keep_earlier, record.playlists)
                job = replace(order.job, resumed_at=resumed_at)
                command = plan_command(job, self._device(), folder, None if point is None else point.url)
                record = replace(record, argv=command.argv)
                await asyncio.to_thread(write_durably, folder.launch, dump_launch(record))
            return record, await _spawned(folder, record, fence)
        except OSError as error:
            if not order.job.continues:
                await asyncio.to_thread(self._folders.remove_attempt, folder)
                raise folder_refusal(folder.key, error) from error
            _LOG.error("Cannot go on with what was made before %s: %s: %s", folder.key, error.strerror, error.filename)
            return record, None

    @contextmanager
    def _claimed_point(self, order: LaunchOrder, used_ports: Collection[int]) -> Iterator[IngestPoint | None]:
        """Chooses an ingest's place and keeps it from other launches until the attempt itself is known to have it."""
        source = order.job.input
        if not isinstance(source, IngestInput):
            yield None
            return
        settings = self._settings
        ports = settings.rtmp_ports if source.protocol is IngestProtocol.RTMP else settings.srt_ports
        point = open_point(source.protocol, settings.ingest_host, ports, {*used_ports, *self._claimed_ports})
        self._claimed_ports.add(point.port)
        try:
            yield point
        finally:
            self._claimed_ports.discard(point.port)

    def _first_status(self, key: AttemptKey, point: IngestPoint | None) -> AttemptStatus:
        now = self._clock.now()
        status = AttemptStatus(key=key, folder=str(self.folder(key).path), launch_time=now)
        if point is None:
            return status
        message = f"Waiting for somebody to publish by {point.protocol.value.upper()}."
        awaiting = Condition(type="AWAITING_PUBLISHER", message=message, since_time=now)
        return replace(status, conditions=(awaiting,), ingest_url=point.url)


async def _spawned(folder: AttemptFolder, record: LaunchRecord, fence: FenceHold) -> int:
    try:
        return spawn_shim(folder, record.argv, record.env, fence=fence.descriptor)
    except OSError:
        await asyncio.to_thread(remove_parts, record.output_moves, only_empty=False)
        raise
