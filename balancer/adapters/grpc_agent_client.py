"""Speaks to one agent over gRPC: launching and stopping, its events, and what clients read from it.

It holds three connections to an agent: an agent serves so many calls of one at once, and readers of logs and artifacts,
who come in any number and may read slowly, must not keep a stop from it. An answer that does not come raises
`AgentUnreachableError`; a refusal is given on with the agent's own reason. Streams end when their consumer does, so
that a client's back-pressure reaches the agent.
"""

from __future__ import annotations

from contextlib import aclosing, contextmanager
from datetime import UTC, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from balancer.adapters.agent_translation import (
    agent_from_proto,
    attempt_from_proto,
    event_from_proto,
    session_name,
    sound_timing_from_proto,
)
from balancer.adapters.attempt_translation import fill_course
from balancer.adapters.calibration_translation import calibration_news_from_proto
from balancer.domain.ids import SessionId
from balancer.ports.agent_client import AgentUnreachableError
from balancer.ports.agent_recordings import Snapshot
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.rich_status import failure_from_rpc_error
from gpu_balancer.v1 import agent_service_pb2 as pb
from gpu_balancer.v1 import media_pb2, session_pb2
from gpu_balancer.v1.agent_service_pb2_grpc import AgentServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
    from fractions import Fraction

    from balancer.domain.calibration import Calibration, CalibrationProgress
    from balancer.domain.device import SoundTiming
    from balancer.domain.session import SessionRecord
    from balancer.domain.session_events import AttemptReported
    from balancer.ports.agent_client import AgentEvent, AgentReport

Answer = TypeVar("Answer")

_MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_PLANNED = SessionId("planned")
"""Stands for the id that a session would get."""
_CALL_TIMEOUT_S = 5.0
_MAX_READERS = 60
"""Of one kind: an agent takes 64 calls of a connection, unless its settings say otherwise."""
_READ_AGAIN_AFTER = timedelta(seconds=10)
_PROBE_TIMEOUT_S = 120.0
"""A golden probe of every codec on a slow device."""
_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # An agent that was killed is back within a second or two; to try its socket costs nothing.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # Despite its name the time that a connection may take to be made: on a busy machine longer than the pause above.
    ("grpc.min_reconnect_backoff_ms", 5000),
)
_SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class _Readers:
    """Those who read one kind of thing, over a connection of their own."""

    def __init__(self, target: str, *, what: str, told: str) -> None:
        self._what, self._told = what, told
        # Else gRPC would share one connection between all channels to an address.
        options = (*_CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        self.channel = grpc.aio.insecure_channel(target, options=options)
        self.stub = AgentServiceStub(self.channel)
        self._count = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Takes a place for as long as something is read.

        Raises:
            RequestFailure: TOO_MANY_WATCHERS.
        """
        if self._count >= _MAX_READERS:
            raise RequestFailure(
                reason=Reason.TOO_MANY_WATCHERS,
                message=f"Cannot read: {self._count} {self._what} of {self._told} are being read, which is as many as "
                "its agent serves at once. Try again when one has ended.",
                retry_after=_READ_AGAIN_AFTER,
                metadata={"limit": str(_MAX_READERS)},
            )
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


class GrpcAgentClient:
    """One agent by its address. Implements `AgentClient`, `AgentMedia` and `AgentRecordings`."""

    def __init__(self, *, told: str, target: str, resolve_input: Callable[[media_pb2.Input], media_pb2.Input]) -> None:
        """Prepares the connection; nothing is sent yet.

        Args:
            told: How messages call whose agent it is: "device cpu-0".
            target: gRPC target, "unix:/path" or "127.0.0.1:port".
            resolve_input: Turns an upload into a path that the agent can read.
        """
        self._told = told
        self._resolve_input = resolve_input
        self._channel = grpc.aio.insecure_channel(target, options=_CHANNEL_OPTIONS)
        self._stub = AgentServiceStub(self._channel)
        self._logs = _Readers(target, what="logs", told=told)
        self._artifacts = _Readers(target, what="artifacts", told=told)

    async def describe(self) -> AgentReport:
        """Asks what the agent and its device are."""
        answer = await self._call(self._stub.GetAgent(pb.GetAgentRequest(), timeout=_CALL_TIMEOUT_S))
        return agent_from_proto(answer.agent)

    async def launch(self, record: SessionRecord) -> str | None:
        """Starts the record's present attempt; returns where to publish, for an ingest."""
        session = session_pb2.Session.FromString(record.payload)
        request = pb.LaunchSessionRequest(plan=self._plan(session, record.id, record.attempt))
        fill_course(request.plan, record)
        answer = await self._call(self._stub.LaunchSession(request, timeout=_CALL_TIMEOUT_S))
        return answer.ingest_url or None

    async def stop(
        self, session_id: SessionId, attempt: int, *, discard_outputs: bool = False, to_be_continued: bool = False
    ) -> AttemptReported | None:
        """Asks an attempt to end, and what it made to be thrown away where another one begins anew."""
        request = pb.AgentServiceStopSessionRequest(
            id=_attempt(session_id, attempt), discard_outputs=discard_outputs, to_be_continued=to_be_continued
        )
        answer = await self._call(self._stub.StopSession(request, timeout=_CALL_TIMEOUT_S))
        return attempt_from_proto(answer.attempt) if answer.HasField("attempt") else None

    async def pace(self, session_id: SessionId, attempt: int, speed_limit: Fraction | None) -> None:
        """Holds an attempt at a speed, in times real time, or lets it run freely."""
        limit = None if speed_limit is None else float(speed_limit)
        request = pb.PaceSessionRequest(id=_attempt(session_id, attempt), speed_limit=limit)
        await self._call(self._stub.PaceSession(request, timeout=_CALL_TIMEOUT_S))

    async def pause(self, session_id: SessionId, attempt: int) -> None:
        """Lets a recording rest."""
        request = pb.AgentServicePauseSessionRequest(id=_attempt(session_id, attempt))
        await self._call(self._stub.PauseSession(request, timeout=_CALL_TIMEOUT_S))

    async def resume(self, session_id: SessionId, attempt: int) -> None:
        """Goes on recording."""
        request = pb.AgentServiceResumeSessionRequest(id=_attempt(session_id, attempt))
        await self._call(self._stub.ResumeSession(request, timeout=_CALL_TIMEOUT_S))

    async def extend(self, session_id: SessionId, attempt: int, max_duration: timedelta | None) -> None:
        """Gives a recording another bound of time, or none."""
        request = pb.AgentServiceExtendSessionRequest(id=_attempt(session_id, attempt))
        if max_duration is not None:
            request.max_duration.FromTimedelta(max_duration)
        await self._call(self._stub.ExtendSession(request, timeout=_CALL_TIMEOUT_S))

    async def snapshot(self, session_id: SessionId, attempt: int, *, width: int | None) -> Snapshot:
        """Has a picture of a recording's display taken."""
        request = pb.AgentServiceSnapshotSessionRequest(id=_attempt(session_id, attempt), width=width)
        answer = await self._call(self._stub.SnapshotSession(request, timeout=_CALL_TIMEOUT_S))
        return Snapshot(image=answer.image, snapshot_time=answer.snapshot_time.ToDatetime(tzinfo=UTC))

    async def delete(self, session_id: SessionId) -> None:
        """Removes what an ended session left."""
        request = pb.AgentServiceDeleteSessionRequest(session=session_name(session_id))
        await self._call(self._stub.DeleteSession(request, timeout=_CALL_TIMEOUT_S))

    async def events(self, after: int) -> AsyncIterator[AgentEvent]:
        """Streams events after a cursor; ends by AgentUnreachableError only."""
        call = self._stub.WatchEvents(pb.WatchEventsRequest(after_event_number=after))
        async for message in self._stream(call):
            event = event_from_proto(message)
            if event is not None:
                yield event
        raise AgentUnreachableError(f"The agent of {self._told} ended its event stream.")

    async def probe(self, *, by_operator: bool = False) -> AgentReport:
        """Runs the golden probe again."""
        request = pb.AgentServiceProbeDeviceRequest(by_operator=by_operator)
        answer = await self._call(self._stub.ProbeDevice(request, timeout=_PROBE_TIMEOUT_S))
        return agent_from_proto(answer.agent)

    async def calibrate(
        self, *, sound: bool = False
    ) -> AsyncGenerator[CalibrationProgress | Calibration | SoundTiming, None]:
        """Measures how much the device carries, or its sound; tells how far that is and last what came of it."""
        request = pb.AgentServiceCalibrateDeviceRequest(sound=sound)
        async with aclosing(self._stream(self._stub.CalibrateDevice(request))) as news:
            async for message in news:
                if message.HasField("sound_timing"):
                    yield sound_timing_from_proto(message.sound_timing)
                elif (told := calibration_news_from_proto(message)) is not None:
                    yield told

    async def shutdown(self) -> None:
        """Ends the agent; refused while it has live sessions."""
        await self._call(self._stub.ShutdownAgent(pb.ShutdownAgentRequest(), timeout=_CALL_TIMEOUT_S))

    async def close(self) -> None:
        """Gives the connections back."""
        for channel in (self._channel, self._logs.channel, self._artifacts.channel):
            await channel.close(grace=None)

    async def probe_input(self, source: media_pb2.Input, *, timeout: timedelta) -> media_pb2.InputFacts:
        """Has the agent open an input and tell what it is, within `timeout`."""
        request = pb.ProbeInputRequest(input=self._resolve_input(source))
        request.timeout.FromTimedelta(timeout)
        answer = await self._call(self._stub.ProbeInput(request, timeout=timeout.total_seconds() + _CALL_TIMEOUT_S))
        return answer.facts

    async def check_outputs(self, outputs: Sequence[media_pb2.Output]) -> None:
        """Has the agent check that outputs may be written."""
        request = pb.CheckOutputsRequest(outputs=outputs)
        await self._call(self._stub.CheckOutputs(request, timeout=_CALL_TIMEOUT_S))

    async def describe_command(self, session: session_pb2.Session) -> Sequence[str]:
        """Asks which program and arguments would run a session, secrets redacted."""
        request = pb.DescribeCommandRequest(plan=self._plan(session, _PLANNED, 1))
        answer = await self._call(self._stub.DescribeCommand(request, timeout=_CALL_TIMEOUT_S))
        return list(answer.argv)

    async def read_session_log(
        self, session_id: SessionId, attempt: int, *, tail_lines: int | None, follow: bool
    ) -> AsyncIterator[Sequence[str]]:
        """Streams the lines of an attempt's log."""
        request = pb.AgentServiceReadSessionLogRequest(
            id=_attempt(session_id, attempt), tail_lines=tail_lines, follow=follow
        )
        with self._logs.place():
            async for message in self._stream(self._logs.stub.ReadSessionLog(request)):
                yield message.lines

    async def list_artifacts(self, session_id: SessionId) -> Sequence[session_pb2.Artifact]:
        """Lists everything a session left, by path."""
        request = pb.AgentServiceListArtifactsRequest(session=session_name(session_id))
        answer = await self._call(self._stub.ListArtifacts(request, timeout=_CALL_TIMEOUT_S))
        return list(answer.artifacts)

    async def read_artifact(
        self, name: str, *, offset_bytes: int, limit_bytes: int
    ) -> AsyncIterator[pb.AgentServiceReadArtifactResponse]:
        """Streams an artifact or a range of it; `limit_bytes` 0 reads to the end."""
        request = pb.AgentServiceReadArtifactRequest(name=name, offset_bytes=offset_bytes, limit_bytes=limit_bytes)
        with self._artifacts.place():
            async for message in self._stream(self._artifacts.stub.ReadArtifact(request)):
                yield message

    def _plan(self, session: session_pb2.Session, session_id: SessionId, attempt: int) -> pb.LaunchPlan:
        plan = pb.LaunchPlan(id=_attempt(session_id, attempt), priority=session.priority)
        if session.WhichOneof("spec") == "recording":
            plan.recording.CopyFrom(session.recording)
        else:
            plan.transcode.CopyFrom(session.transcode)
            plan.transcode.input.CopyFrom(self._resolve_input(session.transcode.input))
            plan.input_facts.CopyFrom(session.input_facts)
        if session.HasField("max_duration"):
            plan.max_duration.CopyFrom(session.max_duration)
        return plan

    async def _call(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error

    async def _stream(self, call: grpc.aio.UnaryStreamCall[Any, Answer]) -> AsyncGenerator[Answer, None]:
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        finally:
            call.cancel()

    def _translated(self, error: grpc.aio.AioRpcError) -> Exception:
        failure = failure_from_rpc_error(error)
        if failure is not None:
            return failure
        if error.code() in _SILENT:
            return AgentUnreachableError(
                f"The agent of {self._told} does not answer: {error.code().name}, {error.details()}."
            )
        return RequestFailure(
            reason=Reason.INTERNAL,
            message=f"The agent of {self._told} failed: {error.code().name}, {error.details()}.",
        )


def _attempt(session_id: SessionId, attempt: int) -> pb.AttemptId:
    return pb.AttemptId(session=session_name(session_id), attempt=attempt)
