"""Watching an agent: events in order, silence, reconciliation, agents that lost everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from balancer.agent_watch import AgentWatch
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.reachability import UNREACHABLE
from balancer.domain.session import SessionState
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.ports.agent_client import AgentEvent, AgentReport, CaughtUp
from balancer.ports.session_store import StoreError
from fakes.engine_house import EngineHouse
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import StoppableClock, settle
from gpu_balancer.runtime.waking_clock import WakingClock

CPU_0 = DeviceId("cpu-0")


async def heartbeat(house: EngineHouse) -> None:
    """Measures at 1 Hz, as agents do."""
    while True:
        house.agent.measure()
        await asyncio.sleep(1)


@pytest.fixture
async def running(house: EngineHouse) -> SessionId:
    """A session that runs on a watched agent with a heartbeat."""
    house.tasks.spawn_eternal(heartbeat(house), name="heartbeat")
    house.watch()
    record = await house.admit()
    await settle()
    house.agent.run(record.id)
    await settle()
    return record.id


async def test_news_of_the_agent_reach_the_registry(house: EngineHouse) -> None:
    house.watch()
    await settle()
    house.agent.measure(77)
    await settle()
    assert house.devices.reports[0].identity.id == CPU_0
    assert house.devices.measurements[CPU_0].encoder_utilization_percent == 77
    assert house.devices.diary == ["cpu-0 reachable"]


async def test_an_agent_that_sends_something_every_second_stays_reachable(
    house: EngineHouse, running: SessionId
) -> None:
    await asyncio.sleep(3600)
    assert house.devices.diary == ["cpu-0 reachable"]


async def test_a_stream_that_breaks_is_taken_up_where_it_was(house: EngineHouse, running: SessionId) -> None:
    house.agent.cut()
    house.agent.reachable = False
    house.agent.end(running)
    await asyncio.sleep(3)
    house.agent.reachable = True
    await asyncio.sleep(3)
    assert house.engine.get(running).state is SessionState.SUCCEEDED
    assert house.engine.cursor(CPU_0) == house.agent.last_number
    assert house.devices.diary == ["cpu-0 reachable", "cpu-0 reachable"], "three seconds are no silence"


@pytest.mark.parametrize("way", ["nobody answers", "the stream says nothing", "the connection hangs"])
async def test_an_agent_that_is_silent_for_ten_seconds_is_unreachable_and_its_sessions_say_so(
    house: EngineHouse, running: SessionId, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "nobody answers":
        house.agent.reachable = False
        house.agent.cut()
    elif way == "the stream says nothing":
        house.agent.silent = True
    else:
        monkeypatch.setattr(house.agent, "describe", _never)
        house.agent.cut()
    await asyncio.sleep(8.5)
    assert CPU_0 not in house.devices.unreachable
    await asyncio.sleep(2)
    assert "has not been heard for 10 s" in house.devices.unreachable[CPU_0]
    silent = house.engine.get(running)
    assert silent.state is SessionState.RUNNING
    assert [condition.type for condition in silent.conditions] == [UNREACHABLE]
    assert house.engine.ledger.session_count(CPU_0) == 1, "it may well be running on"
    monkeypatch.undo()
    house.agent.reachable = True
    house.agent.silent = False
    house.agent.cut()
    await asyncio.sleep(15)
    assert house.devices.unreachable == {}
    assert house.engine.get(running).conditions == ()


async def _never() -> AgentReport:
    await asyncio.Event().wait()
    raise AssertionError


async def test_an_agent_that_was_never_there_counts_as_silent_after_ten_seconds(house: EngineHouse) -> None:
    house.agent.reachable = False
    house.watch()
    await asyncio.sleep(9)
    assert house.devices.diary == []
    await asyncio.sleep(1.5)
    assert house.devices.diary == ["cpu-0 unreachable"]


async def test_what_nobody_could_hear_while_the_balancer_stood_still_is_no_silence(house: EngineHouse) -> None:
    """Its agent was killed meanwhile, and the next one needs a moment."""
    machine = StoppableClock()
    house.clock = waking = WakingClock(machine)
    house.tasks.spawn_eternal(waking.look(), name="look")
    house.watch(lost_after=timedelta(seconds=20))
    await asyncio.sleep(1)
    house.devices.diary.clear()
    house.agent.reachable = False
    house.agent.cut()
    await asyncio.sleep(3)
    machine.stop_process_for(60)
    await asyncio.sleep(5)
    assert house.devices.diary == []
    await asyncio.sleep(3)
    assert house.devices.diary == ["cpu-0 unreachable"]


async def test_the_agent_of_another_device_is_not_listened_to(house: EngineHouse) -> None:
    house.agent.device_id = DeviceId("cpu-9")
    watch = AgentWatch(CPU_0, house.agent, sessions=house.engine, news=house.devices, clock=house.clock)
    house.tasks.spawn_eternal(watch.run(), name="watch")
    await asyncio.sleep(11)
    assert (
        "it has device cpu-9" in house.devices.unreachable[CPU_0]
        or "has device cpu-9" in (house.devices.unreachable[CPU_0])
    )
    assert house.devices.reports == []


async def test_a_session_that_its_agent_does_not_know_any_more_fails(house: EngineHouse, running: SessionId) -> None:
    house.agent.lose_everything()
    house.agent.cut()
    await asyncio.sleep(3)
    lost = house.engine.get(running)
    assert lost.state is SessionState.FAILED
    assert lost.failure is not None
    assert lost.failure.reason == "ATTEMPT_LOST"
    assert house.engine.ledger.session_count(CPU_0) == 0


async def test_an_agent_that_counts_anew_is_heard_from_its_first_event(
    house: EngineHouse, store: FakeSessionStore, running: SessionId
) -> None:
    """Its new numbers are below the ones that were taken, yet they are news."""
    for _ in range(5):
        house.agent.tell(running, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING))
    await settle()
    house.agent.reachable = False
    house.agent.cut()
    await settle()
    house.agent.lose_everything()
    house.agent.end(running)
    house.agent.reachable = True
    await asyncio.sleep(3)
    assert house.engine.get(running).state is SessionState.SUCCEEDED
    assert store.cursors[CPU_0] == 1


async def test_an_end_that_was_told_while_away_is_no_loss(house: EngineHouse, running: SessionId) -> None:
    """The agent's kept events come before it says what lives: the session succeeded, it is not missing."""
    house.agent.reachable = False
    house.agent.cut()
    await asyncio.sleep(20)
    house.agent.end(running)
    house.agent.reachable = True
    await asyncio.sleep(5)
    assert house.engine.get(running).state is SessionState.SUCCEEDED


async def test_a_launch_acknowledged_while_the_agent_says_what_lives_is_not_missing(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer to "what lives" may be older than the launch."""
    says = asyncio.Event()

    async def old_answer(after: int) -> AsyncIterator[AgentEvent]:
        await says.wait()
        yield AgentEvent(number=0, body=CaughtUp(live_attempts={}))
        await asyncio.Event().wait()

    monkeypatch.setattr(house.agent, "events", old_answer)
    house.watch()
    await settle()
    record = await house.admit()
    await settle()
    assert house.engine.expected_on(CPU_0) == {record.id: 1}
    says.set()
    await settle()
    assert house.engine.get(record.id).state is SessionState.STARTING


async def test_a_launch_that_waits_for_its_agent_is_done_as_soon_as_it_is_back(house: EngineHouse) -> None:
    house.watch()
    await settle()
    house.agent.reachable = False
    house.agent.cut()
    record = await house.admit()
    await asyncio.sleep(7)
    house.agent.reachable = True
    await asyncio.sleep(2.1)
    assert house.agent.launches == [(record.id, 1)]


async def test_what_an_agent_runs_without_being_asked_is_stopped(house: EngineHouse) -> None:
    stray = SessionId("stray")
    house.agent.run(stray)
    house.watch()
    await settle()
    assert (stray, 1) in house.agent.stops
    assert house.agent.live == {}


async def test_a_stray_that_shows_up_later_is_stopped(house: EngineHouse) -> None:
    house.watch()
    await settle()
    house.agent.run(SessionId("stray"))
    await settle()
    assert house.agent.live == {}


async def test_an_attempt_that_lives_on_after_its_session_ended_is_stopped(
    house: EngineHouse, running: SessionId
) -> None:
    house.agent.end(running, outcome=AttemptOutcome.FAILED)
    await settle()
    house.agent.run(running)
    await settle()
    assert house.agent.stops == [(running, 1)]
    assert house.engine.get(running).state is SessionState.FAILED


async def test_a_stop_that_a_restarted_agent_has_forgotten_is_said_again(
    house: EngineHouse, running: SessionId, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[SessionId] = []

    async def forgetful(session_id: SessionId, attempt: int, **_: bool) -> None:
        told.append(session_id)

    monkeypatch.setattr(house.agent, "stop", forgetful)
    await house.engine.stop(running)
    await settle()
    assert told == [running]
    monkeypatch.undo()
    house.agent.cut()
    await asyncio.sleep(1)
    assert house.agent.stops == [(running, 1)]
    assert house.engine.get(running).state is SessionState.CANCELLED


async def test_a_long_absence_is_taken_in_though_the_store_is_slow(house: EngineHouse, store: FakeSessionStore) -> None:
    for number in range(500):
        house.agent.end(SessionId(f"forgotten-{number}"))
    store.failure = StoreError("Cannot write: broken.")
    house.watch()
    await asyncio.sleep(30)
    assert house.engine.cursor(CPU_0) == 64, "the watch waits for the store"
    store.failure = None
    await asyncio.sleep(5)
    assert store.cursors[CPU_0] == 500
