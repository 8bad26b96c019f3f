"""What the balancer does about devices that are not well: no placements, sessions moved, probes with pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from balancer.device_health import DeviceHealthWatch
from balancer.device_probes import DeviceProbes
from balancer.device_quarantine import DeviceQuarantine
from balancer.device_registry import DeviceRegistry
from balancer.domain.device import Capability, DeviceIdentity, DeviceKind, DeviceState, Direction
from balancer.domain.health import DeviceHealth, HealthState
from balancer.domain.ids import DeviceId
from balancer.domain.quarantine import QuarantineSettings
from balancer.domain.session import Failure, SessionRecord
from balancer.domain.workload import VideoCodec
from balancer.ports.agent_client import AgentReport
from fakes.agent_client import FakeAgentClient
from fakes.session_records import session_record
from fakes.virtual_time import START_TIME, VirtualClock, settle
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.task_guard import TaskGuard

OK = DeviceHealth(state=HealthState.OK)
CAPABILITIES = (
    Capability(
        codec=VideoCodec.H264, direction=Direction.ENCODE, bit_depth=8, works=True, hardware=True, implementation="x"
    ),
)
SETTINGS = QuarantineSettings(first_pause=timedelta(seconds=30), longest_pause=timedelta(seconds=100))


def ill(reason: str = "XID_46", state: HealthState = HealthState.UNHEALTHY, *, after_s: float = 0.0) -> DeviceHealth:
    """A health that bars sessions."""
    since_time = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=after_s)
    return DeviceHealth(state=state, reason=reason, message=f"It has {reason}. Try something.", since_time=since_time)


LOST = ill("XID_79", HealthState.LOST)
ENGINE_OUT = DeviceHealth(
    state=HealthState.DEGRADED,
    reason="ENCODER_OUT_OF_USE",
    message="Its encoders are out of use.",
    since_time=START_TIME,
    faulty_engines=(Direction.ENCODE,),
)


class GpuAgent(FakeAgentClient):
    """The agent of a GPU. As a real one it keeps what bars sessions until a probe passes."""

    def __init__(self, device_id: str) -> None:
        super().__init__(device_id)
        self.health = OK
        self.passes = True
        """Whether its probes do."""
        self.probes: list[bool] = []
        """By an operator or not."""
        self.gate = asyncio.Event()
        self.gate.set()

    def report(self) -> AgentReport:
        identity = DeviceIdentity(id=self.device_id, kind=DeviceKind.NVIDIA, model="NVIDIA L4", table_model="L4")
        return replace(super().report(), identity=identity, capabilities=CAPABILITIES, health=self.health)

    async def probe(self, *, by_operator: bool = False) -> AgentReport:
        self._check()
        self.probes.append(by_operator)
        await self.gate.wait()
        if self.passes and (by_operator or self.health.state is not HealthState.LOST):
            self.health = OK
        return self.report()


class Door:
    """Where sessions are moved."""

    def __init__(self) -> None:
        self.moved: list[tuple[DeviceId, Failure]] = []

    def move(self, device_id: DeviceId, failure: Failure) -> None:
        self.moved.append((device_id, failure))


@dataclass
class Fleet:
    """The registry, who watches over it, and agents that tell of devices."""

    registry: DeviceRegistry
    watch: DeviceHealthWatch
    quarantine: DeviceQuarantine
    probes: DeviceProbes
    door: Door
    agents: Sequence[GpuAgent]

    async def tell(self, agent: GpuAgent, health: DeviceHealth) -> None:
        """An agent tells how its device is."""
        agent.health = health
        self.registry.update_agent(agent.report())
        await settle()

    def state(self, agent: GpuAgent) -> DeviceState:
        entry = self.registry.get(agent.device_id)
        assert entry is not None
        return entry.state


@asynccontextmanager
async def fleet(*names: str) -> AsyncIterator[Fleet]:
    """Devices that are all well."""
    registry, clock, door = DeviceRegistry(), VirtualClock(), Door()
    agents = [GpuAgent(name) for name in names]
    async with TaskGuard("test") as tasks:
        probes = DeviceProbes(registry, {agent.device_id: agent for agent in agents}, tasks=tasks)
        quarantine = DeviceQuarantine(registry, probes, clock=clock, tasks=tasks, settings=SETTINGS)
        watch = DeviceHealthWatch(registry, probes, clock=clock, tasks=tasks, settings=SETTINGS)
        watch.attach(door)
        tasks.spawn_eternal(watch.watch(), name="health")
        tasks.spawn_eternal(watch.keep_moving(), name="leave")
        for agent in agents:
            registry.update_agent(agent.report())
        await settle()
        yield Fleet(registry, watch, quarantine, probes, door, agents)


async def test_a_device_that_is_not_well_takes_no_session_from_the_moment_in_which_that_is_told() -> None:
    async with fleet("GPU-1", "GPU-2") as here:
        sick, sound = here.agents
        sick.passes = False
        sick.health = ill()
        here.registry.update_agent(sick.report())
        states = [view.state for view in here.registry.views()]
        assert states == [DeviceState.UNHEALTHY, DeviceState.READY], "before anybody had time to act on it"
        assert here.registry.views()[0].state_message == "It has XID_46. Try something."
        await settle()
        assert sound.probes == []


async def test_its_sessions_leave_once_with_the_reason() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill())
        await here.tell(agent, replace(ill(), message="The same in other words."))
        await here.tell(agent, LOST)
        ((device_id, failure),) = here.door.moved
        assert (device_id, failure.reason) == ("GPU-1", "DEVICE_UNHEALTHY")
        assert failure.message == "Cannot go on on device GPU-1: It has XID_46. Try something."


@pytest.mark.parametrize("reason", ["RECOVERY_DRAIN", "DRIVER_HANGS"])
async def test_sessions_stay_where_the_driver_lets_them_until_it_becomes_graver(reason: str) -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill(reason))
        assert (here.door.moved, here.state(agent)) == ([], DeviceState.UNHEALTHY)
        await here.tell(agent, ill("XID_48"))
        assert len(here.door.moved) == 1


@pytest.mark.parametrize("health", [ENGINE_OUT, replace(ENGINE_OUT, reason="THERMAL_SLOWDOWN", faulty_engines=())])
async def test_a_degraded_device_is_ready_and_keeps_its_sessions(health: DeviceHealth) -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, health)
        assert (here.door.moved, here.state(agent)) == ([], DeviceState.READY)
        assert len(agent.probes) == len(health.faulty_engines), "only an engine that is out of use wants a probe"


async def test_a_device_is_probed_at_once_and_then_after_pauses_that_double_until_it_passes() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill())
        counts = []
        for pause in (0, 29, 2, 58, 3, 96, 3):
            await asyncio.sleep(pause)
            await settle()
            counts.append(len(agent.probes))
        assert counts == [1, 1, 2, 2, 3, 3, 4]
        agent.passes = True
        await asyncio.sleep(101)
        assert here.state(agent) is DeviceState.READY
        await asyncio.sleep(2_000)
        assert agent.probes == [False] * 5


async def test_news_of_a_device_bring_its_probe_nearer_but_never_within_the_first_pause() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill())
        await asyncio.sleep(31)
        assert len(agent.probes) == 2
        for number in range(20):
            await here.tell(agent, replace(ill(), message=f"It was reset, {number}."))
        assert len(agent.probes) == 2
        await asyncio.sleep(31)
        assert len(agent.probes) == 2
        agent.passes = True
        await here.tell(agent, replace(ill(), message="Its driver has nothing against it now."))
        assert (len(agent.probes), here.state(agent)) == (3, DeviceState.READY)


async def test_a_device_that_fails_again_after_it_passed_waits_until_a_session_has_run_there() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        await here.tell(agent, ill())
        assert (len(agent.probes), here.state(agent)) == (1, DeviceState.READY)
        await here.tell(agent, ill())
        assert (len(agent.probes), here.state(agent)) == (1, DeviceState.UNHEALTHY)
        await asyncio.sleep(31)
        assert (len(agent.probes), here.state(agent)) == (2, DeviceState.READY)
        before: SessionRecord = replace(session_record(), device_id=agent.device_id)
        here.watch.on_changed(before, replace(before, running_time=START_TIME))
        await here.tell(agent, ill())
        assert (len(agent.probes), here.state(agent)) == (3, DeviceState.READY)


async def test_an_engine_that_is_out_of_use_is_probed_like_a_device() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ENGINE_OUT)
        await asyncio.sleep(31)
        assert len(agent.probes) == 2
        agent.passes = True
        await asyncio.sleep(61)
        assert len(agent.probes) == 3
        entry = here.registry.get(agent.device_id)
        assert entry is not None
        assert entry.health == OK


async def test_a_lost_device_is_left_to_its_operator() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        await here.tell(agent, LOST)
        await asyncio.sleep(5_000)
        assert (agent.probes, here.state(agent)) == ([], DeviceState.UNHEALTHY)
        await here.probes.probe_for_operator(agent.device_id)
        assert (agent.probes, here.state(agent)) == ([True], DeviceState.READY)


async def test_a_device_that_is_lost_while_it_waits_for_a_probe_waits_no_longer() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill())
        await here.tell(agent, LOST)
        await asyncio.sleep(5_000)
        assert agent.probes == [False]


async def test_a_device_that_cannot_be_asked_is_not_held_to_have_failed() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill())
        here.registry.mark_unreachable(agent.device_id, "silent")
        await asyncio.sleep(5_000)
        assert len(agent.probes) == 1
        here.registry.mark_reachable(agent.device_id)
        agent.passes = True
        await asyncio.sleep(31)
        assert (len(agent.probes), here.state(agent)) == (2, DeviceState.READY)


# --------------------------------------------------------------------------------------------------- with a quarantine


def fail(here: Fleet, agent: GpuAgent, reason: str = "DEVICE_LOST") -> None:
    """A session fails on a device before its first frame."""
    record = replace(session_record(), device_id=agent.device_id)
    here.quarantine.on_not_begun(record, Failure(reason=reason, message="It failed."))


async def test_one_probe_serves_quarantine_and_health_and_ends_both() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.gate.clear()
        agent.health = ill()
        here.registry.update_agent(agent.report())
        fail(here, agent)
        fail(here, agent)
        await settle()
        assert agent.probes == [False]
        agent.gate.set()
        await settle()
        assert here.state(agent) is DeviceState.READY
        await asyncio.sleep(5_000)
        assert agent.probes == [False]


async def test_a_device_that_is_aside_for_both_is_not_probed_more_often_than_for_one_each() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill())
        fail(here, agent)
        fail(here, agent)
        await asyncio.sleep(3600)
        assert len(agent.probes) <= 2 * (4 + 3600 // 100)
        entry = here.registry.get(agent.device_id)
        assert entry is not None
        assert entry.quarantine is not None
        assert entry.state_message == "It has XID_46. Try something.", "the driver knows best"
        agent.passes = True
        await asyncio.sleep(101)
        assert here.state(agent) is DeviceState.READY


async def test_a_quarantine_does_not_probe_a_lost_device_and_ends_with_the_operators_probe() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        await here.tell(agent, LOST)
        fail(here, agent)
        fail(here, agent)
        await asyncio.sleep(2_000)
        assert agent.probes == []
        await here.probes.probe_for_operator(agent.device_id)
        assert here.state(agent) is DeviceState.READY
        await asyncio.sleep(2_000)
        assert agent.probes == [True]


@pytest.mark.parametrize("reason", ["ENGINE_FAULT", "DEVICE_UNHEALTHY", "KILLED"])
async def test_what_health_acts_on_and_what_was_killed_puts_no_device_aside(reason: str) -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        for _ in range(10):
            fail(here, agent, reason)
        await settle()
        assert here.state(agent) is DeviceState.READY


async def test_an_operators_probe_that_fails_changes_nothing() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, LOST)
        await here.probes.probe_for_operator(agent.device_id)
        assert here.state(agent) is DeviceState.UNHEALTHY
        agent.reachable = False
        with pytest.raises(RequestFailure) as caught:
            await here.probes.probe_for_operator(agent.device_id)
        assert caught.value.reason is Reason.AGENT_UNREACHABLE
        with pytest.raises(RequestFailure):
            await here.probes.probe_for_operator(DeviceId("GPU-nobody"))


async def test_who_waits_for_a_probe_may_leave_without_ending_it() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.gate.clear()
        agent.health = ill()
        here.registry.update_agent(agent.report())
        await settle()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await here.probes.probe(agent.device_id)
        agent.gate.set()
        await settle()
        assert (agent.probes, here.state(agent)) == ([False], DeviceState.READY)


async def test_a_probe_that_gets_no_answer_says_so() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.reachable = False
        assert await here.probes.probe(agent.device_id) is not None
        assert await here.probes.probe(DeviceId("GPU-nobody")) == "No agent speaks for it."


# -------------------------------------------------------------------------------------------------------- all at once


def messages(here: Fleet) -> set[str]:
    return {entry.state_message for entry in here.registry.entries()}


async def test_gpus_that_all_go_at_once_are_one_fault_with_one_cure(caplog: pytest.LogCaptureFixture) -> None:
    async with fleet("GPU-1", "GPU-2", "GPU-3") as here:
        reasons = ("CONTAINER_LOST_GPUS", "UNKNOWN_ERROR", "XID_79")
        for number, (agent, reason) in enumerate(zip(here.agents, reasons, strict=True)):
            agent.passes = False
            await here.tell(agent, ill(reason, after_s=3.0 * number))
        (message,) = messages(here)
        assert "any of the 3 GPUs" in message
        assert "container" in message
        assert "re-creating" in message
        here.agents[1].passes = True
        await asyncio.sleep(101)
        assert len(messages(here)) == 3, "one is back, so the others are themselves to blame"


@pytest.mark.parametrize(
    ("healths", "why"),
    [
        ((ill("XID_79"), OK), "one is well"),
        ((ill("XID_79"), ill("XID_79", after_s=11)), "they went one after the other"),
        ((ill("UNKNOWN_ERROR"), ill("XID_46")), "one is there, and ill"),
    ],
)
async def test_gpus_that_do_not_go_together_are_told_one_by_one(
    healths: tuple[DeviceHealth, DeviceHealth], why: str
) -> None:
    async with fleet("GPU-1", "GPU-2") as here:
        for agent, health in zip(here.agents, healths, strict=True):
            agent.passes = False
            await here.tell(agent, health)
        assert not any("lost at once" in message for message in messages(here)), why


async def test_a_single_gpu_speaks_for_itself() -> None:
    async with fleet("GPU-1") as here:
        (agent,) = here.agents
        agent.passes = False
        await here.tell(agent, ill("CONTAINER_LOST_GPUS"))
        assert messages(here) == {"It has CONTAINER_LOST_GPUS. Try something."}
