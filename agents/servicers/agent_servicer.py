"""AgentService: translates, asks the registry, the device or the media guards, and translates back. Nothing else."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.command import redacted_argv
from agents.servicers.calibration_translation import calibration_message
from agents.servicers.delivery_translation import delivery_messages
from agents.servicers.job_translation import input_from_proto, job_from_plan, outputs_from_proto
from agents.servicers.recording_controls import RecordingControls
from agents.servicers.recording_translation import ability_message
from agents.servicers.report_translation import (
    artifact_message,
    build_message,
    capability_message,
    event_message,
    facts_message,
    health_message,
    identity_message,
    status_message,
)
from agents.servicers.request_fields import artifact_name, earlier_attempts, session_id, speed_limit
from agents.sessions.artifacts import ArtifactFile, list_artifacts, read_artifact
from agents.sessions.attempt import AttemptKey
from agents.sessions.launching import LaunchOrder, leaves_artifacts
from agents.sessions.logs import follow_log
from gpu_balancer import __version__
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.ids import random_id
from gpu_balancer.runtime.redaction import Redactor
from gpu_balancer.v1 import agent_service_pb2 as pb
from gpu_balancer.v1.agent_service_pb2_grpc import AgentServiceServicer
from gpu_balancer.v1.session_pb2 import PRIORITY_LIVE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from agents.recordings.assembly import Recordings
    from agents.servicers.calibrator import Calibrator
    from agents.servicers.media_guards import MediaGuards
    from agents.servicers.probed_device import ProbedDevice
    from agents.sessions.disk_watch import DiskWatch
    from agents.sessions.launcher import Launcher
    from agents.sessions.registry import SessionRegistry
    from agents.sessions.running import Launched
    from agents.sessions.status_book import StatusBook

_LOG_INTERVAL = timedelta(seconds=0.5)


class AgentServicer(AgentServiceServicer):
    """Answers the balancer."""

    def __init__(  # noqa: PLR0913 - the agent's parts, each by its name
        self,
        device: ProbedDevice,
        registry: SessionRegistry,
        launcher: Launcher,
        book: StatusBook,
        *,
        guards: MediaGuards,
        calibrator: Calibrator,
        recordings: Recordings,
        disk: DiskWatch,
        shut_down: Callable[[], None],
    ) -> None:
        """Makes the servicer of an agent that has just started.

        Args:
            device: The device.
            registry: Its sessions.
            launcher: Tells what would be run.
            book: What was told of sessions.
            guards: What may be read and written.
            calibrator: Measures what the device carries.
            recordings: Displays, browsers and who directs them.
            disk: Tells whether there is room for a session.
            shut_down: Makes the agent end.
        """
        self._device = device
        self._registry = registry
        self._launcher = launcher
        self._book = book
        self._guards = guards
        self._calibrator = calibrator
        self._recordings = recordings
        self._controls = RecordingControls(recordings, registry, guards, disk)
        self._disk = disk
        self._shut_down = shut_down
        self._incarnation = random_id()

    def describe_agent(self) -> pb.Agent:
        """Makes the message of what the agent is now."""
        return pb.Agent(
            incarnation=self._incarnation,
            version=__version__,
            process_id=os.getpid(),
            identity=identity_message(self._device.identity),
            ffmpeg_builds=[build_message(build) for build in self._device.ffmpeg_builds],
            capabilities=[capability_message(capability) for capability in self._device.capabilities],
            probed=self._device.probed,
            fault_message=self._device.fault_message or "",
            last_event_number=self._book.last_number,
            recording=ability_message(self._recordings.ability()),
            health=health_message(self._device.health),
        )

    async def GetAgent(self, _request: pb.GetAgentRequest, _: object) -> pb.GetAgentResponse:  # noqa: N802
        """Tells what the agent and its device are."""
        return pb.GetAgentResponse(agent=self.describe_agent())

    async def ProbeInput(self, request: pb.ProbeInputRequest, _: object) -> pb.ProbeInputResponse:  # noqa: N802
        """Tells what an input is."""
        timeout = request.timeout.ToTimedelta() if request.HasField("timeout") else None
        facts = await self._guards.probe_input(input_from_proto(request.input), timeout)
        return pb.ProbeInputResponse(facts=facts_message(facts))

    async def CheckOutputs(  # noqa: N802
        self, request: pb.CheckOutputsRequest, _: object
    ) -> pb.CheckOutputsResponse:
        """Checks that outputs may be written."""
        await self._guards.check_outputs(outputs_from_proto(request.outputs))
        return pb.CheckOutputsResponse()

    async def DescribeCommand(  # noqa: N802
        self, request: pb.DescribeCommandRequest, _: object
    ) -> pb.DescribeCommandResponse:
        """Tells what would be run."""
        plan = request.plan
        recording = plan.HasField("recording")
        command = self._controls.describe(plan) if recording else self._launcher.describe(_order(plan))
        return pb.DescribeCommandResponse(argv=redacted_argv(command))

    async def LaunchSession(  # noqa: N802
        self, request: pb.LaunchSessionRequest, _: object
    ) -> pb.LaunchSessionResponse:
        """Starts an attempt, once."""
        self._calibrator.refuse_meanwhile(f"launch {request.plan.id.session}")
        if request.plan.HasField("recording"):
            await self._controls.launch(request.plan)
            return pb.LaunchSessionResponse()
        order = _order(request.plan)
        key = AttemptKey(session=order.job.session, attempt=order.job.attempt)

        async def start(used_ports: Collection[int]) -> Launched:
            source = await self._guards.guard_input(order.job.input)
            await self._guards.check_outputs(order.job.outputs, continued=order.job.continues or order.job.attempt > 1)
            await self._disk.require_room(key, leaves_files=leaves_artifacts(order.job))
            guarded = replace(order, job=replace(order.job, input=source))
            return await self._launcher.launch(key, guarded, used_ports=used_ports)

        return pb.LaunchSessionResponse(ingest_url=await self._registry.launch(key, start) or "")

    async def StopSession(  # noqa: N802
        self, request: pb.AgentServiceStopSessionRequest, _: object
    ) -> pb.AgentServiceStopSessionResponse:
        """Asks an attempt to end."""
        session = session_id(request.id.session, path="id.session")
        key = AttemptKey(session=session, attempt=max(request.id.attempt, 1))
        await self._registry.stop(key, discard_outputs=request.discard_outputs, to_be_continued=request.to_be_continued)
        status = self._book.statuses.get(key)
        return pb.AgentServiceStopSessionResponse(attempt=None if status is None else status_message(status))

    async def PaceSession(self, request: pb.PaceSessionRequest, _: object) -> pb.PaceSessionResponse:  # noqa: N802
        """Holds an attempt at a speed, or lets it go."""
        session = session_id(request.id.session, path="id.session")
        limit = speed_limit(request, path="speed_limit")
        await self._registry.pace(AttemptKey(session=session, attempt=max(request.id.attempt, 1)), limit)
        return pb.PaceSessionResponse()

    async def PauseSession(  # noqa: N802
        self, request: pb.AgentServicePauseSessionRequest, _: object
    ) -> pb.AgentServicePauseSessionResponse:
        """Lets a recording rest."""
        await self._controls.pause(request.id)
        return pb.AgentServicePauseSessionResponse()

    async def ResumeSession(  # noqa: N802
        self, request: pb.AgentServiceResumeSessionRequest, _: object
    ) -> pb.AgentServiceResumeSessionResponse:
        """Goes on recording."""
        await self._controls.resume(request.id)
        return pb.AgentServiceResumeSessionResponse()

    async def ExtendSession(  # noqa: N802
        self, request: pb.AgentServiceExtendSessionRequest, _: object
    ) -> pb.AgentServiceExtendSessionResponse:
        """Gives a recording another bound of time."""
        bound = request.max_duration.ToTimedelta() if request.HasField("max_duration") else None
        await self._controls.extend(request.id, bound)
        return pb.AgentServiceExtendSessionResponse()

    async def SnapshotSession(  # noqa: N802
        self, request: pb.AgentServiceSnapshotSessionRequest, _: object
    ) -> pb.AgentServiceSnapshotSessionResponse:
        """Takes a picture of a recording's display."""
        image = await self._controls.snapshot(request.id, request.width if request.HasField("width") else None)
        response = pb.AgentServiceSnapshotSessionResponse(image=image)
        response.snapshot_time.FromDatetime(SystemClock().now())
        return response

    async def DeleteSession(  # noqa: N802
        self, request: pb.AgentServiceDeleteSessionRequest, _: object
    ) -> pb.AgentServiceDeleteSessionResponse:
        """Removes what a session left, once its copies are delivered."""
        session = session_id(request.session, path="session")
        await self._controls.let_go(session)
        await self._registry.delete(session)
        return pb.AgentServiceDeleteSessionResponse()

    async def WatchEvents(  # noqa: N802
        self, request: pb.WatchEventsRequest, _: object
    ) -> AsyncIterator[pb.WatchEventsResponse]:
        """Streams events until the caller leaves."""
        with self._book.feed.watch(request.after_event_number, self._book.last_number) as watcher:
            async for event in watcher.events():
                yield event_message(event, self.describe_agent)

    async def ReadSessionLog(  # noqa: N802
        self, request: pb.AgentServiceReadSessionLogRequest, _: object
    ) -> AsyncIterator[pb.AgentServiceReadSessionLogResponse]:
        """Streams an attempt's log."""
        session = session_id(request.id.session, path="id.session")
        attempt = self._registry.attempt(session, request.id.attempt or None)
        secrets = self._registry.secrets(attempt.key)
        if secrets is None:  # it never ran here, or its launch record is lost and with it what must be hidden
            return
        batches = follow_log(
            attempt.folder.log,
            Redactor(secrets),
            tail_lines=request.tail_lines if request.HasField("tail_lines") else None,
            ended=(lambda: not attempt.status.live) if request.follow else None,
            interval=_LOG_INTERVAL,
        )
        try:
            async for lines in batches:
                yield pb.AgentServiceReadSessionLogResponse(lines=lines)
        except FileNotFoundError:  # it never ran here, or was deleted meanwhile: there are no lines
            return

    async def ListArtifacts(  # noqa: N802
        self, request: pb.AgentServiceListArtifactsRequest, _: object
    ) -> pb.AgentServiceListArtifactsResponse:
        """Lists what a session left."""
        session = session_id(request.session, path="session")
        attempt = self._registry.attempt(session)
        final = not attempt.status.live
        found = await asyncio.to_thread(list_artifacts, attempt.folder.artifacts)
        copies = self._recordings.deliveries.of_session(session)
        messages = [
            artifact_message(session, one, final=final, copies=delivery_messages(copies.get(one.path, ())))
            for one in found
        ]
        return pb.AgentServiceListArtifactsResponse(artifacts=messages)

    async def ReadArtifact(  # noqa: N802
        self, request: pb.AgentServiceReadArtifactRequest, _: object
    ) -> AsyncIterator[pb.AgentServiceReadArtifactResponse]:
        """Streams an artifact, or a range of it."""
        session, path = artifact_name(request.name)
        attempt = self._registry.attempt(session)
        final = not attempt.status.live
        parts = read_artifact(
            attempt.folder.artifacts,
            path,
            offset_bytes=request.offset_bytes,
            limit_bytes=request.limit_bytes or None,
        )
        async for part in parts:
            if isinstance(part, ArtifactFile):
                yield pb.AgentServiceReadArtifactResponse(artifact=artifact_message(session, part, final=final))
            else:
                yield pb.AgentServiceReadArtifactResponse(data=part)

    async def ProbeDevice(  # noqa: N802
        self, request: pb.AgentServiceProbeDeviceRequest, _: object
    ) -> pb.AgentServiceProbeDeviceResponse:
        """Runs the golden probe again."""
        self._calibrator.refuse_meanwhile("probe the device")
        await self._device.probe(refresh=True, by_operator=request.by_operator)
        return pb.AgentServiceProbeDeviceResponse(agent=self.describe_agent())

    async def CalibrateDevice(  # noqa: N802
        self, request: pb.AgentServiceCalibrateDeviceRequest, _: object
    ) -> AsyncIterator[pb.AgentServiceCalibrateDeviceResponse]:
        """Measures how much the device carries, or how far sound is from its picture, until the caller leaves."""
        calibrate = self._calibrator.calibrate_sound if request.sound else self._calibrator.calibrate
        async with aclosing(calibrate(self._registry.live_count)) as news:
            async for told in news:
                yield calibration_message(told)

    async def ShutdownAgent(  # noqa: N802
        self, _request: pb.ShutdownAgentRequest, _: object
    ) -> pb.ShutdownAgentResponse:
        """Ends the agent, unless it has live sessions."""
        live = self._registry.live_count
        if live:
            raise RequestFailure(
                reason=Reason.AGENT_BUSY,
                message=f"Cannot end the agent of {self._device.identity.id}: it has {live} live sessions. Try to "
                "stop them first.",
            )
        self._registry.close()
        self._shut_down()
        return pb.ShutdownAgentResponse()


def _order(plan: pb.LaunchPlan) -> LaunchOrder:
    return LaunchOrder(
        job=job_from_plan(plan),
        plan=plan.SerializeToString(),
        max_duration=plan.max_duration.ToTimedelta() if plan.HasField("max_duration") else None,
        traceparent=plan.traceparent,
        speed_limit=speed_limit(plan, path="plan.speed_limit"),
        urgent=plan.priority == PRIORITY_LIVE,
        continues=earlier_attempts(plan),
        may_continue=plan.may_continue,
    )
