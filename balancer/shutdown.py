"""The end of the daemon: at a signal sessions run on with their agents; when asked to, they are stopped first."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import structlog

from balancer.ports.agent_client import AgentUnreachableError
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from balancer.change_feed import FeedItem
    from balancer.domain.ids import DeviceId, SessionId
    from balancer.ports.agent_client import AgentClient
    from balancer.session_engine import SessionEngine
    from gpu_balancer.runtime.task_guard import TaskGuard

_log = structlog.get_logger(__name__)

_AGENT_PATIENCE_S = 5.0
"""An agent that is just being started answers within this time; one that hangs ends when no balancer comes back."""
_AGENT_PAUSE_S = 0.1


class Shutdown:
    """Waits for the wish to end, and carries it out."""

    def __init__(
        self,
        *,
        engine: SessionEngine,
        agents: Iterable[tuple[DeviceId, AgentClient]],
        let_agents_go: Callable[[], None],
        stop_timeout: timedelta,
        tasks: TaskGuard,
    ) -> None:
        """Begins without a wish.

        Args:
            engine: Stops sessions.
            agents: Told to end once their sessions have.
            let_agents_go: Keeps agents that end from being started again.
            stop_timeout: How long stopped sessions get to complete their outputs.
            tasks: Owns the end while it is being carried out.
        """
        self._engine = engine
        self._agents = agents
        self._let_agents_go = let_agents_go
        self._stop_timeout = stop_timeout
        self._tasks = tasks
        self._wished = asyncio.Event()

    def wish(self) -> None:
        """Asks the daemon to end; sessions run on."""
        self._engine.refuse_admissions()
        self._wished.set()

    async def wished(self) -> None:
        """Returns when the daemon is to end."""
        await self._wished.wait()

    async def shutdown(self, *, stop_sessions: bool) -> tuple[int, tuple[str, ...]]:
        """Ends the daemon, with or without its sessions. Whoever asked may hang up meanwhile.

        Args:
            stop_sessions: Completes every session's outputs first, then ends the local agents too.

        Returns:
            How many sessions were asked to stop, and the names of those that still run.
        """
        carried_out = self._tasks.spawn(self._carry_out(stop_sessions=stop_sessions), name="shut down")
        return await asyncio.shield(carried_out)

    async def _carry_out(self, *, stop_sessions: bool) -> tuple[int, tuple[str, ...]]:
        self._engine.refuse_admissions()
        live = [record.id for record in self._engine.live()]
        if stop_sessions:
            await self._stop(live)
        running = tuple(f"sessions/{record.id}" for record in self._engine.live())
        if stop_sessions and not running:
            await self._end_agents()
        _log.info("shutting down", stopped=len(live) if stop_sessions else 0, running=running)
        self._wished.set()
        return (len(live) if stop_sessions else 0), running

    async def _stop(self, live: list[SessionId]) -> None:
        await asyncio.gather(*(self._engine.stop(session_id) for session_id in live), return_exceptions=True)
        try:
            async with asyncio.timeout(self._stop_timeout.total_seconds()):
                await self._await_all_ended()
        except TimeoutError:
            _log.warning("sessions did not end in time", timeout_s=self._stop_timeout.total_seconds())

    async def _await_all_ended(self) -> None:
        async with aclosing(cast("AsyncGenerator[FeedItem, None]", self._engine.changes.watch_sessions())) as changes:
            async for _ in changes:
                if not self._engine.live():
                    return

    async def _end_agents(self) -> None:
        self._let_agents_go()
        await asyncio.gather(*(self._end_agent(device_id, agent) for device_id, agent in self._agents))

    async def _end_agent(self, device_id: DeviceId, agent: AgentClient) -> None:
        try:
            async with asyncio.timeout(_AGENT_PATIENCE_S):
                # An agent that starts tells nobody when it is there: it is asked until it answers.
                while not await _ended(agent):  # noqa: ASYNC110
                    await asyncio.sleep(_AGENT_PAUSE_S)
        except (TimeoutError, RequestFailure) as error:
            problem = str(error) or f"no answer within {_AGENT_PATIENCE_S:g} s"
            _log.warning("agent does not end", device=device_id, error=problem)


async def _ended(agent: AgentClient) -> bool:
    """Asks an agent to end. Returns False when it does not answer, as while it starts."""
    try:
        await agent.shutdown()
    except AgentUnreachableError:
        return False
    return True
