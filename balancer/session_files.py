"""What sessions leave with the agents of their devices: logs and artifacts, for gRPC and HTTP alike.

Nothing is kept here: pieces pass through one at a time, as fast as they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from balancer.agent_answers import agent_failures, forwarded, unreachable
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from balancer.domain.ids import SessionId
    from balancer.domain.session import SessionRecord
    from balancer.ports.agent_media import AgentMedia, AgentMediaDirectory
    from gpu_balancer.v1.agent_service_pb2 import AgentServiceReadArtifactResponse
    from gpu_balancer.v1.session_pb2 import Artifact

_LAST_BYTE = 2**63 - 1
"""Of any file; beyond it no offset can be asked of a kernel."""


class SessionFiles:
    """Reads from the agent that has a session's files."""

    def __init__(self, session: Callable[[SessionId], SessionRecord], agents: AgentMediaDirectory) -> None:
        """Makes the reader.

        Args:
            session: Gives a session, or raises SESSION_NOT_FOUND: `SessionEngine.get`.
            agents: Read for it.
        """
        self._session = session
        self._agents = agents

    async def artifacts(self, session_id: SessionId) -> Sequence[Artifact]:
        """Lists everything a session left, by path.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; AGENT_UNREACHABLE.
        """
        what = f"list the artifacts of sessions/{session_id}"
        agent = self._agent(self._session(session_id), what)
        if agent is None:
            return ()
        with agent_failures(what):
            artifacts = await agent.list_artifacts(session_id)
        for artifact in artifacts:
            _complete(artifact, session_id)
        return artifacts

    async def artifact_bytes(self, session_id: SessionId) -> int:
        """Sums the sizes of everything a session left.

        Raises:
            RequestFailure: As `artifacts`.
        """
        return sum(artifact.size_bytes for artifact in await self.artifacts(session_id))

    async def artifact(
        self, session_id: SessionId, path: str, *, offset_bytes: int = 0, limit_bytes: int = 0
    ) -> AsyncGenerator[AgentServiceReadArtifactResponse, None]:
        """Reads an artifact or a range of it.

        Args:
            session_id: Whose.
            path: Which, as ListArtifacts gives it.
            offset_bytes: First byte.
            limit_bytes: At most this many. 0: to its present end.

        Yields:
            First what it is, then its bytes.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; ARTIFACT_NOT_FOUND; RANGE_INVALID, with `size_bytes` in its metadata;
                AGENT_UNREACHABLE.
        """
        what = f"read {path!r} of sessions/{session_id}"
        agent = self._agent(self._session(session_id), what)
        if agent is None:
            raise RequestFailure(
                reason=Reason.ARTIFACT_NOT_FOUND, message=f"Cannot {what}: the session has left nothing."
            )
        stream = agent.read_artifact(
            f"sessions/{session_id}/artifacts/{path}",
            offset_bytes=min(offset_bytes, _LAST_BYTE),
            limit_bytes=min(limit_bytes, _LAST_BYTE),
        )
        async for piece in forwarded(stream, what):
            if piece.HasField("artifact"):
                _complete(piece.artifact, session_id)
            yield piece

    async def log(
        self, session_id: SessionId, *, tail_lines: int | None, follow: bool
    ) -> AsyncGenerator[Sequence[str], None]:
        """Reads the log of a session's present attempt.

        Args:
            session_id: Whose.
            tail_lines: Begins with this many last lines. None: with the first.
            follow: Goes on until the attempt ends.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; AGENT_UNREACHABLE.
        """
        what = f"read the log of sessions/{session_id}"
        record = self._session(session_id)
        agent = self._agent(record, what)
        if agent is None:
            return
        stream = agent.read_session_log(session_id, record.attempt, tail_lines=tail_lines, follow=follow)
        async for lines in forwarded(stream, what):
            yield lines

    def _agent(self, record: SessionRecord, what: str) -> AgentMedia | None:
        """Gives the agent that has a session's files. None: the session was never placed, so there are none."""
        if record.device_id is None:
            return None
        agent = self._agents.get(record.device_id)
        if agent is None:
            raise unreachable(what)
        return agent


def _complete(artifact: Artifact, session_id: SessionId) -> None:
    """Adds what only the balancer knows: where the artifact is on its HTTP port."""
    artifact.name = f"sessions/{session_id}/artifacts/{artifact.path}"
    artifact.http_path = f"/v1/sessions/{session_id}/artifacts/{quote(artifact.path)}"
