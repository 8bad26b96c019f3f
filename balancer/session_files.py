"""What sessions leave with the agents of their devices: logs and artifacts, for gRPC and HTTP alike.

Nothing is kept here: pieces pass through one at a time, as fast as they are read.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, cast
from urllib.parse import quote

import structlog

from balancer.agent_answers import agent_failures, forwarded, unreachable
from balancer.ports.agent_client import AgentUnreachableError
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord
    from balancer.ports.agent_media import AgentMedia, AgentMediaDirectory
    from gpu_balancer.v1.agent_service_pb2 import AgentServiceReadArtifactResponse
    from gpu_balancer.v1.session_pb2 import Artifact

_log = structlog.stdlib.get_logger(__name__)

_LAST_BYTE = 2**63 - 1
"""Of any file; beyond it no offset can be asked of a kernel."""


_NOTHING_THERE = (Reason.ARTIFACT_NOT_FOUND, Reason.SESSION_NOT_FOUND)
"""Of the latter: an agent that refused an attempt has never had it."""


class SessionFiles:
    """Reads from the agents that have a session's files."""

    def __init__(
        self,
        session: Callable[[SessionId], SessionRecord],
        agents: AgentMediaDirectory,
        *,
        changes: Callable[[SessionId], AsyncIterator[SessionRecord]] | None = None,
    ) -> None:
        """Makes the reader.

        Args:
            session: Gives a session, or raises SESSION_NOT_FOUND: `SessionEngine.get`.
            agents: Read for it.
            changes: Gives a session at each change, last its end. None: logs are not followed beyond an attempt.
        """
        self._session = session
        self._agents = agents
        self._changes = changes

    async def artifacts(self, session_id: SessionId) -> Sequence[Artifact]:
        """Lists everything a session left, by path: of its present attempt, and of earlier ones that it continues.

        Of equal paths the newest counts. What an earlier device has whose agent does not answer is left out.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; AGENT_UNREACHABLE.
        """
        what = f"list the artifacts of sessions/{session_id}"
        record = self._session(session_id)
        present = self._agent(record, what)
        found = {}
        for artifacts in await asyncio.gather(
            *(self._of_earlier(device_id, session_id) for device_id in reversed(_earlier_devices(record)))
        ):
            found.update({artifact.path: artifact for artifact in artifacts})
        if present is not None:
            found.update({artifact.path: artifact for artifact in await _of_present(present, session_id, what)})
        for artifact in found.values():
            _complete(artifact, session_id)
        return [found[path] for path in sorted(found)]

    async def _of_earlier(self, device_id: DeviceId, session_id: SessionId) -> Sequence[Artifact]:
        agent = self._agents.get(device_id)
        if agent is None:
            return ()
        try:
            return await agent.list_artifacts(session_id)
        except (AgentUnreachableError, TimeoutError, RequestFailure) as error:
            _log.info(
                "files of an earlier attempt cannot be seen", device=device_id, session=session_id, why=str(error)
            )
            return ()

    async def artifact_bytes(self, session_id: SessionId) -> int:
        """Sums the sizes of everything a session left.

        Raises:
            RequestFailure: As `artifacts`.
        """
        return sum(artifact.size_bytes for artifact in await self.artifacts(session_id))

    async def artifact(
        self, session_id: SessionId, path: str, *, offset_bytes: int = 0, limit_bytes: int = 0
    ) -> AsyncGenerator[AgentServiceReadArtifactResponse, None]:
        """Reads an artifact or a range of it: the present attempt's, else that of the newest that has it.

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
        record = self._session(session_id)
        present = self._agent(record, what)
        earlier = (self._agents.get(device_id) for device_id in _earlier_devices(record))
        holders = [agent for agent in (present, *earlier) if agent is not None]
        for place, agent in enumerate(holders, start=1):
            stream = agent.read_artifact(
                f"sessions/{session_id}/artifacts/{path}",
                offset_bytes=min(offset_bytes, _LAST_BYTE),
                limit_bytes=min(limit_bytes, _LAST_BYTE),
            )
            try:
                async for piece in forwarded(stream, what):
                    if piece.HasField("artifact"):
                        _complete(piece.artifact, session_id)
                    yield piece
                return
            except RequestFailure as failure:
                # Always before the first piece: a file that is being read is there.
                if failure.reason not in _NOTHING_THERE:
                    raise
                if failure.reason is Reason.ARTIFACT_NOT_FOUND and place == len(holders):
                    raise
        raise RequestFailure(reason=Reason.ARTIFACT_NOT_FOUND, message=f"Cannot {what}: the session has left nothing.")

    async def log(
        self, session_id: SessionId, *, tail_lines: int | None, follow: bool
    ) -> AsyncGenerator[Sequence[str], None]:
        """Reads the log of a session's present attempt; while it waits to begin again, that of the last one.

        Args:
            session_id: Whose.
            tail_lines: Begins with this many last lines. None: with the first.
            follow: Goes on until the session ends, over further attempts as they begin.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; AGENT_UNREACHABLE.
        """
        what = f"read the log of sessions/{session_id}"
        record = self._session(session_id)
        last = record.last_restart
        device_id, attempt = record.device_id, record.attempt
        if device_id is None and last is not None:
            device_id, attempt = last.device_id, last.attempt
        agent = self._required(device_id, what)
        if agent is not None:
            first = agent.read_session_log(session_id, attempt, tail_lines=tail_lines, follow=follow)
            async for lines in forwarded(first, what):
                yield lines
        if not follow or self._changes is None:
            return
        # A feed is a generator, which must be closed at once and not when it is collected.
        changes = cast("AsyncGenerator[SessionRecord, None]", self._changes(session_id))
        async with aclosing(changes) as records:
            async for now in records:
                agent = self._required(now.device_id, what)
                # Before its first frame the agent may not have heard of it.
                if agent is None or now.attempt <= attempt or not (now.running_time or now.state.final):
                    continue
                attempt = now.attempt
                further = agent.read_session_log(session_id, attempt, tail_lines=None, follow=True)
                async for lines in forwarded(further, what):
                    yield lines

    def _agent(self, record: SessionRecord, what: str) -> AgentMedia | None:
        """Gives the agent of a session's present attempt. None: it has none."""
        return self._required(record.device_id, what)

    def _required(self, device_id: DeviceId | None, what: str) -> AgentMedia | None:
        if device_id is None:
            return None
        agent = self._agents.get(device_id)
        if agent is None:
            raise unreachable(what)
        return agent


async def _of_present(agent: AgentMedia, session_id: SessionId, what: str) -> Sequence[Artifact]:
    try:
        with agent_failures(what):
            return await agent.list_artifacts(session_id)
    except RequestFailure as failure:
        if failure.reason is not Reason.SESSION_NOT_FOUND:
            raise
        return ()


def _earlier_devices(record: SessionRecord) -> tuple[DeviceId, ...]:
    """Gives other devices that may have files of attempts which the present one continues, newest first.

    Of a session that ended before its last attempt had begun, those of the attempts whose place that was to take.
    """
    unbegun = record.state.final and record.running_time is None
    begun = reversed(record.earlier_device_ids) if unbegun else ()
    devices = dict.fromkeys((*(ended.device_id for ended in reversed(record.ended_attempts)), *begun))
    return tuple(device_id for device_id in devices if device_id != record.device_id)


def _complete(artifact: Artifact, session_id: SessionId) -> None:
    """Adds what only the balancer knows: where the artifact is on its HTTP port."""
    artifact.name = f"sessions/{session_id}/artifacts/{artifact.path}"
    artifact.http_path = f"/v1/sessions/{session_id}/artifacts/{quote(artifact.path)}"
