"""Replacing agents that hang: only those that live, have long been silent, and do not answer when asked once more."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from balancer.domain.ids import DeviceId
from balancer.hung_agents import STARTING_FACTOR, replace_when_hung
from balancer.ports.agent_client import AgentReport
from fakes.agent_client import FakeAgentClient
from fakes.virtual_time import VirtualClock
from gpu_balancer.runtime.failures import Reason, RequestFailure

AFTER = timedelta(seconds=20)


@dataclass
class Scene:
    """An agent's process and who listens to it, as a test wants them."""

    clock: VirtualClock
    began_s: float | None
    heard_s: float
    listening: bool = True
    kills: list[float] = field(default_factory=list)

    @property
    def running_s(self) -> float | None:
        return None if self.began_s is None else self.clock.monotonic_s() - self.began_s

    @property
    def silence_s(self) -> float:
        return self.clock.monotonic_s() - self.heard_s

    def listens(self) -> bool:
        return self.listening

    def kill(self) -> bool:
        """The next one is there at once, and silent too."""
        self.kills.append(self.silence_s)
        self.began_s = self.clock.monotonic_s()
        return True


@pytest.fixture
async def scene() -> Scene:
    clock = VirtualClock()
    return Scene(clock=clock, began_s=clock.monotonic_s(), heard_s=clock.monotonic_s())


@pytest.fixture
def agent() -> FakeAgentClient:
    return FakeAgentClient("cpu-0")


async def watch(scene: Scene, agent: FakeAgentClient, seconds: float) -> None:
    """Lets the watch look for so long."""
    looking = replace_when_hung(DeviceId("cpu-0"), scene, heard=scene, agent=agent, after=AFTER, clock=scene.clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await looking


async def _never() -> AgentReport:
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_agent_that_accepts_connections_but_never_answers_is_killed(
    scene: Scene, agent: FakeAgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "describe", _never)
    await watch(scene, agent, 30)
    assert len(scene.kills) == 1
    assert 25 <= scene.kills[0] <= 26, "the silence, and being asked for five seconds"


async def test_its_successor_gets_as_long_again(
    scene: Scene, agent: FakeAgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "describe", _never)
    await watch(scene, agent, 45)
    assert len(scene.kills) == 1
    await watch(scene, agent, 10)
    assert len(scene.kills) == 2


async def test_an_agent_that_answers_is_never_killed_however_long_nothing_was_heard(
    scene: Scene, agent: FakeAgentClient
) -> None:
    await watch(scene, agent, 3600)
    assert scene.kills == []


async def test_a_refusal_is_an_answer(scene: Scene, agent: FakeAgentClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses() -> AgentReport:
        raise RequestFailure(reason=Reason.SHUTTING_DOWN, message="Cannot say: the agent is ending. Try again.")

    monkeypatch.setattr(agent, "describe", refuses)
    await watch(scene, agent, 3600)
    assert scene.kills == []


async def test_an_agent_that_is_heard_while_it_is_asked_is_spared(
    scene: Scene, agent: FakeAgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def heard_meanwhile() -> AgentReport:
        scene.heard_s = scene.clock.monotonic_s()
        return await _never()

    monkeypatch.setattr(agent, "describe", heard_meanwhile)
    await watch(scene, agent, 300)
    assert scene.kills == []


async def test_an_agent_that_still_adopts_has_no_socket_and_gets_much_longer(
    scene: Scene, agent: FakeAgentClient
) -> None:
    agent.reachable = False
    scene.listening = False
    await watch(scene, agent, AFTER.total_seconds() * STARTING_FACTOR)
    assert scene.kills == []
    await watch(scene, agent, 10)
    assert len(scene.kills) == 1


async def test_where_nothing_runs_nothing_is_killed(scene: Scene, agent: FakeAgentClient) -> None:
    agent.reachable = False
    scene.began_s = None
    await watch(scene, agent, 3600)
    assert scene.kills == []
