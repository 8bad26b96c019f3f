"""The end of the daemon goes on when whoever asked for it has hung up, and starts no agent again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from types import SimpleNamespace

from balancer.domain.ids import DeviceId, SessionId
from balancer.ports.agent_client import AgentUnreachableError
from balancer.shutdown import Shutdown
from gpu_balancer.runtime.task_guard import TaskGuard


class SlowEngine:
    """An engine whose one session ends when it is told to."""

    def __init__(self) -> None:
        self.refusing = False
        self.ended = asyncio.Event()
        self.stopped = asyncio.Event()
        self.changes = SimpleNamespace(watch_sessions=self._watch)

    def refuse_admissions(self) -> None:
        self.refusing = True

    def live(self) -> list[SimpleNamespace]:
        return [] if self.ended.is_set() else [SimpleNamespace(id=SessionId("one"))]

    async def stop(self, session_id: SessionId) -> None:
        self.stopped.set()

    async def _watch(self) -> AsyncIterator[None]:
        yield None
        await self.ended.wait()
        yield None


class RememberedAgent:
    def __init__(self, order: list[str]) -> None:
        self.order = order

    async def shutdown(self) -> None:
        self.order.append("agent ended")


class StartingAgent(RememberedAgent):
    """Does not listen yet when it is asked first."""

    async def shutdown(self) -> None:
        if len(self.order) < 3:
            self.order.append("no answer")
            raise AgentUnreachableError("Connection refused.")
        await super().shutdown()


async def test_a_client_that_hangs_up_does_not_keep_the_daemon_from_ending() -> None:
    engine, order = SlowEngine(), []
    async with TaskGuard("test") as tasks:
        shutdown = Shutdown(
            engine=engine,  # type: ignore[arg-type]
            agents=[(DeviceId("cpu-0"), RememberedAgent(order))],  # type: ignore[list-item]
            let_agents_go=lambda: order.append("let go"),
            stop_timeout=timedelta(seconds=30),
            tasks=tasks,
        )
        asking = asyncio.get_running_loop().create_task(shutdown.shutdown(stop_sessions=True))
        await engine.stopped.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        assert engine.refusing
        engine.ended.set()
        await asyncio.wait_for(shutdown.wished(), 5)
    assert order == ["let go", "agent ended"]


async def test_an_agent_that_is_just_being_started_is_ended_too() -> None:
    order: list[str] = []
    engine = SlowEngine()
    engine.ended.set()
    async with TaskGuard("test") as tasks:
        shutdown = Shutdown(
            engine=engine,  # type: ignore[arg-type]
            agents=[(DeviceId("cpu-0"), StartingAgent(order))],  # type: ignore[list-item]
            let_agents_go=lambda: order.append("let go"),
            stop_timeout=timedelta(seconds=30),
            tasks=tasks,
        )
        await shutdown.shutdown(stop_sessions=True)
    assert order == ["let go", "no answer", "no answer", "agent ended"]


async def test_sessions_that_do_not_end_in_time_are_named_and_keep_their_agents() -> None:
    engine, order = SlowEngine(), []
    async with TaskGuard("test") as tasks:
        shutdown = Shutdown(
            engine=engine,  # type: ignore[arg-type]
            agents=[(DeviceId("cpu-0"), RememberedAgent(order))],  # type: ignore[list-item]
            let_agents_go=lambda: order.append("let go"),
            stop_timeout=timedelta(),
            tasks=tasks,
        )
        assert await shutdown.shutdown(stop_sessions=True) == (1, ("sessions/one",))
        await shutdown.wished()
    assert order == []
