"""A daemon without devices or media, for tests of its clients: the whole contract on a real grpc.aio server.

It keeps sessions, uploads, artifacts and devices in memory and behaves as the contract says: request ids, revisions,
resume tokens, offsets, pages. Tests tell it to refuse, to cut a stream or to lose an answer, and advance its sessions.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_status import rpc_status

from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.runtime.rich_status import status_from_failure
from gpu_balancer.v1 import (
    balancer_service_pb2,
    balancer_service_pb2_grpc,
    device_pb2,
    device_service_pb2,
    device_service_pb2_grpc,
    media_pb2,
    placement_pb2,
    recording_pb2,
    session_pb2,
    session_service_pb2,
    session_service_pb2_grpc,
    upload_service_pb2,
    upload_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from google.protobuf.message import Message

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

SUCCEEDED = session_pb2.SESSION_STATE_SUCCEEDED
ENDED = (SUCCEEDED, session_pb2.SESSION_STATE_FAILED, session_pb2.SESSION_STATE_CANCELLED)
CREATE_TIME = Timestamp(seconds=1_700_000_000)
SOUND_TIMING = recording_pb2.SoundTiming(
    delay=Duration(nanos=16_000_000),
    delay_source="calibration",
    film_offset=Duration(nanos=28_200_000),
    drawing_offset=Duration(nanos=-28_200_000),
    measurement_time=Timestamp(seconds=1_904_126_400),
)
"""What is measured of the sound of every device."""


def no_session(name: str) -> RequestFailure:
    return RequestFailure(
        reason=Reason.SESSION_NOT_FOUND, message=f"Cannot find {name}: there is no such session. Try the list."
    )


@dataclass(slots=True)
class StoredUpload:
    message: upload_service_pb2.Upload
    data: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class StoredArtifact:
    message: session_pb2.Artifact
    data: bytes


class FakeBalancer:
    """The state of the fake and the switches of its tests. It lives on the server's loop; others use `do`."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sessions: dict[str, session_pb2.Session] = {}
        self.requests: dict[str, str] = {}
        self.devices: dict[str, device_pb2.Device] = {}
        self.uploads: dict[str, StoredUpload] = {}
        self.artifacts: dict[str, StoredArtifact] = {}
        self.logs: dict[str, list[str]] = {}
        self.changes: list[session_service_pb2.WatchSessionsResponse] = []
        self.profiles: list[balancer_service_pb2.Profile] = []
        self.verdicts: list[placement_pb2.DeviceVerdict] = []
        self.placements: dict[str, list[placement_pb2.Placement]] = {}
        """Decisions by session."""
        self.queue = balancer_service_pb2.QueueSummary()
        self.picture = b"\x89PNG\r\n\x1a\na picture"
        """What every snapshot shows."""
        self.trace_lines: list[str] = []
        self.trace_requests: list[session_service_pb2.ExportTraceRequest] = []
        self.max_upload_bytes = 1 << 30
        self.upload_refusal: RequestFailure | None = None
        """Why no upload can be used. None: all can."""
        self.readable_paths: set[str] | None = None
        """Paths that the daemon may read. None: all."""
        self.on_create: Callable[[session_pb2.Session], None] | None = None
        """Runs after a session was created, on the server's loop."""
        self.on_told: Callable[[session_pb2.Session], None] | None = None
        """Runs after a watcher of one session was told of it, on the server's loop."""
        self.on_stop: Callable[[session_pb2.Session], None] | None = None
        """Runs in the place of the end of a session that is asked to stop, on the server's loop."""
        self.drain_steps: list[Callable[[device_pb2.Device], None]] = []
        """What becomes of every draining device while devices are watched, one after the other."""
        self.calls: Counter[str] = Counter()
        self.received: list[Message] = []
        self.page_size = 2
        self._refusals: dict[str, list[RequestFailure | grpc.StatusCode]] = {}
        self._losses: dict[str, list[RequestFailure | grpc.StatusCode]] = {}
        self._cuts: dict[str, list[int]] = {}
        self._numbers = itertools.count(1)
        self._changed = asyncio.Condition()
        self._stopped = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    # What tests do with it.

    def do(self, work: Callable[[], T]) -> T:
        """Runs a function on the server's loop, from another thread, and gives its value."""

        async def run() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def refuse(self, call: str, *failures: RequestFailure | grpc.StatusCode) -> None:
        """Has the next calls fail before they do anything."""
        self._refusals.setdefault(call, []).extend(failures)

    def lose_answer(self, call: str, times: int = 1) -> None:
        """Has the next calls do their work and then break off."""
        self._losses.setdefault(call, []).extend([grpc.StatusCode.UNAVAILABLE] * times)

    def cut(self, call: str, *message_counts: int) -> None:
        """Has the next streams break off after so many messages."""
        self._cuts.setdefault(call, []).extend(message_counts)

    def add_device(self, device: device_pb2.Device) -> None:
        self.devices[device.name] = device

    def add_session(self, name: str = "", **fields: Any) -> session_pb2.Session:
        session = session_pb2.Session(**fields)
        session.name = f"sessions/{name or f's{next(self._numbers)}'}"
        session.revision = 1
        session.create_time.CopyFrom(CREATE_TIME)
        if not session.state:
            session.state = session_pb2.SESSION_STATE_STARTING
        self.sessions[session.name] = session
        self._tell(session)
        return session

    def advance(self, name: str, **fields: Any) -> None:
        """Changes a session; its watchers are told."""
        session = self.sessions[name]
        session.MergeFrom(session_pb2.Session(**fields))
        session.revision += 1
        self._tell(session)

    def add_artifact(self, session: str, path: str, data: bytes, *, final: bool = True, seconds: int = 1) -> None:
        name = f"{session}/artifacts/{path}"
        message = session_pb2.Artifact(
            name=name,
            path=path,
            size_bytes=len(data),
            media_type="video/mp4",
            update_time=Timestamp(seconds=seconds),
            final=final,
        )
        self.artifacts[name] = StoredArtifact(message, data)

    def _tell(self, session: session_pb2.Session) -> None:
        copy = session_pb2.Session()
        copy.CopyFrom(session)
        self.changes.append(
            session_service_pb2.WatchSessionsResponse(
                type=session_service_pb2.SESSION_CHANGE_TYPE_UPDATED,
                session=copy,
                resume_token=str(len(self.changes) + 1),
            )
        )
        self._loop.call_soon(lambda: self._loop.create_task(self._wake()))

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, told: Callable[[], bool]) -> None:
        async with self._changed:
            await self._changed.wait_for(told)

    # What its servicers do with it.

    async def enter(self, call: str, request: Message, context: Context) -> None:
        self.calls[call] += 1
        self.received.append(request)
        if self._refusals.get(call):
            await self.fail(self._refusals[call].pop(0), context)
        if call == "CreateSession" or call == "PlanSession":
            await self._check_input(request, context)  # type: ignore[arg-type]

    async def leave(self, call: str, context: Context) -> None:
        if self._losses.get(call):
            await self.fail(self._losses[call].pop(0), context)

    async def fail(self, failure: RequestFailure | grpc.StatusCode, context: Context) -> None:
        if isinstance(failure, RequestFailure):
            await context.abort_with_status(rpc_status.to_status(status_from_failure(failure)))
        await context.abort(failure, "broken off by the test")

    async def streamed(self, call: str, answers: AsyncIterator[T], context: Context) -> AsyncIterator[T]:
        limit = self._cuts[call].pop(0) if self._cuts.get(call) else None
        count = 0
        async for answer in answers:
            if limit is not None and count >= limit:
                await self.fail(grpc.StatusCode.UNAVAILABLE, context)
            yield answer
            count += 1
        if limit is not None:
            await self.fail(grpc.StatusCode.UNAVAILABLE, context)

    async def _check_input(self, request: session_service_pb2.CreateSessionRequest, context: Context) -> None:
        given = request.session.transcode.input
        source = given.WhichOneof("source")
        if source == "uri" and self.readable_paths is not None and given.uri not in self.readable_paths:
            violation = Violation(field="session.transcode.input.uri", description="is outside the allowed roots")
            await self.fail(
                RequestFailure(
                    reason=Reason.INPUT_NOT_ALLOWED,
                    message=f"Cannot read {given.uri}: it is outside the allowed roots. Try an upload.",
                    violations=(violation,),
                ),
                context,
            )
        if source == "upload":
            if self.upload_refusal is not None:
                await self.fail(self.upload_refusal, context)
            upload = self.uploads.get(given.upload)
            if upload is None or not upload.message.complete:
                await self.fail(
                    RequestFailure(reason=Reason.UPLOAD_INCOMPLETE, message="Cannot use the upload: not all is there."),
                    context,
                )

    async def session_of(self, name: str, context: Context) -> session_pb2.Session:
        if name not in self.sessions:
            await self.fail(no_session(name), context)
        return self.sessions[name]

    def page(self, items: list[T], token: str, size: int) -> tuple[list[T], str]:
        begin, size = int(token or 0), min(size or self.page_size, self.page_size)
        following = begin + size
        return items[begin:following], str(following) if following < len(items) else ""

    def new_name(self, collection: str) -> str:
        return f"{collection}/{collection[0]}{next(self._numbers)}"


def matches(session: session_pb2.Session, selection: session_service_pb2.SessionFilter) -> bool:
    return (
        (not selection.states or session.state in selection.states)
        and (not selection.device or session.device == selection.device)
        and all(session.labels.get(key) == value for key, value in selection.labels.items())
    )


class Sessions(session_service_pb2_grpc.SessionServiceServicer):
    def __init__(self, fake: FakeBalancer) -> None:
        self.fake = fake

    async def CreateSession(self, request: session_service_pb2.CreateSessionRequest, context: Context) -> Any:  # noqa: N802
        fake = self.fake
        await fake.enter("CreateSession", request, context)
        if request.request_id not in fake.requests:
            session = fake.add_session()
            # Its own fields stand; those of the request that only tell what came of a session do not count.
            for field_name in ("transcode", "recording", "max_duration"):
                if request.session.HasField(field_name):
                    getattr(session, field_name).CopyFrom(getattr(request.session, field_name))
            session.labels.update(request.session.labels)
            session.device = next(iter(fake.devices), "")
            session.attempt = 1
            fake.requests[request.request_id] = session.name
            if fake.on_create is not None:
                fake.on_create(session)
        await fake.leave("CreateSession", context)
        return session_service_pb2.CreateSessionResponse(session=fake.sessions[fake.requests[request.request_id]])

    async def GetSession(self, request: session_service_pb2.GetSessionRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("GetSession", request, context)
        return session_service_pb2.GetSessionResponse(session=await self.fake.session_of(request.name, context))

    async def ListSessions(self, request: session_service_pb2.ListSessionsRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ListSessions", request, context)
        matching = [session for session in reversed(self.fake.sessions.values()) if matches(session, request.filter)]
        page, token = self.fake.page(matching, request.page_token, request.page_size)
        return session_service_pb2.ListSessionsResponse(sessions=page, next_page_token=token)

    async def WatchSession(self, request: session_service_pb2.WatchSessionRequest, context: Context) -> Any:  # noqa: N802
        fake = self.fake
        await fake.enter("WatchSession", request, context)
        await fake.session_of(request.name, context)

        async def answers() -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
            revision = request.after_revision
            while True:
                await fake.until(lambda seen=revision: fake.sessions[request.name].revision > seen)
                session = fake.sessions[request.name]
                revision = session.revision
                yield session_service_pb2.WatchSessionResponse(session=session)
                if session.state in ENDED:
                    return
                if fake.on_told is not None:
                    fake.on_told(session)

        async for answer in fake.streamed("WatchSession", answers(), context):
            yield answer

    async def WatchSessions(self, request: session_service_pb2.WatchSessionsRequest, context: Context) -> Any:  # noqa: N802
        fake = self.fake
        await fake.enter("WatchSessions", request, context)

        async def answers() -> AsyncIterator[session_service_pb2.WatchSessionsResponse]:
            position = int(request.resume_token or 0)
            if not request.resume_token:
                position = len(fake.changes)
                for session in list(fake.sessions.values()):
                    yield session_service_pb2.WatchSessionsResponse(
                        type=session_service_pb2.SESSION_CHANGE_TYPE_UPDATED, session=session
                    )
                yield session_service_pb2.WatchSessionsResponse(
                    type=session_service_pb2.SESSION_CHANGE_TYPE_SYNCED, resume_token=str(position)
                )
            while True:
                await fake.until(lambda seen=position: len(fake.changes) > seen)
                change = fake.changes[position]
                position += 1
                if matches(change.session, request.filter):
                    yield change

        async for answer in fake.streamed("WatchSessions", answers(), context):
            yield answer

    async def StopSession(self, request: session_service_pb2.StopSessionRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("StopSession", request, context)
        session = await self.fake.session_of(request.name, context)
        if session.state not in ENDED and self.fake.on_stop is not None:
            self.fake.on_stop(session)
        elif session.state not in ENDED:
            self.fake.advance(request.name, state=session_pb2.SESSION_STATE_CANCELLED)
        return session_service_pb2.StopSessionResponse(session=session)

    async def _recording_of(self, call: str, request: Any, context: Context) -> session_pb2.Session:
        """Gives a recording that runs, or refuses."""
        await self.fake.enter(call, request, context)
        session = await self.fake.session_of(request.name, context)
        if session.state != session_pb2.SESSION_STATE_RUNNING or not session.HasField("recording"):
            message = f"Cannot do that with {request.name}: it does not record now."
            await self.fake.fail(RequestFailure(reason=Reason.SESSION_NOT_ENDED, message=message), context)
        return session

    async def PauseSession(self, request: session_service_pb2.PauseSessionRequest, context: Context) -> Any:  # noqa: N802
        session = await self._recording_of("PauseSession", request, context)
        if not session.conditions:
            paused = session_pb2.Condition(type="PAUSED", message="The recording rests.")
            self.fake.advance(request.name, conditions=[paused])
        await self.fake.leave("PauseSession", context)
        return session_service_pb2.PauseSessionResponse(session=session)

    async def ResumeSession(self, request: session_service_pb2.ResumeSessionRequest, context: Context) -> Any:  # noqa: N802
        session = await self._recording_of("ResumeSession", request, context)
        session.ClearField("conditions")
        self.fake.advance(request.name)
        return session_service_pb2.ResumeSessionResponse(session=session)

    async def ExtendSession(self, request: session_service_pb2.ExtendSessionRequest, context: Context) -> Any:  # noqa: N802
        session = await self._recording_of("ExtendSession", request, context)
        session.ClearField("max_duration")
        if request.HasField("max_duration"):
            session.max_duration.CopyFrom(request.max_duration)
        self.fake.advance(request.name)
        return session_service_pb2.ExtendSessionResponse(session=session)

    async def SnapshotSession(self, request: session_service_pb2.SnapshotSessionRequest, context: Context) -> Any:  # noqa: N802
        await self._recording_of("SnapshotSession", request, context)
        return session_service_pb2.SnapshotSessionResponse(image=self.fake.picture, snapshot_time=CREATE_TIME)

    async def DeleteSession(self, request: session_service_pb2.DeleteSessionRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("DeleteSession", request, context)
        session = await self.fake.session_of(request.name, context)
        if session.state not in ENDED:
            await self.fake.fail(
                RequestFailure(
                    reason=Reason.SESSION_NOT_ENDED, message="Cannot delete it: it has not ended. Try to stop it first."
                ),
                context,
            )
        del self.fake.sessions[request.name]
        await self.fake.leave("DeleteSession", context)
        return session_service_pb2.DeleteSessionResponse()

    async def PlanSession(self, request: session_service_pb2.PlanSessionRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("PlanSession", request, context)
        chosen = next((one.device for one in self.fake.verdicts if one.WhichOneof("verdict") == "score"), "")
        encodes = [
            placement_pb2.EncodeWork(codec=media_pb2.VIDEO_CODEC_H264, bit_depth=8, pixels_per_second=27_648_000)
            for _ in request.session.transcode.renditions
        ]
        return session_service_pb2.PlanSessionResponse(
            placement=placement_pb2.Placement(
                device=chosen,
                policy="least_weighted_load",
                workload=placement_pb2.Workload(
                    decode_pixels_per_second=62_208_000,
                    decode_codec=media_pb2.VIDEO_CODEC_H264,
                    decode_bit_depth=8,
                    scale_pixels_per_second=27_648_000,
                    encodes=encodes,
                    cost_pixels_per_second=228_096_000,
                ),
                verdicts=self.fake.verdicts,
                settings_version=3,
            ),
            session=request.session,
            argv=["ffmpeg", "-i", "in.mp4", "out.mp4"] if chosen else [],
        )

    async def ExplainSession(self, request: session_service_pb2.ExplainSessionRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ExplainSession", request, context)
        await self.fake.session_of(request.name, context)
        return session_service_pb2.ExplainSessionResponse(placements=self.fake.placements.get(request.name, []))

    async def ExportTrace(self, request: session_service_pb2.ExportTraceRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ExportTrace", request, context)
        self.fake.trace_requests.append(request)

        async def answers() -> AsyncIterator[session_service_pb2.ExportTraceResponse]:
            for line in self.fake.trace_lines:
                yield session_service_pb2.ExportTraceResponse(lines=[line])

        async for answer in self.fake.streamed("ExportTrace", answers(), context):
            yield answer

    async def ReadSessionLog(self, request: session_service_pb2.ReadSessionLogRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ReadSessionLog", request, context)
        await self.fake.session_of(request.name, context)
        lines = self.fake.logs.get(request.name, [])
        if request.HasField("tail_lines"):
            lines = lines[len(lines) - min(len(lines), request.tail_lines) :]

        async def answers() -> AsyncIterator[session_service_pb2.ReadSessionLogResponse]:
            for line in lines:
                yield session_service_pb2.ReadSessionLogResponse(lines=[line])

        async for answer in self.fake.streamed("ReadSessionLog", answers(), context):
            yield answer

    async def ListArtifacts(self, request: session_service_pb2.ListArtifactsRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ListArtifacts", request, context)
        await self.fake.session_of(request.parent, context)
        prefix = f"{request.parent}/artifacts/"
        found = [stored.message for name, stored in sorted(self.fake.artifacts.items()) if name.startswith(prefix)]
        page, token = self.fake.page(found, request.page_token, request.page_size)
        return session_service_pb2.ListArtifactsResponse(artifacts=page, next_page_token=token)

    async def ReadArtifact(self, request: session_service_pb2.ReadArtifactRequest, context: Context) -> Any:  # noqa: N802
        fake = self.fake
        await fake.enter("ReadArtifact", request, context)
        stored = fake.artifacts.get(request.name)
        if stored is None:
            await fake.fail(
                RequestFailure(reason=Reason.ARTIFACT_NOT_FOUND, message=f"Cannot find {request.name}."), context
            )
            return
        if request.offset_bytes and request.offset_bytes >= len(stored.data):
            await fake.fail(RequestFailure(reason=Reason.RANGE_INVALID, message="Cannot read behind the end."), context)
        end = request.offset_bytes + request.limit_bytes if request.limit_bytes else len(stored.data)
        wanted = stored.data[request.offset_bytes : end]

        async def answers() -> AsyncIterator[session_service_pb2.ReadArtifactResponse]:
            chunks = [wanted[begin : begin + 1000] for begin in range(0, len(wanted), 1000)] or [b""]
            yield session_service_pb2.ReadArtifactResponse(artifact=stored.message, data=chunks[0])
            for chunk in chunks[1:]:
                yield session_service_pb2.ReadArtifactResponse(data=chunk)

        # The question what it is, a single byte, is not the transfer that tests cut.
        cuttable = "ReadArtifact" if request.limit_bytes != 1 else "-"
        async for answer in fake.streamed(cuttable, answers(), context):
            yield answer


class Devices(device_service_pb2_grpc.DeviceServiceServicer):
    def __init__(self, fake: FakeBalancer) -> None:
        self.fake = fake

    async def _device_of(self, name: str, context: Context) -> device_pb2.Device:
        if name not in self.fake.devices:
            await self.fake.fail(
                RequestFailure(reason=Reason.DEVICE_NOT_FOUND, message=f"Cannot find {name}: no device fits."), context
            )
        return self.fake.devices[name]

    async def ListDevices(self, request: device_service_pb2.ListDevicesRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ListDevices", request, context)
        page, token = self.fake.page(list(self.fake.devices.values()), request.page_token, request.page_size)
        return device_service_pb2.ListDevicesResponse(devices=page, next_page_token=token)

    async def GetDevice(self, request: device_service_pb2.GetDeviceRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("GetDevice", request, context)
        return device_service_pb2.GetDeviceResponse(device=await self._device_of(request.name, context))

    async def WatchDevices(self, request: device_service_pb2.WatchDevicesRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("WatchDevices", request, context)

        async def answers() -> AsyncIterator[device_service_pb2.WatchDevicesResponse]:
            for device in self.fake.devices.values():
                yield device_service_pb2.WatchDevicesResponse(device=device)
            draining = [device for device in self.fake.devices.values() if device.drain.session_count]
            while self.fake.drain_steps:
                step = self.fake.drain_steps.pop(0)
                for device in draining:
                    step(device)
                    yield device_service_pb2.WatchDevicesResponse(device=device)
            await self.fake.until(lambda: not any(device.drain.session_count for device in draining))

        async for answer in self.fake.streamed("WatchDevices", answers(), context):
            yield answer

    async def UpdateDevice(self, request: device_service_pb2.UpdateDeviceRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("UpdateDevice", request, context)
        device = await self._device_of(request.name, context)
        if request.HasField("weight"):
            device.weight = request.weight
            device.weight_source = "settings" if request.save else "operator"
        if request.HasField("cordoned"):
            ready, cordoned = device_pb2.DEVICE_STATE_READY, device_pb2.DEVICE_STATE_CORDONED
            device.state = cordoned if request.cordoned else ready
            if not request.cordoned:
                device.ClearField("drain")
        saved = "/etc/gpu-balancer/balancer.toml" if request.save else ""
        return device_service_pb2.UpdateDeviceResponse(device=device, saved_path=saved)

    async def DrainDevice(self, request: device_service_pb2.DrainDeviceRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("DrainDevice", request, context)
        device = await self._device_of(request.name, context)
        device.drain.mode = request.mode
        device.drain.session_count = device.session_count
        device.state = device_pb2.DEVICE_STATE_DRAINING if device.session_count else device_pb2.DEVICE_STATE_CORDONED
        device.state_message = f"Being emptied: {device.session_count} left."
        return device_service_pb2.DrainDeviceResponse(device=device)

    async def ProbeDevice(self, request: device_service_pb2.ProbeDeviceRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ProbeDevice", request, context)
        return device_service_pb2.ProbeDeviceResponse(device=await self._device_of(request.name, context))

    async def CalibrateDevice(self, request: device_service_pb2.CalibrateDeviceRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("CalibrateDevice", request, context)
        device = await self._device_of(request.name, context)

        async def answers() -> AsyncIterator[device_service_pb2.CalibrateDeviceResponse]:
            for step in range(2):
                progress = device_pb2.CalibrationProgress(step=step, step_count=2, message=f"step {step}")
                yield device_service_pb2.CalibrateDeviceResponse(progress=progress)
            if request.sound:
                device.recording.sound_timing.CopyFrom(SOUND_TIMING)
                yield device_service_pb2.CalibrateDeviceResponse(device=device)
                return
            device.calibration.ffmpeg.version = "9.0"
            weights = [
                device_service_pb2.SuggestedWeight(device=name, weight=100 - number, present_weight=one.weight)
                for number, (name, one) in enumerate(self.fake.devices.items())
            ]
            yield device_service_pb2.CalibrateDeviceResponse(device=device, suggested_weights=weights)

        async for answer in self.fake.streamed("CalibrateDevice", answers(), context):
            yield answer

    async def DeleteCalibration(self, request: device_service_pb2.DeleteCalibrationRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("DeleteCalibration", request, context)
        device = await self._device_of(request.name, context)
        device.ClearField("calibration")
        return device_service_pb2.DeleteCalibrationResponse(device=device)

    async def ReloadSettings(self, request: device_service_pb2.ReloadSettingsRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("ReloadSettings", request, context)
        return device_service_pb2.ReloadSettingsResponse(
            settings_version=4, changes=["The weight of cpu-0 is 40 instead of 100."], restart_keys=["server.listen"]
        )


class Uploads(upload_service_pb2_grpc.UploadServiceServicer):
    def __init__(self, fake: FakeBalancer) -> None:
        self.fake = fake

    async def _upload_of(self, name: str, context: Context) -> StoredUpload:
        if name not in self.fake.uploads:
            await self.fake.fail(
                RequestFailure(reason=Reason.UPLOAD_NOT_FOUND, message=f"Cannot find {name}."), context
            )
        return self.fake.uploads[name]

    async def CreateUpload(self, request: upload_service_pb2.CreateUploadRequest, context: Context) -> Any:  # noqa: N802
        fake = self.fake
        await fake.enter("CreateUpload", request, context)
        if request.request_id not in fake.requests:
            message = upload_service_pb2.Upload(
                name=fake.new_name("uploads"),
                file_name=request.upload.file_name,
                size_bytes=request.upload.size_bytes,
            )
            fake.uploads[message.name] = StoredUpload(message)
            fake.requests[request.request_id] = message.name
        await fake.leave("CreateUpload", context)
        upload = await self._upload_of(fake.requests[request.request_id], context)
        return upload_service_pb2.CreateUploadResponse(upload=upload.message)

    async def WriteUpload(self, request_iterator: AsyncIterator[Any], context: Context) -> Any:  # noqa: N802
        fake = self.fake
        stored: StoredUpload | None = None

        async for request in fake.streamed("WriteUpload", request_iterator, context):
            if stored is None:
                await fake.enter("WriteUpload", request, context)
                stored = await self._upload_of(request.name, context)
                if request.offset_bytes != len(stored.data):
                    await fake.fail(
                        RequestFailure(reason=Reason.UPLOAD_OFFSET_WRONG, message="Cannot write there."), context
                    )
            stored.data.extend(request.data)
            stored.message.received_bytes = len(stored.data)
            stored.message.complete = len(stored.data) == stored.message.size_bytes
        assert stored is not None
        await fake.leave("WriteUpload", context)
        return upload_service_pb2.WriteUploadResponse(upload=stored.message)

    async def GetUpload(self, request: upload_service_pb2.GetUploadRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("GetUpload", request, context)
        return upload_service_pb2.GetUploadResponse(upload=(await self._upload_of(request.name, context)).message)

    async def DeleteUpload(self, request: upload_service_pb2.DeleteUploadRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("DeleteUpload", request, context)
        await self._upload_of(request.name, context)
        del self.fake.uploads[request.name]
        return upload_service_pb2.DeleteUploadResponse()


class Balancer(balancer_service_pb2_grpc.BalancerServiceServicer):
    def __init__(self, fake: FakeBalancer) -> None:
        self.fake = fake

    async def GetBalancer(self, request: balancer_service_pb2.GetBalancerRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("GetBalancer", request, context)
        return balancer_service_pb2.GetBalancerResponse(
            version="0.1.0",
            process_id=4711,
            listen_addresses=[self.fake.address],
            policy="least_weighted_load",
            profiles=self.fake.profiles,
            max_upload_bytes=self.fake.max_upload_bytes,
            queue=self.fake.queue,
        )

    async def Shutdown(self, request: balancer_service_pb2.ShutdownRequest, context: Context) -> Any:  # noqa: N802
        await self.fake.enter("Shutdown", request, context)
        living = [session.name for session in self.fake.sessions.values() if session.state not in ENDED]
        if request.stop_sessions:
            return balancer_service_pb2.ShutdownResponse(stopped_sessions=len(living))
        return balancer_service_pb2.ShutdownResponse(running_sessions=living)


async def start_server(fake: FakeBalancer) -> grpc.aio.Server:
    """Serves the fake on its address."""
    server = grpc.aio.server()
    session_service_pb2_grpc.add_SessionServiceServicer_to_server(Sessions(fake), server)
    device_service_pb2_grpc.add_DeviceServiceServicer_to_server(Devices(fake), server)
    upload_service_pb2_grpc.add_UploadServiceServicer_to_server(Uploads(fake), server)
    balancer_service_pb2_grpc.add_BalancerServiceServicer_to_server(Balancer(fake), server)
    server.add_insecure_port(fake.address)
    await server.start()
    return server


@contextmanager
def served_aside(folder: Path) -> Iterator[FakeBalancer]:
    """Serves a fake from a thread of its own, for tests of clients that block."""
    address = f"unix:{folder / 'balancer.sock'}"
    started, stop = threading.Event(), asyncio.Event()
    fakes: list[FakeBalancer] = []
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        fake = FakeBalancer(address)
        server = await start_server(fake)
        fakes.append(fake)
        loops.append(asyncio.get_running_loop())
        started.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="fake-balancer")
    thread.start()
    assert started.wait(10)
    try:
        yield fakes[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)
