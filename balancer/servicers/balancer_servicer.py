"""BalancerService: what runs, with which settings, and its end."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from gpu_balancer import __version__
from gpu_balancer.v1 import balancer_service_pb2 as pb
from gpu_balancer.v1.balancer_service_pb2_grpc import BalancerServiceServicer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from pathlib import Path

    from balancer.servicers.device_servicer import SettingsReloader
    from balancer.servicers.profile_translation import KnownProfiles
    from balancer.session_engine import SessionEngine
    from balancer.session_queue import QueueFigures


class DaemonShutdown(Protocol):
    """Ends the daemon."""

    async def shutdown(self, *, stop_sessions: bool) -> tuple[int, Sequence[str]]:
        """Begins the end. MUST let open calls be answered.

        Args:
            stop_sessions: Completes every session's outputs first, and waits for it.

        Returns:
            How many sessions were asked to stop, and the names of those that still run.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonFacts:
    """What does not change while the daemon runs."""

    start_time: datetime
    state_dir: Path
    settings_path: Path | None
    max_upload_bytes: int


def _queue_summary(figures: QueueFigures) -> pb.QueueSummary:
    summary = pb.QueueSummary(
        live_count=figures.live_count, batch_count=figures.batch_count, max_sessions=figures.max_sessions
    )
    if figures.longest_wait is not None:
        summary.longest_wait.FromTimedelta(figures.longest_wait)
    return summary


class BalancerServicer(BalancerServiceServicer):
    """Answers clients about the daemon."""

    def __init__(
        self,
        facts: DaemonFacts,
        *,
        engine: SessionEngine,
        settings: SettingsReloader,
        profiles: KnownProfiles,
        shutdown: DaemonShutdown,
    ) -> None:
        """Makes the servicer of a daemon that does not listen yet."""
        self._facts = facts
        self._engine = engine
        self._settings = settings
        self._profiles = profiles
        self._shutdown = shutdown
        self._addresses: tuple[str, ...] = ()
        self._http_address = ""

    def listens_on(self, addresses: Sequence[str], http_address: str) -> None:
        """Takes where the daemon listens, once it does.

        Args:
            addresses: Of gRPC.
            http_address: "http://127.0.0.1:8080" for instance. Empty: there is no HTTP.
        """
        self._addresses = tuple(addresses)
        self._http_address = http_address

    async def GetBalancer(self, _request: pb.GetBalancerRequest, _context: object) -> pb.GetBalancerResponse:  # noqa: N802
        """Tells what runs."""
        facts = self._facts
        response = pb.GetBalancerResponse(
            version=__version__,
            process_id=os.getpid(),
            listen_addresses=self._addresses,
            http_address=self._http_address,
            state_dir=str(facts.state_dir),
            settings_path=str(facts.settings_path or ""),
            settings_version=self._settings.version,
            policy=self._engine.rules.policy.name,
            profiles=[
                pb.Profile(name=name, renditions=renditions) for name, renditions in self._profiles.now().items()
            ],
            max_upload_bytes=facts.max_upload_bytes,
            queue=_queue_summary(self._engine.waiting),
        )
        response.start_time.FromDatetime(facts.start_time)
        return response

    async def Shutdown(self, request: pb.ShutdownRequest, _context: object) -> pb.ShutdownResponse:  # noqa: N802
        """Ends the daemon, with or without its sessions."""
        stopped, running = await self._shutdown.shutdown(stop_sessions=request.stop_sessions)
        return pb.ShutdownResponse(stopped_sessions=stopped, running_sessions=running)
