"""What clients want to know from the agent of a device: what an input is, how a command looks, logs and artifacts.

It forwards: messages of the contract go through as they are, because the balancer has nothing to add to them and must
not hold them. Refusals raise `RequestFailure` with the agent's own reason and its own field paths; an agent that does
not answer raises `AgentUnreachableError`.

Streams MUST ask the agent for more only as they are read, and MUST end the agent's call when they are closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import timedelta

    from balancer.domain.ids import DeviceId, SessionId
    from gpu_balancer.v1.agent_service_pb2 import AgentServiceReadArtifactResponse
    from gpu_balancer.v1.media_pb2 import Input, InputFacts, Output
    from gpu_balancer.v1.session_pb2 import Artifact, Session


class AgentMedia(Protocol):
    """Asks one agent."""

    async def probe_input(self, source: Input, *, timeout: timedelta) -> InputFacts:
        """Has an input opened and described, within a time."""
        ...

    async def check_outputs(self, outputs: Sequence[Output]) -> None:
        """Has it checked that outputs may be written."""
        ...

    async def describe_command(self, session: Session) -> Sequence[str]:
        """Asks which program and arguments would run a session, secrets redacted."""
        ...

    def read_session_log(
        self, session_id: SessionId, attempt: int, *, tail_lines: int | None, follow: bool
    ) -> AsyncIterator[Sequence[str]]:
        """Streams the lines of an attempt's log, secrets redacted."""
        ...

    async def list_artifacts(self, session_id: SessionId) -> Sequence[Artifact]:
        """Lists everything a session left, by path."""
        ...

    def read_artifact(
        self, name: str, *, offset_bytes: int, limit_bytes: int
    ) -> AsyncIterator[AgentServiceReadArtifactResponse]:
        """Streams an artifact, first what it is. `limit_bytes` 0 reads to its present end."""
        ...


class AgentMediaDirectory(Protocol):
    """Finds who asks the agent of a device."""

    def get(self, device_id: DeviceId, /) -> AgentMedia | None:
        """Gives who asks a device's agent. None: no agent speaks for the device."""
        ...
