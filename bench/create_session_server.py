"""One side of bench.create_session in a process of its own: the balancer with agents stubbed, or a bare echo.

Both run on the event loop that the daemon runs on.

python -m bench.create_session_server balancer|echo|echo-uvloop SOCKET STATE_FOLDER
"""

from __future__ import annotations

import asyncio
import signal
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import uvloop

from balancer.adapters.sqlite_session_store import SqliteSessionStore
from balancer.agent_directory import AgentDirectory
from balancer.calibrations import Calibrations
from balancer.device_drains import DeviceDrains
from balancer.device_probes import DeviceProbes
from balancer.device_registry import DeviceRegistry, DeviceRule
from balancer.domain.capacity import CapacityOverride
from balancer.domain.device import Capability, DeviceIdentity, DeviceKind, Direction
from balancer.domain.ids import DeviceId
from balancer.domain.workload import VideoCodec
from balancer.ports.agent_client import AgentReport
from balancer.servicers.balancer_servicer import DaemonFacts
from balancer.serving import Parts, Serving
from balancer.session_engine import SessionEngine
from balancer.session_telemetry import SessionTelemetry
from balancer.settings import BalancerSettings
from balancer.settings_reload import SettingsReload, placement_rules
from balancer.shutdown import Shutdown
from balancer.uploads import UploadStore
from balancer.usable_settings import make_policy
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.garbage import collect_seldom
from gpu_balancer.runtime.grpc_server import build_server
from gpu_balancer.runtime.task_guard import TaskGuard
from gpu_balancer.runtime.telemetry import build_telemetry
from gpu_balancer.v1 import session_service_pb2
from gpu_balancer.v1.session_service_pb2_grpc import SessionServiceServicer, add_SessionServiceServicer_to_server

if TYPE_CHECKING:
    from balancer.domain.session import SessionRecord

DEVICES = 8
_PLENTY = 10**15


class _StubAgent:
    """An agent's end that takes every launch at once and starts nothing."""

    async def launch(self, _record: SessionRecord) -> None:
        return None


class _Echo(SessionServiceServicer):
    """Gives back what it got."""

    async def CreateSession(  # noqa: N802
        self, request: session_service_pb2.CreateSessionRequest, _context: object
    ) -> session_service_pb2.CreateSessionResponse:
        return session_service_pb2.CreateSessionResponse(session=request.session)


async def serve_echo(socket: str, _state: Path) -> None:
    """Serves the echo until SIGTERM."""
    server = grpc.aio.server()
    add_SessionServiceServicer_to_server(_Echo(), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await _until_told()
    await server.stop(0)


async def serve_balancer(socket: str, state: Path) -> None:
    """Serves the balancer's own services, store and placement until SIGTERM."""
    settings, clock = BalancerSettings(), SystemClock()
    telemetry = build_telemetry(settings.telemetry, component="balancer", instance="bench", prometheus=True)
    registry, agents = _devices()
    observer = SessionTelemetry(telemetry, clock=clock)
    async with TaskGuard("bench") as tasks:
        engine = SessionEngine(
            store=SqliteSessionStore(state / "balancer.sqlite"),
            agents=agents,
            devices=registry,
            rules=placement_rules(settings, policy=make_policy(settings), version=1, host_capacity={}),
            clock=clock,
            tasks=tasks,
            observer=observer,
        )
        await engine.start()
        uploads = UploadStore(state / "uploads", max_bytes=1, expire_after=timedelta(hours=1), clock=clock)
        await uploads.start()
        reload = SettingsReload(
            path=None, settings=settings, registry=registry, engine=engine, on_applied=lambda _: None
        )
        parts = Parts(
            engine=engine,
            registry=registry,
            agents=agents,  # type: ignore[arg-type]
            calibrations=Calibrations(registry=registry, engine=engine, agents=agents),  # type: ignore[arg-type]
            drains=DeviceDrains(registry=registry, engine=engine, clock=clock),
            probes=DeviceProbes(registry, agents, tasks=tasks),  # type: ignore[arg-type]
            opened=_at_once,
            uploads=uploads,
            reload=reload,
            shutdown=Shutdown(
                engine=engine, agents=(), let_agents_go=lambda: None, stop_timeout=timedelta(), tasks=tasks
            ),
            tracer=observer,
            facts=DaemonFacts(start_time=clock.now(), state_dir=state, settings_path=None, max_upload_bytes=1),
            probe_timeout=timedelta(seconds=5),
        )
        async with build_server(addresses=[f"unix:{socket}"], services=Serving(parts).services) as server:
            await server.set_serving(serving=True)
            collect_seldom()
            await _until_told()
        await engine.close()


async def _at_once() -> None:
    """Nothing is to be reconciled here."""


def _devices() -> tuple[DeviceRegistry, AgentDirectory[_StubAgent]]:
    override = CapacityOverride(
        decode_pixels_per_second=_PLENTY, scale_pixels_per_second=_PLENTY, encode_pixels_per_second=_PLENTY
    )
    registry = DeviceRegistry([DeviceRule(kind=DeviceKind.NVIDIA, match="*", override=override)])
    agents: AgentDirectory[_StubAgent] = AgentDirectory()
    capabilities = tuple(
        Capability(
            codec=VideoCodec.H264,
            direction=direction,
            bit_depth=8,
            works=True,
            hardware=True,
            implementation=implementation,
            ffmpeg="/usr/bin/ffmpeg",
        )
        for direction, implementation in ((Direction.ENCODE, "h264_nvenc"), (Direction.DECODE, "h264"))
    )
    for number in range(DEVICES):
        identity = DeviceIdentity(
            id=DeviceId(f"GPU-{number}"),
            kind=DeviceKind.NVIDIA,
            model="NVIDIA L40S",
            encoder_engines=3,
            decoder_engines=3,
        )
        registry.update_agent(
            AgentReport(
                incarnation="bench",
                version="bench",
                process_id=0,
                identity=identity,
                ffmpeg_builds=(),
                capabilities=capabilities,
                probed=True,
                fault_message="",
                last_event_number=0,
            )
        )
        agents.add(identity.id, _StubAgent())
    return registry, agents


async def _until_told() -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    await told.wait()


if __name__ == "__main__":
    side, socket_path, state_folder = sys.argv[1:]
    serve = serve_balancer if side == "balancer" else serve_echo
    # The balancer as its daemon runs; the echo as it comes, and on the balancer's loop.
    with asyncio.Runner(loop_factory=None if side == "echo" else uvloop.new_event_loop) as runner:
        runner.run(serve(socket_path, Path(state_folder)))
