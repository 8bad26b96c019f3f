"""What clients do to a recording while it is made: pause, resume, extend, look at it.

All of it is the agent's to do, so it is passed on and its answer given back. What outlasts an attempt, how long a
recording may run, is kept as well, so that a session that waits or begins anew on another device has it too.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from balancer.agent_answers import agent_failures, unreachable
from balancer.domain.restart import left_of
from balancer.domain.session import SessionState
from balancer.domain.workload import SessionKind
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from balancer.domain.ids import SessionId
    from balancer.domain.session import SessionRecord
    from balancer.ports.agent_recordings import AgentRecordings, AgentRecordingsDirectory, Snapshot

ANSWER_TIMEOUT = timedelta(seconds=10)
"""For the launch that may be on its way, and the answer."""

_RUNNING = frozenset({SessionState.RUNNING})
_PLACED = frozenset({SessionState.STARTING, SessionState.RUNNING})


class ControlledSessions(Protocol):
    """What is needed of the engine."""

    def get(self, session_id: SessionId) -> SessionRecord:
        """Gives a session, or raises SESSION_NOT_FOUND."""
        ...

    async def launched(self, record: SessionRecord) -> None:
        """Returns once the launch of a session's present attempt is not under way."""
        ...

    async def amend(self, session_id: SessionId, payload: bytes) -> SessionRecord:
        """Keeps what a client changed of what it had asked for."""
        ...


class WithDuration(Protocol):
    """Knows what a client said, which is opaque here."""

    def __call__(self, payload: bytes, max_duration: timedelta | None, /) -> bytes:
        """Gives a session with another bound of time. None: without one."""
        ...


class RecordingControls:
    """Passes on what clients want of recordings."""

    def __init__(
        self, sessions: ControlledSessions, agents: AgentRecordingsDirectory, *, with_duration: WithDuration
    ) -> None:
        """Makes the controls.

        Args:
            sessions: The engine.
            agents: Speak to the agents of devices.
            with_duration: Changes a session's bound of time.
        """
        self._sessions = sessions
        self._agents = agents
        self._with_duration = with_duration

    async def pause(self, session_id: SessionId) -> SessionRecord:
        """Lets a recording rest.

        Raises:
            RequestFailure: SESSION_NOT_FOUND; SESSION_NOT_RECORDING; AGENT_UNREACHABLE; the agent's own.
        """
        what = f"pause sessions/{session_id}"
        record = self._required(session_id, what, _RUNNING)
        async with _answer(what):
            await self._agent(record, what).pause(session_id, record.attempt)
        return self._sessions.get(session_id)

    async def resume(self, session_id: SessionId) -> SessionRecord:
        """Goes on recording, also one that was moved while it rested, and so has not begun anew. Raises as `pause`."""
        what = f"resume sessions/{session_id}"
        record = self._required(session_id, what, _PLACED)
        async with _answer(what):
            await self._sessions.launched(record)
            await self._agent(record, what).resume(session_id, record.attempt)
        return self._sessions.get(session_id)

    async def snapshot(self, session_id: SessionId, *, width: int | None) -> Snapshot:
        """Has a picture of a recording's display taken, also before it has begun. Raises as `pause`."""
        what = f"take a picture of sessions/{session_id}"
        record = self._required(session_id, what, _PLACED)
        async with _answer(what):
            await self._sessions.launched(record)
            return await self._agent(record, what).snapshot(session_id, record.attempt, width=width)

    async def extend(self, session_id: SessionId, max_duration: timedelta | None) -> SessionRecord:
        """Gives a recording another bound of time, also one that waits for a device. None: none.

        The agent is told first: what is kept is what it has agreed to.

        Raises:
            RequestFailure: As `pause`; STORE_UNAVAILABLE or DISK_FULL when it could not be kept, though the agent
                knows.
        """
        what = f"extend sessions/{session_id}"
        record = self._required(session_id, what, _PLACED | {SessionState.QUEUED})
        if record.state is not SessionState.QUEUED:
            async with _answer(what):
                # An agent that is just being told of the attempt would hear of the old bound after the new one.
                await self._sessions.launched(record)
                left = None if max_duration is None else left_of(max_duration, record.ran_for)
                await self._agent(record, what).extend(session_id, record.attempt, left)
        payload = self._sessions.get(session_id).payload
        return await self._sessions.amend(session_id, self._with_duration(payload, max_duration))

    def _required(self, session_id: SessionId, what: str, states: frozenset[SessionState]) -> SessionRecord:
        """Gives a recording in one of some states, or refuses."""
        record = self._sessions.get(session_id)
        if record.workload.kind is not SessionKind.RECORDING:
            problem, advice = "it is no recording", "Try a session that is"
        elif record.state.final:
            problem, advice = "it has ended", "Try its artifacts"
        elif record.state not in states:
            problem, advice = f"it is {record.state.value}", "Try again when it is running"
        else:
            return record
        raise RequestFailure(reason=Reason.SESSION_NOT_RECORDING, message=f"Cannot {what}: {problem}. {advice}.")

    def _agent(self, record: SessionRecord, what: str) -> AgentRecordings:
        agent = self._agents.get(record.device_id) if record.device_id is not None else None
        if agent is None:
            raise unreachable(what)
        return agent


@asynccontextmanager
async def _answer(what: str) -> AsyncIterator[None]:
    """Awaits an agent for as long as a client would, and tells its failures in the client's words."""
    with agent_failures(what):
        async with asyncio.timeout(ANSWER_TIMEOUT.total_seconds()):
            yield
