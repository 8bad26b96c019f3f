"""Who answers for which service of the contract: the servicers, made and handed to the gRPC server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from balancer.recording_controls import RecordingControls
from balancer.servicers.balancer_servicer import BalancerServicer, DaemonFacts, DaemonShutdown
from balancer.servicers.control_requests import with_duration
from balancer.servicers.device_servicer import DeviceServicer
from balancer.servicers.media_questions import MediaQuestions
from balancer.servicers.profile_translation import KnownProfiles
from balancer.servicers.recording_rules import recording_rules
from balancer.servicers.session_servicer import SessionServicer
from balancer.servicers.session_translation import upload_of
from balancer.servicers.upload_servicer import UploadServicer
from balancer.session_files import SessionFiles
from balancer.settings_reload import restart_rule
from gpu_balancer.runtime.grpc_server import ServedService
from gpu_balancer.v1 import balancer_service_pb2, device_service_pb2, session_service_pb2, upload_service_pb2
from gpu_balancer.v1.balancer_service_pb2_grpc import add_BalancerServiceServicer_to_server
from gpu_balancer.v1.device_service_pb2_grpc import add_DeviceServiceServicer_to_server
from gpu_balancer.v1.session_service_pb2_grpc import add_SessionServiceServicer_to_server
from gpu_balancer.v1.upload_service_pb2_grpc import add_UploadServiceServicer_to_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from balancer.adapters.grpc_agent_client import GrpcAgentClient
    from balancer.agent_directory import AgentDirectory
    from balancer.calibrations import Calibrations
    from balancer.device_drains import DeviceDrains
    from balancer.device_probes import DeviceProbes
    from balancer.device_registry import DeviceRegistry
    from balancer.ports.session_tracer import SessionTracer
    from balancer.session_engine import SessionEngine
    from balancer.settings_reload import SettingsReload
    from balancer.uploads import UploadStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What servicers speak to."""

    engine: SessionEngine
    registry: DeviceRegistry
    agents: AgentDirectory[GrpcAgentClient]
    calibrations: Calibrations
    drains: DeviceDrains
    probes: DeviceProbes
    uploads: UploadStore
    opened: Callable[[], Awaitable[None]]
    """Returns when new sessions may be taken."""
    reload: SettingsReload
    shutdown: DaemonShutdown
    tracer: SessionTracer
    facts: DaemonFacts
    probe_timeout: timedelta


class Serving:
    """The balancer's services."""

    def __init__(self, parts: Parts) -> None:
        """Makes every servicer."""
        self._engine = parts.engine
        self.files = SessionFiles(parts.engine.get, parts.agents, changes=parts.engine.changes.watch_session)
        profiles = KnownProfiles(lambda: parts.reload.settings.profiles)
        sessions = SessionServicer(
            parts.engine,
            questions=MediaQuestions(parts.registry, parts.agents, probe_timeout=parts.probe_timeout),
            files=self.files,
            uploads=parts.uploads,
            profiles=profiles,
            tracer=parts.tracer,
            opened=parts.opened,
            controls=RecordingControls(parts.engine, parts.agents, with_duration=with_duration),
            rules=recording_rules(parts.reload.settings),
            restart=lambda: restart_rule(parts.reload.settings),
        )
        devices = DeviceServicer(
            parts.registry,
            engine=parts.engine,
            probes=parts.probes,
            settings=parts.reload,
            calibrations=parts.calibrations,
            drains=parts.drains,
        )
        uploads = UploadServicer(parts.uploads, in_use=self.uploads_in_use)
        self.balancer = BalancerServicer(
            parts.facts, engine=parts.engine, settings=parts.reload, profiles=profiles, shutdown=parts.shutdown
        )
        self.services = (
            ServedService(
                name=session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name,
                add=add_SessionServiceServicer_to_server,
                servicer=sessions,
            ),
            ServedService(
                name=device_service_pb2.DESCRIPTOR.services_by_name["DeviceService"].full_name,
                add=add_DeviceServiceServicer_to_server,
                servicer=devices,
            ),
            ServedService(
                name=upload_service_pb2.DESCRIPTOR.services_by_name["UploadService"].full_name,
                add=add_UploadServiceServicer_to_server,
                servicer=uploads,
            ),
            ServedService(
                name=balancer_service_pb2.DESCRIPTOR.services_by_name["BalancerService"].full_name,
                add=add_BalancerServiceServicer_to_server,
                servicer=self.balancer,
            ),
        )

    def uploads_in_use(self) -> set[str]:
        """Gives the names of the uploads that live sessions read."""
        return {upload for record in self._engine.live() if (upload := upload_of(record.payload))}
