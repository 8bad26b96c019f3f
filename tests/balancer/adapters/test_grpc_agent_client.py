"""How the balancer speaks to an agent over a real wire: what it sends for recordings, and what it makes of answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import pytest

from balancer.adapters.grpc_agent_client import GrpcAgentClient
from balancer.domain.calibration import CalibrationProgress
from balancer.domain.device import Direction, RecordingAbility, SoundTiming
from balancer.domain.health import DeviceHealth, HealthState
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.restart import RestartMode, RestartRule
from balancer.domain.session import EndedAttempt, MeasuredUse
from balancer.ports.agent_client import AgentReport, AgentUnreachableError, AttemptEvent
from fakes.session_records import session_record
from fakes.session_texts import session
from fakes.stream_connections import StreamConnections
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.grpc_server import ServedService, ServerLimits, build_server
from gpu_balancer.v1 import agent_service_pb2 as pb
from gpu_balancer.v1 import device_pb2, media_pb2, recording_pb2
from gpu_balancer.v1.agent_service_pb2_grpc import AgentServiceServicer, add_AgentServiceServicer_to_server
from gpu_balancer.v1.session_pb2 import PRIORITY_BATCH

SESSION = SessionId("s1")
TAKEN = datetime(2030, 1, 1, tzinfo=UTC)
RECORDING = 'recording { page { url: "https://example.org/" } } max_duration { seconds: 60 }'


class NotingAgent(AgentServiceServicer):
    """Notes what it is asked; answers as a test says."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.events: list[pb.WatchEventsResponse] = []
        self.failure: RequestFailure | None = None
        self.health: device_pb2.DeviceHealth | None = None
        self.sound_timing: recording_pb2.SoundTiming | None = None

    def _note(self, request: Any) -> None:
        self.asked.append(request)
        if self.failure is not None:
            raise self.failure

    async def GetAgent(self, request: Any, _: Any) -> pb.GetAgentResponse:  # noqa: N802
        ability = recording_pb2.RecordingAbility(
            available=True,
            display_count=4,
            ready_display_count=1,
            browser="Chromium 156",
            applications=["clock"],
            largest_width=3840,
            largest_height=2160,
            sound_timing=self.sound_timing,
        )
        return pb.GetAgentResponse(agent=pb.Agent(incarnation="one", recording=ability, health=self.health))

    async def ProbeDevice(self, request: Any, _: Any) -> pb.AgentServiceProbeDeviceResponse:  # noqa: N802
        self._note(request)
        return pb.AgentServiceProbeDeviceResponse(agent=pb.Agent(incarnation="one"))

    async def CalibrateDevice(  # noqa: N802
        self, request: Any, _: Any
    ) -> AsyncIterator[pb.AgentServiceCalibrateDeviceResponse]:
        self._note(request)
        progress = device_pb2.CalibrationProgress(step=1, step_count=2, message="recording a film")
        yield pb.AgentServiceCalibrateDeviceResponse(progress=progress)
        yield pb.AgentServiceCalibrateDeviceResponse()
        yield pb.AgentServiceCalibrateDeviceResponse(sound_timing=self.sound_timing)

    async def LaunchSession(self, request: Any, _: Any) -> pb.LaunchSessionResponse:  # noqa: N802
        self._note(request)
        return pb.LaunchSessionResponse()

    async def DescribeCommand(self, request: Any, _: Any) -> pb.DescribeCommandResponse:  # noqa: N802
        self._note(request)
        return pb.DescribeCommandResponse(argv=["ffmpeg"])

    async def PauseSession(self, request: Any, _: Any) -> pb.AgentServicePauseSessionResponse:  # noqa: N802
        self._note(request)
        return pb.AgentServicePauseSessionResponse()

    async def ResumeSession(self, request: Any, _: Any) -> pb.AgentServiceResumeSessionResponse:  # noqa: N802
        self._note(request)
        return pb.AgentServiceResumeSessionResponse()

    async def ExtendSession(self, request: Any, _: Any) -> pb.AgentServiceExtendSessionResponse:  # noqa: N802
        self._note(request)
        return pb.AgentServiceExtendSessionResponse()

    async def SnapshotSession(self, request: Any, _: Any) -> pb.AgentServiceSnapshotSessionResponse:  # noqa: N802
        self._note(request)
        response = pb.AgentServiceSnapshotSessionResponse(image=b"\x89PNG")
        response.snapshot_time.FromDatetime(TAKEN)
        return response

    async def DeleteSession(self, request: Any, _: Any) -> pb.AgentServiceDeleteSessionResponse:  # noqa: N802
        self._note(request)
        return pb.AgentServiceDeleteSessionResponse()

    async def StopSession(self, request: Any, _: Any) -> pb.AgentServiceStopSessionResponse:  # noqa: N802
        self._note(request)
        return pb.AgentServiceStopSessionResponse()

    async def ReadSessionLog(  # noqa: N802
        self, request: Any, _: Any
    ) -> AsyncIterator[pb.AgentServiceReadSessionLogResponse]:
        yield pb.AgentServiceReadSessionLogResponse(lines=["first"])
        await asyncio.Event().wait()

    async def ReadArtifact(  # noqa: N802
        self, request: Any, _: Any
    ) -> AsyncIterator[pb.AgentServiceReadArtifactResponse]:
        yield pb.AgentServiceReadArtifactResponse(data=b"first")
        await asyncio.Event().wait()

    async def WatchEvents(self, request: Any, _: Any) -> AsyncIterator[pb.WatchEventsResponse]:  # noqa: N802
        for event in self.events:
            yield event


@asynccontextmanager
async def spoken_to(folder: Path) -> AsyncIterator[tuple[GrpcAgentClient, NotingAgent]]:
    agent = NotingAgent()
    service = ServedService(name="a", add=add_AgentServiceServicer_to_server, servicer=agent)
    address = f"unix:{folder}/agent.sock"

    def resolved(given: media_pb2.Input) -> media_pb2.Input:
        return media_pb2.Input(uri=f"/uploads/{given.upload}") if given.upload else given

    async with build_server(addresses=[address], services=[service], limits=ServerLimits(max_concurrent_streams=60)):
        client = GrpcAgentClient(told="device cpu-0", target=address, resolve_input=resolved)
        yield client, agent
        await client.close()


@asynccontextmanager
async def slowly_accepting(path: Path, target: Path, delay: timedelta) -> AsyncIterator[None]:
    """A socket before another one whose connections are served only after a while, as on a busy machine."""

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(65536):
                writer.write(chunk)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(delay.total_seconds())
        there_reader, there_writer = await asyncio.open_unix_connection(str(target))
        try:
            await asyncio.gather(carry(reader, there_writer), carry(there_reader, writer))
        finally:
            there_writer.transport.abort()

    connections = StreamConnections(serve)
    server = await asyncio.start_unix_server(connections.accept, str(path))
    yield
    await connections.end(server)


async def test_an_agent_that_takes_long_to_accept_is_reached_all_the_same(tmp_path: Path) -> None:
    async with (
        spoken_to(tmp_path),
        slowly_accepting(tmp_path / "slow.sock", tmp_path / "agent.sock", timedelta(seconds=1)),
    ):
        client = GrpcAgentClient(
            told="device cpu-0", target=f"unix:{tmp_path}/slow.sock", resolve_input=lambda given: given
        )
        assert (await client.describe()).incarnation == "one"
        await client.close()


async def test_a_recording_is_launched_as_one(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (client, agent):
        asked = session(RECORDING)
        await client.launch(session_record(payload=asked.SerializeToString()))
        await client.describe_command(asked)
        for request in agent.asked:
            plan = request.plan
            assert plan.recording == asked.recording
            assert not any(plan.HasField(name) for name in ("transcode", "input_facts", "speed_limit"))
            assert plan.max_duration.seconds == 60
        assert agent.asked[0].plan.id == pb.AttemptId(session="sessions/session-1", attempt=1)


async def test_a_transcode_is_launched_with_its_upload_as_a_path(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (client, agent):
        asked = session('transcode { input { upload: "x" } renditions { encode {} } } input_facts { width: 640 }')
        asked.priority = PRIORITY_BATCH
        await client.launch(session_record(payload=asked.SerializeToString(), speed_limit=Fraction(1, 2)))
        plan = agent.asked[0].plan
        assert (plan.transcode.input.uri, plan.input_facts.width) == ("/uploads/x", 640)
        assert plan.speed_limit == 0.5
        assert plan.priority == PRIORITY_BATCH
        assert not plan.HasField("recording")


async def test_a_further_attempt_is_told_what_it_continues_and_what_is_left_of_its_time(tmp_path: Path) -> None:
    source = 'input { uri: "rtmp://camera.example/live" duration { seconds: 50 } }'
    asked = session(f"transcode {{ {source} renditions {{ encode {{}} }} }} max_duration {{ seconds: 60 }}")
    first = session_record(payload=asked.SerializeToString())
    ended = (
        EndedAttempt(attempt=1, device_id=DeviceId("GPU-1"), folder="/one"),
        EndedAttempt(attempt=2, device_id=DeviceId("cpu-0"), folder=""),
    )
    async with spoken_to(tmp_path) as (client, agent):
        await client.launch(first)
        first = replace(first, resumable=True, restart=RestartRule(mode=RestartMode.ON_FAILURE))
        await client.launch(replace(first, attempt=3, ended_attempts=ended, ran_for=timedelta(seconds=20.5)))
        await client.launch(replace(first, attempt=4, ended_attempts=ended, ran_for=timedelta(seconds=59.5)))
        plans = [request.plan for request in agent.asked]
    assert not plans[0].continues
    assert [plan.may_continue for plan in plans] == [False, True, True]
    assert [(one.attempt, one.device, one.folder) for one in plans[1].continues] == [
        (1, "devices/GPU-1", "/one"),
        (2, "devices/cpu-0", ""),
    ]
    left = [(plan.max_duration.ToTimedelta(), plan.transcode.input.duration.ToTimedelta()) for plan in plans]
    assert left == [
        (timedelta(seconds=60), timedelta(seconds=50)),
        (timedelta(seconds=39.5), timedelta(seconds=29.5)),
        (timedelta(seconds=1), timedelta(seconds=1)),
    ]


async def test_what_is_done_to_a_recording_names_its_attempt(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (client, agent):
        await client.pause(SESSION, 2)
        await client.resume(SESSION, 2)
        await client.extend(SESSION, 2, timedelta(minutes=5))
        await client.extend(SESSION, 2, None)
        pictures = [await client.snapshot(SESSION, 2, width=width) for width in (320, None)]
        assert {request.id.session for request in agent.asked} == {"sessions/s1"}
        assert {request.id.attempt for request in agent.asked} == {2}
        assert agent.asked[2].max_duration.seconds == 300
        assert not agent.asked[3].HasField("max_duration")
        assert agent.asked[4].width == 320
        assert not agent.asked[5].HasField("width")
        assert [(one.image, one.snapshot_time) for one in pictures] == [(b"\x89PNG", TAKEN)] * 2


@pytest.mark.parametrize("reason", [Reason.SESSION_NOT_RECORDING, Reason.DELIVERY_PENDING])
async def test_an_agents_refusal_keeps_its_reason(tmp_path: Path, reason: Reason) -> None:
    async with spoken_to(tmp_path) as (client, agent):
        agent.failure = RequestFailure(reason=reason, message="Cannot do it: not now. Try later.")
        for call in (client.pause(SESSION, 1), client.delete(SESSION)):
            with pytest.raises(RequestFailure) as caught:
                await call
            assert caught.value.reason is reason


async def test_what_an_agent_records_is_read_with_the_agent(tmp_path: Path) -> None:
    ability = RecordingAbility(
        available=True,
        display_count=4,
        browser="Chromium 156",
        applications=frozenset({"clock"}),
        largest_width=3840,
        largest_height=2160,
    )
    async with spoken_to(tmp_path) as (client, agent):
        report = await client.describe()
        assert (report.recording, report.ready_display_count) == (ability, 1)
        agent.events = [pb.WatchEventsResponse(agent=pb.Agent(incarnation="two"))]
        body = (await anext(aiter(client.events(0)))).body
        assert isinstance(body, AgentReport)
        assert body.recording is None


def sound_timing() -> recording_pb2.SoundTiming:
    made = recording_pb2.SoundTiming(delay_source="calibration")
    made.delay.FromMilliseconds(-16)
    made.film_offset.FromMilliseconds(28)
    made.drawing_offset.FromMilliseconds(-28)
    made.heard_drawing_offset.FromMilliseconds(-14)
    made.measurement_time.FromDatetime(TAKEN)
    return made


READ_TIMING = SoundTiming(
    delay=timedelta(milliseconds=-16),
    delay_source="calibration",
    film_offset=timedelta(milliseconds=28),
    drawing_offset=timedelta(milliseconds=-28),
    heard_drawing_offset=timedelta(milliseconds=-14),
    measurement_time=TAKEN,
)


async def test_how_far_sound_and_picture_are_apart_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (client, agent):
        report = await client.describe()
        assert report.recording is not None
        assert report.recording.sound_timing is None
        agent.sound_timing = sound_timing()
        report = await client.describe()
        assert report.recording is not None
        assert report.recording.sound_timing == READ_TIMING
        agent.sound_timing = recording_pb2.SoundTiming(delay_source="default")
        agent.sound_timing.delay.FromMilliseconds(10)
        report = await client.describe()
        assert report.recording is not None
        assert report.recording.sound_timing == SoundTiming(delay=timedelta(milliseconds=10), delay_source="default")


async def test_an_agent_is_asked_for_what_is_to_be_calibrated(tmp_path: Path) -> None:
    async with spoken_to(tmp_path) as (client, agent):
        agent.sound_timing = sound_timing()
        told = [one async for one in client.calibrate(sound=True)]
        assert told == [CalibrationProgress(step=1, step_count=2, message="recording a film"), READ_TIMING]
        assert [one async for one in client.calibrate()]
        assert [request.sound for request in agent.asked] == [True, False]


async def test_an_attempts_report_and_measurement_are_read(tmp_path: Path) -> None:
    report = recording_pb2.RecordingReport(captured_frames=9, sound_timing=sound_timing())
    status = pb.AttemptStatus(
        id=pb.AttemptId(session="sessions/s1", attempt=1),
        phase=pb.ATTEMPT_PHASE_RUNNING,
        recording_report=report,
        measured_use=recording_pb2.MeasuredUse(cores=5, memory_mib=6),
        folder="/state/sessions/s1/1",
    )
    status.measured_use.measured_time.seconds = 15
    bare = pb.AttemptStatus(id=status.id, phase=pb.ATTEMPT_PHASE_RUNNING)
    async with spoken_to(tmp_path) as (client, agent):
        agent.events = [pb.WatchEventsResponse(attempt=status), pb.WatchEventsResponse(attempt=bare)]
        events = aiter(client.events(0))
        first, second = (await anext(events)).body, (await anext(events)).body
        with pytest.raises(AgentUnreachableError):
            await anext(events)
    assert isinstance(first, AttemptEvent)
    assert isinstance(second, AttemptEvent)
    assert first.report.recording_report == report.SerializeToString()
    assert first.report.measured_use == MeasuredUse(cores=5, memory_mib=6, measured_time=timedelta(seconds=15))
    assert (first.report.folder, second.report.folder) == ("/state/sessions/s1/1", "")
    assert (second.report.recording_report, second.report.measured_use) == (None, None)


async def test_how_well_a_device_is_is_read_as_far_as_it_is_known(tmp_path: Path) -> None:
    told = device_pb2.DeviceHealth(
        state=device_pb2.HEALTH_STATE_LOST,
        reason="XID_79",
        message="It has fallen off the bus.",
        xid=79,
        faulty_engines=[device_pb2.CODING_DIRECTION_ENCODE, 99],  # type: ignore[list-item]
    )
    told.since_time.FromDatetime(TAKEN)
    async with spoken_to(tmp_path) as (client, agent):
        assert (await client.describe()).health is None
        agent.health = told
        assert (await client.describe()).health == DeviceHealth(
            state=HealthState.LOST,
            reason="XID_79",
            message="It has fallen off the bus.",
            xid=79,
            since_time=TAKEN,
            faulty_engines=(Direction.ENCODE,),
        )
        agent.health = device_pb2.DeviceHealth(state=99)  # type: ignore[arg-type]
        assert (await client.describe()).health is None


@pytest.mark.parametrize("by_operator", [False, True])
async def test_a_probe_says_whether_an_operator_asked_for_it(tmp_path: Path, by_operator: bool) -> None:
    async with spoken_to(tmp_path) as (client, agent):
        await client.probe(by_operator=by_operator)
        (asked,) = agent.asked
        assert asked == pb.AgentServiceProbeDeviceRequest(by_operator=by_operator)


@pytest.mark.parametrize("what", ["logs", "artifacts"])
async def test_as_many_readers_as_there_may_be_keep_no_stop_from_the_agent(tmp_path: Path, what: str) -> None:
    """They stand still, and so many more are refused at once."""
    async with spoken_to(tmp_path) as (client, agent), AsyncExitStack() as stack:

        async def read() -> AsyncGenerator[Any, None]:
            told = (
                client.read_session_log(SESSION, 1, tail_lines=None, follow=True)
                if what == "logs"
                else client.read_artifact("sessions/s1/artifacts/a", offset_bytes=0, limit_bytes=0)
            )
            reader = cast("AsyncGenerator[Any, None]", told)
            await stack.enter_async_context(aclosing(reader))
            await anext(reader)
            return reader

        readers = [await read() for _ in range(60)]
        await client.stop(SESSION, 1)
        assert [type(request).__name__ for request in agent.asked] == ["AgentServiceStopSessionRequest"]
        with pytest.raises(RequestFailure, match=f"60 {what} of device cpu-0 are being read") as refused:
            await read()
        assert refused.value.reason is Reason.TOO_MANY_WATCHERS
        await readers[0].aclose()
        await read()
