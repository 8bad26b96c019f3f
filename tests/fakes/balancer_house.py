"""A whole balancer on a real gRPC server: real engine, registry, uploads and servicers; store and agents are faked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import pytest

from balancer.calibrations import Calibrations
from balancer.device_drains import DeviceDrains
from balancer.device_probes import DeviceProbes
from balancer.device_registry import DeviceRegistry
from balancer.domain.decision import PlacementSettings
from balancer.domain.ids import DeviceId
from balancer.domain.policies import LeastWeightedLoad
from balancer.placer import PlacementRules
from balancer.ports.agent_client import AgentReport
from balancer.recording_controls import RecordingControls
from balancer.servicers.balancer_servicer import BalancerServicer, DaemonFacts
from balancer.servicers.control_requests import with_duration
from balancer.servicers.device_servicer import DeviceServicer
from balancer.servicers.media_questions import MediaQuestions
from balancer.servicers.profile_translation import KnownProfiles
from balancer.servicers.recording_rules import RecordingRules
from balancer.servicers.session_servicer import SessionServicer
from balancer.servicers.session_translation import upload_of
from balancer.servicers.upload_servicer import UploadServicer
from balancer.servicers.watch_places import WatchLimits
from balancer.session_engine import SessionEngine
from balancer.session_files import SessionFiles
from balancer.settings.profiles import BUILT_IN_PROFILES
from balancer.uploads import UploadStore
from fakes.agent_client import RECORDS
from fakes.agent_media import FakeAgentMedia
from fakes.device_views import device_view
from fakes.session_store import FakeSessionStore
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.runtime.grpc_server import ServedService, build_server
from gpu_balancer.runtime.rich_status import failure_from_rpc_error
from gpu_balancer.runtime.task_guard import TaskGuard
from gpu_balancer.v1 import balancer_service_pb2_grpc as balancer_grpc
from gpu_balancer.v1 import device_service_pb2_grpc as device_grpc
from gpu_balancer.v1 import session_service_pb2_grpc as session_grpc
from gpu_balancer.v1 import upload_service_pb2_grpc as upload_grpc

MAX_UPLOAD_BYTES = 1024 * 1024


@dataclass(frozen=True)
class FakeOutcome:
    version: int = 2
    changes: tuple[str, ...] = ("The weight of cpu-0 is 50, not 100.",)
    restart_keys: tuple[str, ...] = ("server.listen",)


@dataclass
class FakeReloader:
    """Notes what it is asked."""

    registry: DeviceRegistry
    version: int = 1
    failure: RequestFailure | None = None
    saved: list[tuple[DeviceId, int]] = field(default_factory=list)

    async def reload(self) -> FakeOutcome:
        if self.failure is not None:
            raise self.failure
        self.version = 2
        return FakeOutcome()

    async def save_weight(self, device_id: DeviceId, weight: int) -> Path:
        if self.failure is not None:
            raise self.failure
        self.saved.append((device_id, weight))
        self.registry.set_weight(device_id, weight)
        return Path("/etc/balancer.toml")


@dataclass
class FakeShutdown:
    """Notes what it is asked."""

    asked: list[bool] = field(default_factory=list)

    async def shutdown(self, *, stop_sessions: bool) -> tuple[int, tuple[str, ...]]:
        self.asked.append(stop_sessions)
        return (2, ()) if stop_sessions else (0, ("sessions/a", "sessions/b"))


@dataclass
class FakeTracer:
    """Begins traces by number."""

    begun: list[str] = field(default_factory=list)
    abandoned: list[tuple[str | None, str]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self) -> str | None:
        self.asked.set()
        self.begun.append(f"00-{len(self.begun) + 1:032x}-{1:016x}-01")
        return self.begun[-1]

    def abandon(self, traceparent: str | None, reason: str) -> None:
        self.abandoned.append((traceparent, reason))


@dataclass
class BalancerHouse:
    """Everything a test may turn, and a stub for each service."""

    engine: SessionEngine
    store: FakeSessionStore
    registry: DeviceRegistry
    agents: dict[DeviceId, FakeAgentMedia]
    uploads: UploadStore
    files: SessionFiles
    reloader: FakeReloader
    shutdown: FakeShutdown
    tracer: FakeTracer
    sessions: session_grpc.SessionServiceAsyncStub
    devices: device_grpc.DeviceServiceAsyncStub
    upload: upload_grpc.UploadServiceAsyncStub
    balancer: balancer_grpc.BalancerServiceAsyncStub

    @property
    def agent(self) -> FakeAgentMedia:
        """The first device's agent."""
        return next(iter(self.agents.values()))

    @property
    def spawned(self) -> list[Any]:
        """Every launch that any agent was asked for."""
        return [launch for agent in self.agents.values() for launch in agent.launches]


def report_of(name: str, core_count: int) -> AgentReport:
    """Makes what the agent of a CPU device tells of it."""
    view = device_view(name, core_count=core_count)
    return AgentReport(
        incarnation="one",
        version="0",
        process_id=1,
        identity=view.identity,
        ffmpeg_builds=(),
        capabilities=view.capabilities,
        probed=True,
        fault_message="",
        last_event_number=0,
        recording=RECORDS,
        ready_display_count=1,
    )


@asynccontextmanager
async def balancer_house(
    folder: Path,
    *,
    devices: dict[str, int] | None = None,
    probe_timeout: timedelta = timedelta(seconds=5),
    watch_limits: WatchLimits | None = None,
) -> AsyncIterator[BalancerHouse]:
    """Starts a balancer on a Unix socket.

    Args:
        folder: For its socket and its uploads.
        devices: Numbers of cores by name. None: one device that is hardly ever full.
        probe_timeout: How long an agent may look at an input.
        watch_limits: Numbers of watches at most. None: the usual ones.
    """
    devices = {"cpu-0": 1000} if devices is None else devices
    agents = {DeviceId(name): FakeAgentMedia(name) for name in devices}
    registry = DeviceRegistry()
    for name, core_count in devices.items():
        registry.update_agent(report_of(name, core_count))
    store, clock = FakeSessionStore(), SystemClock()
    async with TaskGuard("test") as tasks:
        engine = SessionEngine(
            store=store,
            agents=agents,
            devices=registry,
            rules=PlacementRules(
                policy=LeastWeightedLoad(), settings=PlacementSettings(), host_capacity=MappingProxyType({})
            ),
            clock=clock,
            tasks=tasks,
        )
        await engine.start()
        uploads = UploadStore(
            folder / "uploads", max_bytes=MAX_UPLOAD_BYTES, expire_after=timedelta(hours=1), clock=clock
        )
        await uploads.start()
        files = SessionFiles(engine.get, agents, changes=engine.changes.watch_session)
        reloader, shutdown, tracer = FakeReloader(registry), FakeShutdown(), FakeTracer()
        profiles = KnownProfiles(lambda: BUILT_IN_PROFILES)
        balancer = BalancerServicer(
            DaemonFacts(
                start_time=datetime(2030, 1, 1, tzinfo=UTC),
                state_dir=folder,
                settings_path=None,
                max_upload_bytes=uploads.max_bytes,
            ),
            engine=engine,
            settings=reloader,
            profiles=profiles,
            shutdown=shutdown,
        )
        sessions = SessionServicer(
            engine,
            questions=MediaQuestions(registry, agents, probe_timeout=probe_timeout),
            files=files,
            uploads=uploads,
            profiles=profiles,
            tracer=tracer,
            controls=RecordingControls(engine, agents, with_duration=with_duration),
            rules=RecordingRules(destinations=frozenset({"archive"})),
            watch_limits=watch_limits,
        )
        upload = UploadServicer(
            uploads,
            in_use=lambda: {name for record in engine.live() if (name := upload_of(record.payload))},
        )
        calibrations = Calibrations(registry=registry, engine=engine, agents=agents)
        drains = DeviceDrains(registry=registry, engine=engine, clock=clock)
        tasks.spawn_eternal(drains.run(), name="drains")
        device = DeviceServicer(
            registry,
            engine=engine,
            probes=DeviceProbes(registry, agents, tasks=tasks),
            settings=reloader,
            calibrations=calibrations,
            drains=drains,
            watch_limits=watch_limits,
        )
        server = build_server(
            addresses=[f"unix:{folder}/balancer.sock"],
            services=[
                ServedService(name="s", add=session_grpc.add_SessionServiceServicer_to_server, servicer=sessions),
                ServedService(name="d", add=device_grpc.add_DeviceServiceServicer_to_server, servicer=device),
                ServedService(name="u", add=upload_grpc.add_UploadServiceServicer_to_server, servicer=upload),
                ServedService(name="b", add=balancer_grpc.add_BalancerServiceServicer_to_server, servicer=balancer),
            ],
        )
        async with server, grpc.aio.insecure_channel(server.addresses[0]) as channel:
            balancer.listens_on(server.addresses, "http://127.0.0.1:8080")
            yield BalancerHouse(
                engine=engine,
                store=store,
                registry=registry,
                agents=agents,
                uploads=uploads,
                files=files,
                reloader=reloader,
                shutdown=shutdown,
                tracer=tracer,
                sessions=session_grpc.SessionServiceStub(channel),
                devices=device_grpc.DeviceServiceStub(channel),
                upload=upload_grpc.UploadServiceStub(channel),
                balancer=balancer_grpc.BalancerServiceStub(channel),
            )
        await engine.close()


async def failure_of(call: Awaitable[Any]) -> RequestFailure:
    """Awaits a call that must be refused, and reads the refusal from the wire."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    failure = failure_from_rpc_error(caught.value)
    assert failure is not None, caught.value
    assert caught.value.code().name == failure.reason.code.name
    return failure
