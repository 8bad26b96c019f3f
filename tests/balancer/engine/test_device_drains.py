"""Devices that are closed and emptied: who is moved, who is not, when what is left is stopped, and what survives."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from balancer.admission import PlacementRefused
from balancer.device_drains import DeviceDrains, DrainTimes
from balancer.device_entry import DeviceEntry
from balancer.device_registry import DeviceRegistry
from balancer.domain.device import DeviceState, Dimension
from balancer.domain.drain import DrainMode, moving_failure
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.session import Priority, Progress, SessionRecord, SessionState
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.domain.workload import Workload
from balancer.ports.session_store import StoreError
from fakes.agent_client import FakeAgentClient
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, admission, engine_house
from fakes.session_records import LADDER
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import settle
from gpu_balancer.runtime.failures import Reason, RequestFailure

CPU0, CPU1 = DeviceId("cpu-0"), DeviceId("cpu-1")
ROOMY = {CPU0: 1000, CPU1: 1000}
MINUTE = timedelta(minutes=1)


@dataclass
class DrainHouse:
    """An engine with real devices, and who empties them."""

    house: EngineHouse
    registry: DeviceRegistry
    drains: DeviceDrains

    def entry(self, device_id: DeviceId = CPU0) -> DeviceEntry:
        return self.registry.find(device_id)

    @property
    def on_cpu0(self) -> int:
        return len(self.house.engine.live(CPU0))

    async def running(self, count: int = 1, *, workload: object = LADDER) -> list[SessionRecord]:
        """Admits sessions to the first device and has their first frames reported."""
        weight = self.entry(CPU1).weight
        self.registry.set_weight(CPU1, 0)
        asked = [await self.house.engine.admit(replace(admission(), workload=workload)) for _ in range(count)]
        self.registry.set_weight(CPU1, weight)
        await settle()
        for record in asked:
            self.house.agents[CPU0].run(record.id, record.attempt)
        await settle()
        return [self.house.engine.get(record.id) for record in asked]

    async def passing(self, seconds: float, *, runs: bool = True) -> None:
        """Lets time pass while agents measure, and what was started begins to run."""
        for _ in range(int(seconds * 2)):
            await asyncio.sleep(0.5)
            for agent in self.house.agents.values():
                agent.measure()
                for session_id, report in tuple(agent.attempts.items()):
                    if runs and report.phase is AttemptPhase.STARTING:
                        agent.run(session_id, report.attempt)

    def state(self, record: SessionRecord) -> SessionRecord:
        return self.house.engine.get(record.id)

    def progress(self, record: SessionRecord, done: timedelta, whole: timedelta | None) -> None:
        report = AttemptReported(
            attempt=record.attempt,
            phase=AttemptPhase.RUNNING,
            progress=Progress(frames=1, out_time=done, total_time=whole),
        )
        self.house.engine.post(record.id, report)


@asynccontextmanager
async def drain_house(
    store: FakeSessionStore,
    cores: dict[DeviceId, int],
    *,
    agents: dict[DeviceId, FakeAgentClient] | None = None,
    times: DrainTimes | None = None,
    **house_settings: Any,
) -> AsyncIterator[DrainHouse]:
    """Starts an engine on two real devices; leaving kills it as it is."""
    registry = DeviceRegistry()
    views = [device_view(name, core_count=count) for name, count in cores.items()]
    made = agents or {view.id: FakeAgentClient(view.id) for view in views}
    for view in views:
        made[view.id].view = view
        registry.expect(view.identity)
    async with engine_house(store, *views, agents=made, registry=registry, **house_settings) as house:
        drains = DeviceDrains(registry=registry, engine=house.engine, clock=house.clock, times=times)
        drains.load()
        house.tasks.spawn_eternal(drains.run(), name="drains")
        for device_id in cores:
            house.watch(device_id)
        await settle()
        yield DrainHouse(house, registry, drains)


@pytest.fixture
async def pair(store: FakeSessionStore) -> AsyncIterator[DrainHouse]:
    """Two devices with room for everybody."""
    async with drain_house(store, ROOMY) as made:
        yield made


async def test_a_device_that_is_emptied_by_waiting_takes_nobody_and_is_closed_when_all_have_ended(
    pair: DrainHouse,
) -> None:
    first, second = await pair.running(2)
    await pair.drains.drain(CPU0, DrainMode.WAIT, None)
    assert pair.entry().state is DeviceState.DRAINING
    assert "2 sessions are left" in pair.entry().state_message
    assert (await pair.house.admit()).device_id == CPU1
    pair.house.agents[CPU0].end(first.id)
    await pair.passing(1)
    assert (pair.entry().state, pair.entry().drain and pair.entry().drain.session_count) == (DeviceState.DRAINING, 1)
    pair.house.agents[CPU0].end(second.id)
    await pair.passing(1)
    assert pair.entry().state is DeviceState.CORDONED
    assert "emptied" in pair.entry().state_message
    assert [pair.state(one).state for one in (first, second)] == [SessionState.SUCCEEDED] * 2
    await pair.drains.set_cordoned(CPU0, cordoned=False)
    assert (pair.entry().state, pair.entry().drain) == (DeviceState.READY, None)


async def test_sessions_are_moved_a_few_at_a_time_and_all_of_them_run_elsewhere(store: FakeSessionStore) -> None:
    async with drain_house(store, ROOMY, times=DrainTimes(moving_at_once=3)) as pair:
        sessions = await pair.running(10)
        stopping = pair.house.agents[CPU0].stops
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(0.5, runs=False)
        await pair.passing(5, runs=False)
        assert len(stopping) == 3, "the others wait until those run"
        await pair.passing(20)
        assert pair.on_cpu0 == 0
        now = [pair.state(one) for one in sessions]
        assert {(one.state, one.device_id, one.attempt) for one in now} == {(SessionState.RUNNING, CPU1, 2)}
        assert {one.last_restart and one.last_restart.failure.reason for one in now} == {"DEVICE_DRAINED"}
        assert pair.entry().state is DeviceState.CORDONED


async def test_a_session_that_never_runs_elsewhere_keeps_the_others_waiting_for_a_while_only(
    store: FakeSessionStore,
) -> None:
    async with drain_house(store, ROOMY, times=DrainTimes(moving_at_once=1)) as pair:
        await pair.running(3)
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(60, runs=False)
        assert pair.on_cpu0 == 0


async def test_one_that_has_not_begun_yet_is_moved_too_and_the_device_is_not_blamed(pair: DrainHouse) -> None:
    pair.registry.set_weight(CPU1, 0)
    record = await pair.house.admit()
    pair.registry.set_weight(CPU1, 100)
    await settle()
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await pair.passing(5)
    assert (pair.state(record).device_id, pair.state(record).state) == (CPU1, SessionState.RUNNING)
    assert pair.house.observer.not_begun == []


async def test_nobody_is_moved_for_whom_there_is_no_room_until_there_is(store: FakeSessionStore) -> None:
    """One device holds two ladders, the other one."""
    async with drain_house(store, {CPU0: 4, CPU1: 2}) as pair:
        first, second = await pair.running(2)
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(120)
        moved, stays = sorted((pair.state(one) for one in (first, second)), key=lambda one: one.device_id == CPU0)
        assert (moved.device_id, moved.state, moved.attempt) == (CPU1, SessionState.RUNNING, 2)
        assert (stays.device_id, stays.state, stays.attempt) == (CPU0, SessionState.RUNNING, 1)
        assert "1 session is left: 1 without room on another device" in pair.entry().state_message
        pair.house.agents[CPU1].end(moved.id, moved.attempt)
        await pair.passing(5)
        assert (pair.state(stays).device_id, pair.state(stays).state) == (CPU1, SessionState.RUNNING)
        assert pair.entry().state is DeviceState.CORDONED


async def test_the_room_of_a_session_on_its_way_is_nobody_elses(store: FakeSessionStore) -> None:
    async with drain_house(store, {CPU0: 2, CPU1: 2}) as pair:
        (moving,) = await pair.running(1)
        pair.house.agents[CPU0].keeps_stopping = True
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(1)
        assert pair.state(moving).state is SessionState.STOPPING
        with pytest.raises(PlacementRefused):
            await pair.house.admit()
        waiting = await pair.house.engine.admit(replace(admission(), max_wait=timedelta(hours=1)))
        pair.house.agents[CPU0].end(moving.id, 1, AttemptOutcome.STOPPED)
        await pair.passing(5)
        assert (pair.state(moving).device_id, pair.state(moving).state) == (CPU1, SessionState.RUNNING)
        assert pair.state(waiting).state is SessionState.QUEUED
        assert pair.house.engine.ledger.session_count(CPU1) == 1
        told = await pair.house.engine.decisions(moving.id)
        assert len(told) == 2, "it is kept why it went where it went"


async def test_a_stop_on_the_way_is_the_end_and_gives_the_room_back(store: FakeSessionStore) -> None:
    async with drain_house(store, {CPU0: 2, CPU1: 2}) as pair:
        (moving,) = await pair.running(1)
        pair.house.agents[CPU0].keeps_stopping = True
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(1)
        await pair.house.engine.stop(moving.id)
        pair.house.agents[CPU0].end(moving.id, 1, AttemptOutcome.STOPPED)
        await pair.passing(1)
        assert pair.state(moving).state is SessionState.CANCELLED
        assert pair.state(moving).failure is None, "its client asked for it"
        assert dict(pair.house.engine.ledger.used(CPU1)) == {}


async def test_a_stop_on_the_way_keeps_what_was_made_when_the_agent_has_not_heard_of_the_way(pair: DrainHouse) -> None:
    (moving,) = await pair.running(1)
    agent = pair.house.agents[CPU0]
    agent.reachable = False
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await pair.passing(1)
    await pair.house.engine.stop(moving.id)
    await pair.passing(1)
    agent.reachable = True
    await pair.passing(10)
    assert agent.stops
    assert agent.discarded == []
    assert pair.state(moving).state is SessionState.CANCELLED


async def test_a_stop_on_the_way_is_the_last_that_the_agent_hears(pair: DrainHouse) -> None:
    """However long it takes over the one before."""
    (moving,) = await pair.running(1)
    agent = pair.house.agents[CPU0]
    agent.keeps_stopping = True
    agent.stop_gate.clear()
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await pair.passing(1)
    await pair.house.engine.stop(moving.id)
    await pair.passing(1)
    assert len(agent.stops) == 1
    agent.stop_gate.set()
    await pair.passing(1)
    assert (len(agent.stops), len(agent.discarded)) == (2, 1)


async def test_what_a_session_has_of_the_host_is_its_own_when_it_moves(store: FakeSessionStore) -> None:
    """The host has no room for a second one; a move needs none."""
    async with drain_house(store, ROOMY, host_capacity={Dimension.CORES: 2_000_000}) as pair:
        (moving,) = await pair.running(1)
        before = dict(pair.house.engine.ledger.host_used())
        with pytest.raises(PlacementRefused):
            await pair.house.admit()
        pair.house.agents[CPU0].keeps_stopping = True
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(1)
        assert pair.state(moving).state is SessionState.STOPPING
        assert dict(pair.house.engine.ledger.host_used()) == before, "and it is booked once"
        pair.house.agents[CPU0].end(moving.id, 1, AttemptOutcome.STOPPED)
        await pair.passing(5)
        assert (pair.state(moving).device_id, pair.state(moving).state) == (CPU1, SessionState.RUNNING)
        assert dict(pair.house.engine.ledger.host_used()) == before


async def test_who_ends_anyway_is_not_moved_and_no_room_is_kept(pair: DrainHouse) -> None:
    (record,) = await pair.running(1)
    pair.house.agents[CPU0].keeps_stopping = True
    await pair.house.engine.stop(record.id)
    assert not pair.house.engine.move(record.id, moving_failure(CPU0))
    assert dict(pair.house.engine.ledger.used(CPU1)) == {}


class CountingPolicy(LeastWeightedLoad):
    """Counts where sessions are by what it is told alone."""

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, DeviceId] = {}
        self.faults: list[str] = []

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        if session_id in self.places:
            self.faults.append(f"{session_id} is placed on {device_id} and never left {self.places[session_id]}")
        self.places[session_id] = device_id

    def on_session_ended(self, session_id: SessionId) -> None:
        self.places.pop(session_id, None)


async def test_a_policy_hears_that_a_session_left_before_it_is_placed_again(store: FakeSessionStore) -> None:
    policy = CountingPolicy()
    async with drain_house(store, ROOMY, policy=policy) as pair:
        (record,) = await pair.running(1)
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(5)
    assert (policy.places, policy.faults) == ({record.id: CPU1}, [])


async def test_a_file_that_is_moved_to_where_live_work_runs_is_held_there(store: FakeSessionStore) -> None:
    async with drain_house(store, {CPU0: 4, CPU1: 2}) as pair:
        (film,) = await pair.running(1, workload=replace(LADDER, real_time=False))
        await pair.drains.set_cordoned(CPU0, cordoned=True)
        on_air = await pair.house.admit()
        await pair.passing(2)
        assert (on_air.device_id, pair.state(film).speed_limit) == (CPU1, None)
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(5)
        moved = pair.state(film)
        assert (moved.device_id, moved.state) == (CPU1, SessionState.RUNNING)
        assert moved.speed_limit is not None


async def test_files_more_than_half_done_and_sessions_of_publishers_stay(pair: DrainHouse) -> None:
    nearly, begun, published = await pair.running(3, workload=replace(LADDER, real_time=False))
    pair.progress(nearly, timedelta(seconds=51), timedelta(seconds=100))
    pair.progress(begun, timedelta(seconds=49), timedelta(seconds=100))
    pair.house.engine.post(
        published.id,
        AttemptReported(attempt=1, phase=AttemptPhase.RUNNING, ingest_url="rtmp://here/live"),
    )
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await pair.passing(5)
    assert [pair.state(one).device_id for one in (nearly, begun, published)] == [CPU0, CPU1, CPU0]
    assert pair.house.agents[CPU0].discarded == [(begun.id, 1)], "a file that begins anew leaves nothing behind"
    message = pair.entry().state_message
    assert "2 sessions are left" in message
    assert "1 more than half done" in message
    assert "1 fed by publishers" in message


async def test_what_continues_its_earlier_attempts_keeps_what_they_made(pair: DrainHouse) -> None:
    pair.registry.set_weight(CPU1, 0)
    record = await pair.house.engine.admit(replace(admission(), resumable=True))
    pair.registry.set_weight(CPU1, 100)
    await pair.passing(1)
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await pair.passing(5)
    after = pair.state(record)
    assert (after.device_id, after.state) == (CPU1, SessionState.RUNNING)
    assert [(one.attempt, one.device_id) for one in after.ended_attempts] == [(1, CPU0)]
    assert pair.house.agents[CPU0].discarded == []
    assert (after.restart_count, after.restart_row) == (1, 0), "its rule of restarts is not used up by it"


async def test_who_is_on_the_way_to_a_device_that_is_closed_meanwhile_goes_where_there_is_room_then(
    pair: DrainHouse,
) -> None:
    (record,) = await pair.running(1)
    pair.house.agents[CPU0].keeps_stopping = True
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await pair.passing(1)
    await pair.drains.set_cordoned(CPU1, cordoned=True)
    pair.house.agents[CPU0].end(record.id, 1, AttemptOutcome.STOPPED)
    await pair.passing(5)
    assert pair.state(record).state is SessionState.QUEUED
    assert pair.entry().state is DeviceState.CORDONED, "nothing is booked there for it"
    await pair.drains.set_cordoned(CPU0, cordoned=False)
    await pair.passing(5)
    assert (pair.state(record).device_id, pair.state(record).state) == (CPU0, SessionState.RUNNING)
    assert dict(pair.house.engine.ledger.used(CPU1)) == {}


async def test_nobody_is_moved_whose_agent_does_not_answer(pair: DrainHouse) -> None:
    (record,) = await pair.running(1)
    pair.house.agents[CPU0].reachable = False
    pair.house.agents[CPU0].cut()
    await asyncio.sleep(15)
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await asyncio.sleep(15)
    assert pair.state(record).state is SessionState.RUNNING
    assert pair.entry().state is DeviceState.UNREACHABLE, "the more serious hindrance"
    pair.house.agents[CPU0].reachable = True
    await pair.passing(20)
    assert pair.state(record).device_id == CPU1


async def test_what_is_left_at_the_deadline_is_stopped_and_told_why(pair: DrainHouse) -> None:
    stopped, done = await pair.running(2)
    await pair.drains.drain(CPU0, DrainMode.WAIT, MINUTE)
    await pair.passing(59)
    assert pair.house.agents[CPU0].stops == []
    pair.house.agents[CPU0].end(done.id)
    await pair.passing(3)
    after = pair.state(stopped)
    assert (after.state, after.failure and after.failure.reason) == (SessionState.CANCELLED, "DEVICE_DRAINED")
    assert after.failure is not None
    assert "cpu-0 was being emptied" in after.failure.message
    assert pair.house.agents[CPU0].discarded == [], "outputs are completed"
    assert pair.state(done).failure is None
    drain = pair.entry().drain
    assert drain is not None
    assert (drain.session_count, drain.stopped_count) == (0, 1)


async def test_what_completes_while_it_is_stopped_has_succeeded(pair: DrainHouse) -> None:
    (record,) = await pair.running(1)
    pair.house.agents[CPU0].keeps_stopping = True
    await pair.drains.drain(CPU0, DrainMode.MOVE, timedelta())
    await pair.passing(1)
    pair.house.agents[CPU0].end(record.id)
    await pair.passing(1)
    assert (pair.state(record).state, pair.state(record).failure) == (SessionState.SUCCEEDED, None)


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)])
async def test_a_wall_clock_that_jumps_neither_hastens_nor_delays_a_deadline(pair: DrainHouse, jump: timedelta) -> None:
    await pair.running(1)
    await pair.drains.drain(CPU0, DrainMode.WAIT, MINUTE)
    pair.house.clock.wall_offset = jump
    await pair.passing(59)
    assert pair.house.agents[CPU0].stops == []
    await pair.passing(2)
    assert len(pair.house.agents[CPU0].stops) == 1


async def test_asked_again_the_new_mode_and_deadline_hold(pair: DrainHouse) -> None:
    (record,) = await pair.running(1)
    await pair.drains.drain(CPU0, DrainMode.WAIT, MINUTE)
    await pair.passing(30)
    began = pair.entry().drain
    await pair.drains.drain(CPU0, DrainMode.WAIT, None)
    await pair.passing(120)
    assert pair.state(record).state is SessionState.RUNNING
    again = pair.entry().drain
    assert began is not None
    assert again is not None
    assert (again.start_time, again.deadline_time) == (began.start_time, None)
    await pair.drains.drain(CPU0, DrainMode.MOVE, None)
    await pair.passing(5)
    assert pair.state(record).device_id == CPU1


async def test_closed_and_draining_devices_are_so_after_a_restart_with_what_is_left_of_the_deadline(
    store: FakeSessionStore,
) -> None:
    async with drain_house(store, ROOMY) as pair:
        (record,) = await pair.running(1)
        await pair.drains.drain(CPU0, DrainMode.WAIT, MINUTE)
        await pair.drains.set_cordoned(CPU1, cordoned=True)
        await pair.passing(20)
        agents = pair.house.agents
    async with drain_house(store, ROOMY, agents=agents) as pair:
        # The clock of the second house begins where the first one's did not: the wall clock tells what is left.
        assert [pair.entry(one).state for one in (CPU0, CPU1)] == [DeviceState.DRAINING, DeviceState.CORDONED]
        with pytest.raises(PlacementRefused) as caught:
            await pair.house.admit()
        assert caught.value.reason is Reason.NO_DEVICE_READY
        await pair.passing(30)
        assert pair.state(record).state is SessionState.RUNNING
        await pair.passing(12)
        assert pair.state(record).state is SessionState.CANCELLED
        await pair.drains.set_cordoned(CPU0, cordoned=False)
        agents = pair.house.agents
    assert list(store.findings) == ["closed/cpu-1"]
    async with drain_house(store, ROOMY, agents=agents) as pair:
        assert [pair.entry(one).state for one in (CPU0, CPU1)] == [DeviceState.READY, DeviceState.CORDONED]


async def test_after_a_restart_with_the_wall_clock_set_back_nobody_waits_longer_than_was_asked(
    store: FakeSessionStore,
) -> None:
    async with drain_house(store, ROOMY) as pair:
        await pair.running(1)
        pair.house.clock.wall_offset = timedelta(days=3)
        await pair.drains.drain(CPU0, DrainMode.WAIT, MINUTE)
        agents = pair.house.agents
    async with drain_house(store, ROOMY, agents=agents) as pair:
        await pair.passing(62)
        assert pair.on_cpu0 == 0


async def test_who_was_on_the_way_when_the_balancer_was_killed_has_room_kept_again(store: FakeSessionStore) -> None:
    async with drain_house(store, {CPU0: 2, CPU1: 2}) as pair:
        (moving,) = await pair.running(1)
        pair.house.agents[CPU0].keeps_stopping = True
        await pair.drains.drain(CPU0, DrainMode.MOVE, None)
        await pair.passing(1)
        agents = pair.house.agents
    async with drain_house(store, {CPU0: 2, CPU1: 2}, agents=agents) as pair:
        await pair.passing(1)
        with pytest.raises(PlacementRefused):
            await pair.house.admit()
        agents[CPU0].end(moving.id, 1, AttemptOutcome.STOPPED)
        await pair.passing(5)
        assert (pair.state(moving).device_id, pair.state(moving).attempt) == (CPU1, 2)


async def test_all_devices_may_be_emptied_and_new_sessions_wait_or_are_refused(pair: DrainHouse) -> None:
    (record,) = await pair.running(1)
    for device_id in ROOMY:
        # Closed first, or sessions would be moved to one that is to be emptied next.
        await pair.drains.set_cordoned(device_id, cordoned=True)
    for device_id in ROOMY:
        await pair.drains.drain(device_id, DrainMode.MOVE, None)
    await pair.passing(5)
    assert pair.state(record).state is SessionState.RUNNING, "there is no other place for it"
    with pytest.raises(PlacementRefused) as caught:
        await pair.house.admit()
    assert caught.value.reason is Reason.NO_DEVICE_READY
    waiting = await pair.house.engine.admit(replace(admission(), max_wait=timedelta(hours=1), priority=Priority.LIVE))
    await pair.passing(5)
    assert pair.state(waiting).state is SessionState.QUEUED
    await pair.drains.set_cordoned(CPU1, cordoned=False)
    await pair.passing(5)
    assert {pair.state(one).device_id for one in (record, waiting)} == {CPU1}


async def test_a_settings_reload_leaves_closed_devices_alone(pair: DrainHouse) -> None:
    await pair.running(1)
    await pair.drains.drain(CPU0, DrainMode.WAIT, None)
    await pair.drains.set_cordoned(CPU1, cordoned=True)
    pair.registry.apply_rules([])
    assert [pair.entry(one).state for one in (CPU0, CPU1)] == [DeviceState.DRAINING, DeviceState.CORDONED]
    await pair.drains.set_cordoned(CPU0, cordoned=True)
    assert pair.entry().state is DeviceState.DRAINING, "closing what is being emptied ends nothing"


async def test_a_device_is_closed_although_the_store_does_not_take_it_and_that_is_told(
    pair: DrainHouse, store: FakeSessionStore
) -> None:
    store.failure = StoreError("the disk is gone")
    with pytest.raises(RequestFailure, match="until the balancer starts again") as caught:
        await pair.drains.set_cordoned(CPU0, cordoned=True)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert pair.entry().state is DeviceState.CORDONED


@pytest.mark.parametrize("text", ["{", '{"version":2}', '{"version":1,"drain":{"mode":"blow"}}'])
async def test_a_drain_that_cannot_be_read_leaves_its_device_closed(store: FakeSessionStore, text: str) -> None:
    store.findings["closed/cpu-0"] = text
    async with drain_house(store, ROOMY) as pair:
        assert pair.entry().state is DeviceState.CORDONED


async def test_how_many_were_stopped_is_kept(store: FakeSessionStore) -> None:
    async with drain_house(store, ROOMY) as pair:
        await pair.running(2)
        await pair.drains.drain(CPU0, DrainMode.MOVE, timedelta())
        await pair.passing(2)
    assert json.loads(store.findings["closed/cpu-0"])["drain"]["stopped_count"] == 2
