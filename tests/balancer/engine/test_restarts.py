"""Sessions that begin again by themselves, and those whose agent is lost: one attempt lives, and none is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import pytest

from balancer.absent_agents import AbsentAgents
from balancer.admission import Admission
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.restart import LOSSES_ONLY, RestartMode, RestartRule
from balancer.domain.session import Condition, EndedAttempt, Failure, Priority, SessionRecord, SessionState, Settling
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, admission, engine_house
from fakes.session_records import LADDER
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import START_TIME, settle
from gpu_balancer.runtime.failures import Reason, RequestFailure

KILLED = Failure(reason="KILLED", message="Cannot go on: the program was killed.")
NOT_BEGUN = Failure(reason="DEVICE_LOST", message="Cannot use the GPU: it is lost.")
RULE = RestartRule(mode=RestartMode.ON_FAILURE, max_restarts=2, first_backoff=timedelta(seconds=4))
MINUTE = timedelta(minutes=1)
ONE, OTHER = device_view("cpu-0", core_count=2), device_view("cpu-1", core_count=2)
"""Each has room for one ladder."""
CPU_0, CPU_1 = ONE.id, OTHER.id


def live(rule: RestartRule = RULE, request_id: str | None = None) -> Admission:
    """Asks for a ladder of a live input."""
    return replace(admission(request_id), restart=rule, resumable=True)


async def running(house: EngineHouse, asked: Admission) -> SessionRecord:
    """Admits a session and has its first frame reported, from a folder of its own."""
    record = await house.engine.admit(asked)
    await run(house, record.id)
    return house.engine.get(record.id)


async def run(house: EngineHouse, session_id: SessionId) -> SessionRecord:
    """Has the first frame of a session's present attempt reported."""
    await settle()
    record = house.engine.get(session_id)
    assert record.device_id is not None
    told = AttemptReported(attempt=record.attempt, phase=AttemptPhase.RUNNING, folder=f"/{record.attempt}")
    house.agents[record.device_id].tell(session_id, told)
    await settle()
    return house.engine.get(session_id)


async def heartbeats(house: EngineHouse) -> None:
    """Has agents measure at 1 Hz, as they do; one that is unreachable tells nothing."""
    while True:
        for agent in house.agents.values():
            if agent.reachable:
                agent.measure()
        await asyncio.sleep(1)


@asynccontextmanager
async def two_devices(store: FakeSessionStore, **house_of: object) -> AsyncIterator[EngineHouse]:
    """Makes a house of two small devices whose agents are lost after a minute."""
    async with engine_house(store, ONE, OTHER, **house_of) as house:  # type: ignore[arg-type]
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        for device_id in (CPU_0, CPU_1):
            house.watch(device_id, lost_after=MINUTE)
        yield house


def vanish(house: EngineHouse, device_id: DeviceId) -> None:
    """Has an agent answer no more, whatever runs there."""
    agent = house.agents[device_id]
    agent.reachable = False
    agent.cut()


def reappear(house: EngineHouse, device_id: DeviceId) -> None:
    house.agents[device_id].reachable = True


# ------------------------------------------------------------------------------------------------------------ restarts


async def test_a_session_that_failed_rests_and_then_runs_as_its_next_attempt(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        record = await running(house, live())
        house.agent.fail(record.id, 1, KILLED)
        await settle()
        resting = house.engine.get(record.id)
        assert (resting.state, resting.device_id, resting.reservation) == (SessionState.QUEUED, None, None)
        assert [condition.type for condition in resting.conditions] == ["RESTARTING"]
        assert store.records[record.id].not_before_time == resting.not_before_time, "and it is durable"
        await asyncio.sleep(3.9)
        assert house.agent.launches == [(record.id, 1)]
        await asyncio.sleep(0.2)
        assert house.agent.launches == [(record.id, 1), (record.id, 2)]
        launched = house.agent.launched_records[-1]
        assert launched.ended_attempts == (EndedAttempt(attempt=1, device_id=CPU_0, folder="/1"),)
        again = await run(house, record.id)
        assert (again.state, again.attempt, again.restart_count) == (SessionState.RUNNING, 2, 1)
        assert again.last_restart is not None
        assert again.last_restart.failure == KILLED
        house.agent.end(record.id, 2)
        await settle()
        assert house.engine.get(record.id).state is SessionState.SUCCEEDED


async def test_rests_double_and_the_last_failure_is_told(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        record = await running(house, live())
        began_s = house.clock.monotonic_s()
        for attempt, rest_s in ((1, 4), (2, 8)):
            house.agent.fail(record.id, attempt, KILLED)
            await asyncio.sleep(rest_s + 0.5)
            await run(house, record.id)
        assert house.clock.monotonic_s() - began_s < 14
        house.agent.fail(record.id, 3, KILLED)
        await asyncio.sleep(0.1)
        failed = house.engine.get(record.id)
        assert failed.state is SessionState.FAILED
        assert failed.failure == replace(KILLED, message=f"{KILLED.message} It was begun again 2 times before.")
        assert house.engine.ledger.session_count(CPU_0) == 0


async def test_a_failed_session_ends_once_its_agent_has_completed_what_was_left_open(store: FakeSessionStore) -> None:
    once = replace(RULE, max_restarts=0)
    async with engine_house(store, ONE) as house:
        agents = house.agents
        house.watch()
        house.agent.stop_gate.clear()
        record = await running(house, live(once))
        house.agent.fail(record.id, 1, KILLED)
        await asyncio.sleep(1)
        ending = house.engine.get(record.id)
        settling = Settling(state=SessionState.FAILED, attempt=1)
        assert (ending.state, ending.settling, ending.reservation) == (SessionState.STOPPING, settling, None)
        assert store.records[record.id].settling == settling, "and it is durable"
        assert house.agent.stops == [(record.id, 1)]
        other = await running(house, live(once))
        assert other.state is SessionState.RUNNING, "its room is free"
    async with engine_house(store, ONE, agents=agents) as house:
        house.watch()
        await asyncio.sleep(10)
        assert house.engine.get(record.id).state is SessionState.STOPPING
        assert house.agent.stops[-1] == (record.id, 1), "it is asked again"
        house.agent.stop_gate.set()
        await asyncio.sleep(1)
        failed = house.engine.get(record.id)
        assert (failed.state, failed.failure, failed.settling) == (SessionState.FAILED, KILLED, None)
        assert house.agent.launches.count((record.id, 1)) == 1


async def test_a_failed_session_tells_what_its_agent_could_not_complete(store: FakeSessionStore) -> None:
    kept = replace(KILLED, message=f"{KILLED.message} Its parts are kept in /out.")
    missing = Condition(type="PARTS_MISSING", message="attempt 1: its folder is gone.", since_time=START_TIME)
    async with engine_house(store, ONE) as house:
        house.watch()
        house.agent.stop_gate.clear()
        record = await running(house, live(replace(RULE, max_restarts=0)))
        house.agent.fail(record.id, 1, KILLED)
        await asyncio.sleep(1)
        told = AttemptReported(
            attempt=1,
            phase=AttemptPhase.ENDED,
            outcome=AttemptOutcome.FAILED,
            failure=kept,
            conditions=(missing, replace(missing, type="FINALISING")),
        )
        house.agent.tell(record.id, told)
        house.agent.stop_gate.set()
        await asyncio.sleep(1)
        failed = house.engine.get(record.id)
        assert (failed.state, failed.failure, failed.conditions) == (SessionState.FAILED, kept, (missing,))


async def test_a_failed_session_needs_no_room_elsewhere_when_its_agent_is_lost(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        house.watch(CPU_0, lost_after=MINUTE)
        house.agent.stop_gate.clear()
        record = await running(house, live(replace(RULE, max_restarts=0)))
        house.agent.fail(record.id, 1, KILLED)
        await asyncio.sleep(1)
        vanish(house, CPU_0)
        await asyncio.sleep(90)
        assert house.engine.get(record.id).state is SessionState.FAILED


async def test_a_failed_session_does_not_wait_for_an_agent_that_is_lost(store: FakeSessionStore) -> None:
    async with two_devices(store) as house:
        record = await running(house, live(replace(RULE, max_restarts=0)))
        device_id = record.device_id or CPU_0
        house.agents[device_id].stop_gate.clear()
        house.agents[device_id].fail(record.id, 1, KILLED)
        await asyncio.sleep(1)
        vanish(house, device_id)
        await asyncio.sleep(50)
        assert house.engine.get(record.id).state is SessionState.STOPPING
        await asyncio.sleep(30)
        failed = house.engine.get(record.id)
        assert (failed.state, failed.failure) == (SessionState.FAILED, KILLED)


BUSY = RequestFailure(reason=Reason.AGENT_BUSY, message="Cannot launch attempt 2: attempt 1 has not ended here.")


async def test_a_session_that_comes_back_to_its_device_waits_there_for_its_own_earlier_attempt(
    store: FakeSessionStore,
) -> None:
    """Its agent was lost for a while and ran it on; it refuses the next one until the earlier one has ended."""
    async with engine_house(store, ONE) as house:
        house.watch()
        record = await running(house, live())
        house.agent.launch_failure = BUSY
        house.agent.fail(record.id, 1, KILLED)
        await asyncio.sleep(15)
        assert house.engine.get(record.id).state is SessionState.STARTING
        house.agent.launch_failure = None
        await asyncio.sleep(6)
        assert (await run(house, record.id)).state is SessionState.RUNNING


async def test_an_earlier_attempt_that_never_ends_is_not_awaited_for_ever(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        record = await running(house, live())
        house.agent.launch_failure = BUSY
        house.agent.fail(record.id, 1, KILLED)
        await asyncio.sleep(60)
        ended = house.engine.get(record.id)
        assert (ended.state, ended.attempt, ended.settling) == (SessionState.FAILED, 2, None)
        assert ended.failure is not None
        assert ended.failure.reason == "AGENT_BUSY"
        assert house.agent.stops[-1] == (record.id, 1), "the attempt before it was asked to complete what is open"


async def test_a_rest_survives_a_restart_of_the_balancer_and_so_does_the_request_id(store: FakeSessionStore) -> None:
    asked = live(replace(RULE, first_backoff=timedelta(seconds=30)), request_id="once")
    async with engine_house(store, ONE) as house:
        agents = house.agents
        house.watch()
        record = await running(house, asked)
        house.agent.fail(record.id, 1, KILLED)
        await settle()
    async with engine_house(store, ONE, agents=agents) as house:
        house.watch()
        resting = house.engine.get(record.id)
        assert (resting.state, resting.restart_row) == (SessionState.QUEUED, 1)
        assert (await house.engine.admit(asked)).id == record.id
        rest_s = (resting.not_before_time - house.clock.now()).total_seconds() if resting.not_before_time else 0
        assert 0 < rest_s <= 60
        await asyncio.sleep(rest_s - 0.5)
        assert house.agent.launches == [(record.id, 1)]
        await asyncio.sleep(1)
        assert house.agent.launches == [(record.id, 1), (record.id, 2)]
        assert (await house.engine.admit(asked)).id == record.id


async def test_a_wall_clock_that_jumps_neither_shortens_a_rest_nor_makes_it_endless(store: FakeSessionStore) -> None:
    for jump in (timedelta(hours=-5), timedelta(hours=5)):
        async with engine_house(store, ONE) as house:
            house.watch()
            record = await running(house, live())
            house.agent.fail(record.id, 1, KILLED)
            await settle()
            house.clock.wall_offset = jump
            await asyncio.sleep(3.9)
            assert house.agent.launches == [(record.id, 1)]
            await asyncio.sleep(0.2)
            assert house.agent.launches == [(record.id, 1), (record.id, 2)]
            await house.engine.stop(record.id)


async def test_a_session_that_rests_can_be_stopped_and_is_not_begun_again(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        record = await running(house, live())
        house.agent.fail(record.id, 1, KILLED)
        await settle()
        assert (await house.engine.stop(record.id)).state is SessionState.STOPPING
        await asyncio.sleep(60)
        assert house.engine.get(record.id).state is SessionState.CANCELLED
        assert house.agent.launches == [(record.id, 1)]


async def test_a_session_that_rests_lets_others_have_its_room_and_waits_for_room_after_it(
    store: FakeSessionStore,
) -> None:
    async with engine_house(store, ONE) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        house.watch()
        record = await running(house, live())
        house.agent.fail(record.id, 1, KILLED)
        await settle()
        other = await running(house, live())
        assert other.state is SessionState.RUNNING
        await asyncio.sleep(60)
        assert house.engine.get(record.id).state is SessionState.QUEUED
        house.agent.end(other.id, 1)
        await asyncio.sleep(1)
        assert house.engine.get(record.id).state is SessionState.STARTING


async def test_a_session_that_finds_no_room_fails_with_what_had_ended_it(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        house.watch()
        record = await running(house, live())
        house.agent.fail(record.id, 1, KILLED)
        await settle()
        await running(house, live())
        await asyncio.sleep(6 * 60)
        failed = house.engine.get(record.id)
        assert (failed.state, failed.failure) == (SessionState.FAILED, KILLED)


async def test_a_session_that_no_device_could_begin_rests_for_as_long_as_its_rule_says(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        house.watch()
        record = await house.engine.admit(live())
        await settle()
        house.agent.fail(record.id, 1, NOT_BEGUN)
        await asyncio.sleep(12)
        resting = house.engine.get(record.id)
        assert (resting.state, resting.restart_row) == (SessionState.QUEUED, 1), "no other device came within 10 s"
        await asyncio.sleep(4)
        again = await run(house, record.id)
        assert (again.state, again.attempt, again.device_id) == (SessionState.RUNNING, 2, CPU_0)


async def test_a_live_session_that_begins_again_makes_a_preemptible_one_give_way(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        house.watch()
        record = await running(house, live())
        house.agent.fail(record.id, 1, KILLED)
        await settle()
        file = replace(LADDER, real_time=False, reserved_speed=Fraction(1))
        asked = replace(admission(workload=file), priority=Priority.BATCH, preemptible=True, restart=RULE)
        victim = await running(house, asked)
        await asyncio.sleep(5)
        assert house.engine.get(record.id).state is SessionState.STARTING
        giving_way = house.engine.get(victim.id)
        assert (giving_way.state, giving_way.preemption_count) == (SessionState.QUEUED, 1)
        assert (giving_way.restart_count, giving_way.restart_row) == (0, 0), "giving way is no restart"
        assert house.agent.discarded == [(victim.id, 1)]


async def test_an_input_that_comes_late_counts_against_no_device(store: FakeSessionStore) -> None:
    """A camera that is off: whichever device the session runs on at last, the others did nothing wrong."""
    unreadable = Failure(reason="INPUT_UNREADABLE", message="Cannot read the input: nobody answers.")
    async with engine_house(store, ONE) as house:
        house.watch()
        record = await house.engine.admit(live(replace(RULE, reasons=frozenset({"INPUT_UNREADABLE"}))))
        await settle()
        house.agent.fail(record.id, 1, unreadable)
        await asyncio.sleep(5)
        assert (await run(house, record.id)).attempt == 2
        assert house.observer.not_begun == []


async def test_who_says_nothing_outlives_losses_and_nothing_else(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view()) as house:
        house.watch()
        killed, lost = [await running(house, live(LOSSES_ONLY)) for _ in range(2)]
        house.agent.fail(killed.id, 1, KILLED)
        house.agent.fail(lost.id, 1, Failure(reason="DEVICE_LOST", message="It is gone."))
        await asyncio.sleep(2)
        assert house.engine.get(killed.id).state is SessionState.FAILED
        assert house.engine.get(lost.id).state is SessionState.STARTING


# --------------------------------------------------------------------------------------------------------- lost agents


async def test_a_session_of_a_lost_agent_goes_on_elsewhere_and_what_returns_is_ended(store: FakeSessionStore) -> None:
    async with two_devices(store) as house:
        record = await running(house, live(LOSSES_ONLY))
        assert record.device_id == CPU_0
        vanish(house, CPU_0)
        await asyncio.sleep(59)
        left = house.engine.get(record.id)
        assert [condition.type for condition in left.conditions] == ["UNREACHABLE"]
        assert left.state is SessionState.RUNNING, "it may well be running on"
        await asyncio.sleep(2)
        moved = await run(house, record.id)
        assert (moved.state, moved.device_id, moved.attempt) == (SessionState.RUNNING, CPU_1, 2)
        assert moved.last_restart is not None
        assert (moved.last_restart.device_id, moved.last_restart.failure.reason) == (CPU_0, "AGENT_LOST")
        assert moved.ended_attempts == (EndedAttempt(attempt=1, device_id=CPU_0, folder="/1"),)
        assert house.engine.ledger.session_count(CPU_0) == 0
        reappear(house, CPU_0)
        await asyncio.sleep(5)
        assert house.agents[CPU_0].stops[:1] == [(record.id, 1)]
        assert house.agents[CPU_0].discarded == [], "what a live input's attempt made is continued"
        assert house.agents[CPU_0].live == {}
        assert house.engine.get(record.id) == moved, "the end of the old attempt is no end of the session"
        house.agents[CPU_1].end(record.id, 2)
        await settle()
        assert house.engine.get(record.id).state is SessionState.SUCCEEDED


async def test_what_begins_anew_has_nothing_left_of_the_attempt_that_returns(store: FakeSessionStore) -> None:
    async with two_devices(store) as house:
        record = await running(house, replace(live(LOSSES_ONLY), resumable=False))
        vanish(house, CPU_0)
        await asyncio.sleep(61)
        moved = await run(house, record.id)
        assert (moved.device_id, moved.ended_attempts) == (CPU_1, ())
        reappear(house, CPU_0)
        await asyncio.sleep(5)
        assert set(house.agents[CPU_0].discarded) == {(record.id, 1)}


async def test_a_session_without_another_device_stays_where_it_may_well_run_on(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        house.watch(lost_after=MINUTE)
        record = await running(house, live(LOSSES_ONLY))
        vanish(house, CPU_0)
        await asyncio.sleep(3600)
        assert house.engine.get(record.id).state is SessionState.RUNNING
        reappear(house, CPU_0)
        await asyncio.sleep(5)
        back = house.engine.get(record.id)
        assert (back.state, back.attempt, back.conditions) == (SessionState.RUNNING, 1, ())
        assert house.agent.stops == []


async def test_room_that_comes_free_later_is_taken_while_the_silence_lasts(store: FakeSessionStore) -> None:
    async with two_devices(store) as house:
        record = await running(house, live(LOSSES_ONLY))
        other = await running(house, live(LOSSES_ONLY))
        assert other.device_id == CPU_1
        vanish(house, CPU_0)
        await asyncio.sleep(600)
        assert house.engine.get(record.id).device_id == CPU_0
        house.agents[CPU_1].end(other.id, 1)
        await asyncio.sleep(3)
        assert house.engine.get(record.id).device_id == CPU_1


async def test_of_two_sessions_the_one_that_finds_room_goes_and_the_other_stays(store: FakeSessionStore) -> None:
    roomy = device_view("cpu-0", core_count=4)
    async with engine_house(store, roomy, OTHER) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        for device_id in (CPU_0, CPU_1):
            house.watch(device_id, lost_after=MINUTE)
        busy = await running(house, live(LOSSES_ONLY))
        records = [await running(house, live(LOSSES_ONLY)) for _ in range(2)]
        if busy.device_id == CPU_0:
            records = [busy, *(record for record in records if record.device_id == CPU_0)]
            busy = next(one for one in map(house.engine.get, house.engine.expected_on(CPU_1)))
        house.agents[CPU_1].end(busy.id, 1)
        vanish(house, CPU_0)
        await asyncio.sleep(70)
        assert sorted(str(house.engine.get(record.id).device_id) for record in records) == ["cpu-0", "cpu-1"]
        assert all(house.engine.get(record.id).state is not SessionState.QUEUED for record in records)


@pytest.mark.parametrize(
    "rule", [replace(LOSSES_ONLY, mode=RestartMode.NEVER), replace(RULE, reasons=frozenset({"KILLED"}))]
)
async def test_who_may_not_leave_a_lost_agent_stays(store: FakeSessionStore, rule: RestartRule) -> None:
    async with two_devices(store) as house:
        record = await running(house, live(rule))
        vanish(house, CPU_0)
        await asyncio.sleep(600)
        left = house.engine.get(record.id)
        assert (left.state, left.device_id) == (SessionState.RUNNING, CPU_0)


async def test_a_balancer_that_stood_still_itself_takes_no_agent_for_lost(store: FakeSessionStore) -> None:
    """Stopped and continued, its clock says that all agents were silent."""
    async with two_devices(store) as house:
        record = await running(house, live(LOSSES_ONLY))
        for agent in house.agents.values():
            agent.silent = True
        monotonic_s = house.clock.monotonic_s
        await asyncio.sleep(9)
        house.clock.monotonic_s = lambda: monotonic_s() + 3600  # type: ignore[method-assign]
        for agent in house.agents.values():
            agent.silent = False
        await asyncio.sleep(30)
        back = house.engine.get(record.id)
        assert (back.state, back.device_id, back.conditions) == (SessionState.RUNNING, CPU_0, ())


async def test_a_new_balancer_waits_as_long_as_an_old_one_before_it_takes_an_agent_for_lost(
    store: FakeSessionStore,
) -> None:
    async with two_devices(store) as house:
        agents = house.agents
        record = await running(house, live(LOSSES_ONLY))
        vanish(house, CPU_0)
        await asyncio.sleep(40)
    async with two_devices(store, agents=agents) as house:
        await asyncio.sleep(59)
        assert house.engine.get(record.id).device_id == CPU_0
        await asyncio.sleep(3)
        assert house.engine.get(record.id).device_id == CPU_1


async def test_a_stop_that_was_asked_for_is_not_forgotten_because_the_agent_is_lost(store: FakeSessionStore) -> None:
    async with two_devices(store) as house:
        record = await running(house, live(LOSSES_ONLY))
        vanish(house, CPU_0)
        await asyncio.sleep(20)
        await house.engine.stop(record.id)
        await asyncio.sleep(120)
        assert house.engine.get(record.id).state is SessionState.STOPPING
        reappear(house, CPU_0)
        await asyncio.sleep(6)
        assert house.engine.get(record.id).state is SessionState.CANCELLED
        assert house.agents[CPU_1].launches == []


async def test_the_end_that_a_lost_attempt_told_late_does_not_end_the_next_one(store: FakeSessionStore) -> None:
    async with two_devices(store) as house:
        record = await running(house, live(LOSSES_ONLY))
        vanish(house, CPU_0)
        house.agents[CPU_0].end(record.id, 1, AttemptOutcome.COMPLETED)
        await asyncio.sleep(61)
        moved = await run(house, record.id)
        reappear(house, CPU_0)
        await asyncio.sleep(5)
        assert house.engine.get(record.id) == moved
        assert house.agents[CPU_0].stops == []


async def test_a_launch_that_was_never_answered_is_made_elsewhere_and_blames_no_device(
    store: FakeSessionStore,
) -> None:
    async with two_devices(store) as house:
        await settle()
        house.agents[CPU_0].reachable = False
        record = await house.engine.admit(live(LOSSES_ONLY))
        assert record.device_id == CPU_0
        house.agents[CPU_0].cut()
        await asyncio.sleep(61)
        assert (await run(house, record.id)).device_id == CPU_1
        assert house.observer.not_begun == []


async def test_the_sessions_of_an_agent_that_is_not_found_after_a_start_are_not_forgotten(
    store: FakeSessionStore,
) -> None:
    async with two_devices(store) as house:
        agents = house.agents
        record = await running(house, live(LOSSES_ONLY))
    found = {CPU_1: agents[CPU_1]}
    async with engine_house(store, OTHER, agents=found) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        house.watch(CPU_1)
        absent = AbsentAgents(house.engine, found, clock=house.clock, lost_after=lambda: MINUTE)
        house.tasks.spawn_eternal(absent.watch(), name="absent agents")
        await asyncio.sleep(9)
        assert house.engine.get(record.id).conditions == ()
        await asyncio.sleep(2)
        assert [condition.type for condition in house.engine.get(record.id).conditions] == ["UNREACHABLE"]
        await asyncio.sleep(48)
        assert house.engine.get(record.id).device_id == CPU_0
        await asyncio.sleep(3)
        assert (await run(house, record.id)).device_id == CPU_1


async def test_an_agent_that_is_found_after_a_while_has_its_sessions_as_before(store: FakeSessionStore) -> None:
    async with two_devices(store) as house:
        agents = house.agents
        record = await running(house, live(LOSSES_ONLY))
    found = {CPU_1: agents[CPU_1]}
    async with engine_house(store, ONE, OTHER, agents=found) as house:
        house.tasks.spawn_eternal(heartbeats(house), name="heartbeats")
        absent = AbsentAgents(house.engine, found, clock=house.clock, lost_after=lambda: MINUTE)
        house.tasks.spawn_eternal(absent.watch(), name="absent agents")
        await asyncio.sleep(30)
        found[CPU_0] = agents[CPU_0]
        house.watch(CPU_0, lost_after=MINUTE)
        await asyncio.sleep(120)
        back = house.engine.get(record.id)
        assert (back.state, back.device_id, back.conditions) == (SessionState.RUNNING, CPU_0, ())
