"""Devices that fail at sessions are put aside and probed; the encoder session cap is learned, kept and kept to."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from balancer.admission import PlacementRefused
from balancer.agent_watch import AgentWatch
from balancer.device_probes import DeviceProbes
from balancer.device_quarantine import DeviceQuarantine
from balancer.device_registry import DeviceRegistry
from balancer.domain.decision import PlacementSettings
from balancer.domain.device import Capability, DeviceIdentity, DeviceKind, DeviceState, Dimension, Direction
from balancer.domain.ids import DeviceId
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.quarantine import QuarantineSettings
from balancer.domain.restart import RestartMode, RestartRule
from balancer.domain.session import Failure, SessionRecord, SessionState
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.domain.workload import VideoCodec
from balancer.encoder_caps import EncoderCaps
from balancer.placer import PlacementRules
from balancer.ports.agent_client import AgentReport, Measurements
from balancer.ports.session_observer import SeveralObservers
from balancer.session_engine import SessionEngine
from fakes.agent_client import FakeAgentClient
from fakes.engine_house import admission
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import VirtualClock, settle
from gpu_balancer.hardware import model_row
from gpu_balancer.runtime.task_guard import TaskGuard

LOST = Failure(reason="DEVICE_LOST", message="Cannot use the GPU: it is lost.")
LIMIT = Failure(reason="ENCODER_SESSION_LIMIT", message="Cannot open another encoder on the GPU.")
CRASHED = Failure(reason="FFMPEG_CRASHED", message="Cannot go on: ffmpeg crashed.")
CAPABILITIES = tuple(
    Capability(codec=VideoCodec.H264, direction=direction, bit_depth=8, works=True, hardware=True, implementation=name)
    for direction, name in ((Direction.ENCODE, "h264_nvenc"), (Direction.DECODE, "h264_cuvid"))
)


class GpuAgent(FakeAgentClient):
    """The agent of a GPU; its probe says what the test sets."""

    def __init__(self, device_id: str, model: str, driver: str = "570.1") -> None:
        super().__init__(device_id)
        row = model_row(model)
        assert row is not None
        self.identity = DeviceIdentity(
            id=DeviceId(device_id),
            kind=DeviceKind.NVIDIA,
            model=model,
            driver_version=driver,
            memory_total_mib=16_000,
            encoder_engines=row.encoder_engines,
            decoder_engines=row.decoder_engines,
            table_model=row.model,
        )
        self.fault = ""
        self.capabilities = CAPABILITIES
        self.probes = 0

    def report(self) -> AgentReport:
        return replace(
            super().report(), identity=self.identity, capabilities=self.capabilities, fault_message=self.fault
        )

    async def probe(self, *, by_operator: bool = False) -> AgentReport:
        self.probes += 1
        return await super().probe(by_operator=by_operator)


@dataclass
class Host:
    """An engine over GPUs, with all that listens to failures."""

    engine: SessionEngine
    registry: DeviceRegistry
    agents: Mapping[DeviceId, GpuAgent]

    async def fail(self, failure: Failure) -> SessionRecord:
        """Admits a session and has its first attempt fail before its first frame."""
        record = await self.engine.admit(admission())
        await settle()
        assert record.device_id is not None
        self.end(record, failure)
        await settle()
        return self.engine.get(record.id)

    def end(self, record: SessionRecord, failure: Failure) -> None:
        assert record.device_id is not None
        report = AttemptReported(
            attempt=record.attempt, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.FAILED, failure=failure
        )
        self.agents[record.device_id].tell(record.id, report)

    def state(self, device_id: str) -> DeviceState:
        entry = self.registry.get(DeviceId(device_id))
        assert entry is not None
        return entry.state


@asynccontextmanager
async def host(store: FakeSessionStore, *agents: GpuAgent) -> AsyncIterator[Host]:
    registry, clock = DeviceRegistry(), VirtualClock()
    by_id = {agent.device_id: agent for agent in agents}
    async with TaskGuard("test") as tasks:
        probes = DeviceProbes(registry, by_id, tasks=tasks)
        quarantine = DeviceQuarantine(registry, probes, clock=clock, tasks=tasks, settings=QuarantineSettings())
        caps = EncoderCaps(registry, tasks)
        engine = SessionEngine(
            store=store,
            agents=by_id,
            devices=registry,
            rules=PlacementRules(policy=LeastWeightedLoad(), settings=PlacementSettings(), host_capacity={}),
            clock=clock,
            tasks=tasks,
            observer=SeveralObservers(quarantine, caps),
        )
        await engine.start()
        caps.attach(engine)
        tasks.spawn_eternal(caps.watch(), name="caps")
        for agent in agents:
            registry.update_agent(agent.report())
            watch = AgentWatch(agent.device_id, agent, sessions=engine, news=registry, clock=clock)
            tasks.spawn_eternal(watch.run(), name=f"watch {agent.device_id}")
        await settle()
        yield Host(engine=engine, registry=registry, agents=by_id)
    await store.close()


async def test_a_device_on_which_sessions_begin_meanwhile_is_not_blamed_later(store: FakeSessionStore) -> None:
    """Two crash on it and wait for somebody elsewhere; others begin on it before those do."""
    suspected, other = GpuAgent("GPU-1", "NVIDIA L4"), GpuAgent("GPU-2", "Tesla T4")
    async with host(store, suspected, other) as here:
        moved = [await here.fail(CRASHED) for _ in range(2)]
        assert {record.device_id for record in moved} == {"GPU-2"}
        well = await here.engine.admit(admission())
        await settle()
        assert well.device_id == "GPU-1"
        suspected.run(well.id, well.attempt)
        await settle()
        for record in moved:
            other.run(record.id, record.attempt)
            await settle()
        assert suspected.probes == 0
        assert here.state("GPU-1") is DeviceState.READY


async def test_one_session_that_fails_on_a_device_again_and_again_counts_once(store: FakeSessionStore) -> None:
    suspected, other = GpuAgent("GPU-1", "NVIDIA L4"), GpuAgent("GPU-2", "Tesla T4")
    async with host(store, suspected, other) as here:
        asked = replace(admission(), restart=RestartRule(mode=RestartMode.ALWAYS, max_restarts=9))
        record = await here.engine.admit(asked)
        failed_on = []
        for _ in range(4):
            await asyncio.sleep(600)  # It rests in between.
            record = here.engine.get(record.id)
            failed_on.append(record.device_id)
            here.end(record, CRASHED)
            await settle()
            record = here.engine.get(record.id)
            other.run(record.id, record.attempt)
            await settle()
            here.end(here.engine.get(record.id), Failure(reason="INPUT_LOST", message="The input is gone."))
            await settle()
        assert failed_on == ["GPU-1"] * 4
        assert suspected.probes == 0


async def test_a_full_disk_is_no_devices_fault(store: FakeSessionStore) -> None:
    low = Failure(reason="DISK_LOW", message="The disk is nearly full.")
    suspected, other = GpuAgent("GPU-1", "NVIDIA L4"), GpuAgent("GPU-2", "NVIDIA L4")
    async with host(store, suspected, other) as here:
        records = []
        for _ in range(4):
            record = await here.engine.admit(replace(admission(), max_wait=timedelta(hours=5)))
            await settle()
            here.end(record, low)
            await settle()
            records.append(record)
        await asyncio.sleep(16)
        for record in [here.engine.get(one.id) for one in records]:
            assert record.device_id == "GPU-2"
            other.run(record.id, record.attempt)
            await settle()
        assert suspected.probes == 0


async def test_a_lost_device_is_put_aside_after_two_failures_and_nothing_goes_there_any_more(
    store: FakeSessionStore,
) -> None:
    dead, sound = GpuAgent("GPU-dead", "NVIDIA L4"), GpuAgent("GPU-sound", "Tesla T4")
    async with host(store, dead, sound) as here:
        dead.fault = "It fell off the bus."
        moved = [await here.fail(LOST) for _ in range(2)]
        assert [record.device_id for record in moved] == ["GPU-sound", "GPU-sound"]
        assert here.state("GPU-dead") is DeviceState.UNHEALTHY
        assert dead.probes == 1
        for _ in range(10):
            record = await here.engine.admit(admission())
            assert record.device_id == "GPU-sound"
        assert {attempt for _, attempt in dead.launches} == {1}
        assert len(dead.launches) == 2


async def test_a_device_comes_back_when_its_probe_passes_and_goes_again_at_its_next_failure(
    store: FakeSessionStore,
) -> None:
    first, second = GpuAgent("GPU-1", "NVIDIA L4"), GpuAgent("GPU-2", "Tesla T4")
    async with host(store, first, second) as here:
        for _ in range(2):
            await here.fail(LOST)
        await settle()
        assert here.state("GPU-1") is DeviceState.READY, "the probe passed at once"
        await here.fail(LOST)
        assert here.state("GPU-1") is DeviceState.UNHEALTHY
        entry = here.registry.get(DeviceId("GPU-1"))
        assert entry is not None
        assert "Put aside after 3 failures" in entry.state_message
        await asyncio.sleep(29)
        assert first.probes == 1
        await asyncio.sleep(2)
        assert first.probes == 2


async def test_a_session_that_fails_everywhere_counts_against_no_device(store: FakeSessionStore) -> None:
    agents = [GpuAgent(f"GPU-{number}", "NVIDIA L4") for number in range(3)]
    async with host(store, *agents) as here:
        for _ in range(5):
            record = await here.engine.admit(admission())
            while not here.engine.get(record.id).state.final:
                await settle()
                here.end(here.engine.get(record.id), CRASHED)
                await settle()
            assert here.engine.get(record.id).failure == CRASHED
        assert {here.state(agent.device_id) for agent in agents} == {DeviceState.READY}


async def test_a_session_that_then_runs_elsewhere_shows_whose_fault_it_was(store: FakeSessionStore) -> None:
    bad, good = GpuAgent("GPU-bad", "NVIDIA L4"), GpuAgent("GPU-good", "Tesla T4")
    async with host(store, bad, good) as here:
        bad.capabilities = ()
        for _ in range(2):
            moved = await here.fail(CRASHED)
            assert here.state("GPU-bad") is DeviceState.READY
            good.run(moved.id, moved.attempt)
            await settle()
        assert here.state("GPU-bad") is DeviceState.UNHEALTHY
        assert here.state("GPU-good") is DeviceState.READY


# ------------------------------------------------------------------------------------------------ encoder sessions


async def test_a_cap_is_learned_from_a_refusal_and_holds_for_all_such_cards_of_the_host(
    store: FakeSessionStore,
) -> None:
    """Two cards: a ladder runs, a second is refused, so at most 5 of the 6 encoders they ask for may be open."""
    cards = GpuAgent("GPU-1", "NVIDIA GeForce RTX 4090"), GpuAgent("GPU-2", "NVIDIA GeForce RTX 3060")
    async with host(store, *cards) as here:
        running = await here.engine.admit(admission())
        await settle()
        assert running.device_id is not None
        here.agents[running.device_id].run(running.id)
        refused = await here.fail(LIMIT)
        assert here.engine.rules.host_capacity[Dimension.ENCODER_SESSIONS] == 5
        assert refused.state is SessionState.QUEUED, "the other card is full by the same cap"
        with pytest.raises(PlacementRefused) as caught:
            await here.engine.admit(admission())
        rules = {verdict.refusal.rule for verdict in caught.value.decision.verdicts if verdict.refusal}
        assert rules == {"ENCODER_SESSIONS"}
        here.agents[running.device_id].end(running.id)
        await settle()
        assert here.engine.get(refused.id).state is SessionState.STARTING, "it goes where room came free"
        assert json.loads(store.findings["encoder-session-cap"]) == {"driver_version": "570.1", "most": 5}


async def test_cards_without_a_cap_are_not_counted_and_teach_none(store: FakeSessionStore) -> None:
    async with host(store, GpuAgent("GPU-1", "NVIDIA L4"), GpuAgent("GPU-2", "NVIDIA L4")) as here:
        await here.fail(LIMIT)
        assert Dimension.ENCODER_SESSIONS not in here.engine.rules.host_capacity
        assert Dimension.ENCODER_SESSIONS not in here.engine.ledger.host_used()


async def test_a_card_without_memory_left_teaches_no_cap(store: FakeSessionStore) -> None:
    async with host(store, GpuAgent("GPU-1", "NVIDIA GeForce RTX 4090")) as here:
        here.registry.update_measurements(DeviceId("GPU-1"), Measurements(memory_used_mib=15_900))
        await here.fail(LIMIT)
        assert Dimension.ENCODER_SESSIONS not in here.engine.rules.host_capacity


async def test_a_learned_cap_outlives_a_restart_but_not_another_driver(store: FakeSessionStore) -> None:
    store.findings["encoder-session-cap"] = json.dumps({"driver_version": "570.1", "most": 5})
    async with host(store, GpuAgent("GPU-1", "NVIDIA GeForce RTX 4090")) as here:
        assert here.engine.rules.host_capacity[Dimension.ENCODER_SESSIONS] == 5
        here.registry.update_measurements(DeviceId("GPU-1"), Measurements(encoder_sessions=6))
        await settle()
        assert Dimension.ENCODER_SESSIONS not in here.engine.rules.host_capacity, "6 are open, so 5 was wrong"
    store.findings["encoder-session-cap"] = json.dumps({"driver_version": "570.1", "most": 5})
    async with host(store, GpuAgent("GPU-1", "NVIDIA GeForce RTX 4090", driver="610.2")) as here:
        assert Dimension.ENCODER_SESSIONS not in here.engine.rules.host_capacity
        await settle()
    assert store.findings == {}


async def test_a_finding_that_cannot_be_read_is_learned_anew(store: FakeSessionStore) -> None:
    store.findings["encoder-session-cap"] = "[7"
    async with host(store, GpuAgent("GPU-1", "NVIDIA GeForce RTX 4090")) as here:
        assert Dimension.ENCODER_SESSIONS not in here.engine.rules.host_capacity


async def test_a_page_that_cannot_be_recorded_counts_against_no_device(store: FakeSessionStore) -> None:
    agents = [GpuAgent(f"GPU-{number}", "NVIDIA L4") for number in range(2)]
    page = Failure(reason="GATE_TIMEOUT", message="Cannot begin: the page has painted nothing.")
    async with host(store, *agents) as here:
        for _ in range(5):
            record = await here.fail(page)
            assert (record.state, record.failure) == (SessionState.FAILED, page)
        assert {here.state(agent.device_id) for agent in agents} == {DeviceState.READY}
        assert sum(agent.probes for agent in agents) == 0
