"""A balancer that starts: it serves once it knows what its agents run, or its time is over, and holds requests back."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from balancer.agent_watch import AgentWatch
from balancer.domain.ids import DeviceId
from balancer.domain.session import SessionState
from balancer.start_reconciliation import StartReconciliation
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, engine_house
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import settle
from gpu_balancer.runtime.failures import Reason, RequestFailure

CPU_0, CPU_1 = DeviceId("cpu-0"), DeviceId("cpu-1")
BUDGET = timedelta(seconds=3)


async def at_once() -> None:
    """A store that has nothing to write."""


def watched(house: EngineHouse, reconciliation: StartReconciliation, device_id: DeviceId) -> None:
    watch = AgentWatch(
        device_id,
        house.agents[device_id],
        sessions=house.engine,
        news=house.devices,
        clock=house.clock,
        on_reconciled=reconciliation.reconciled,
    )
    house.tasks.spawn_eternal(watch.run(), name=f"watch {device_id}")


async def test_where_nobody_is_awaited_it_is_over_at_once() -> None:
    started_s = asyncio.get_running_loop().time()
    assert await StartReconciliation().run(BUDGET, at_once) == ()
    assert asyncio.get_running_loop().time() == started_s


async def test_a_session_that_ended_meanwhile_is_known_to_have_before_anybody_is_served(
    store: FakeSessionStore,
) -> None:
    async with engine_house(store) as house:
        agents = house.agents
        house.watch()
        record = await house.admit()
        await settle()
        house.agent.run(record.id)
        await settle()
    agents[CPU_0].end(record.id)
    async with engine_house(store, agents=agents) as house:
        reconciliation = StartReconciliation()
        reconciliation.expect([CPU_0])
        watched(house, reconciliation, CPU_0)
        assert await reconciliation.run(BUDGET, house.engine.flush) == ()
        assert house.engine.get(record.id).state is SessionState.SUCCEEDED
        assert store.records[record.id].state is SessionState.SUCCEEDED, "and that is durable"


async def test_who_does_not_answer_in_time_is_named_and_keeps_nobody_waiting(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view("cpu-0"), device_view("cpu-1")) as house:
        house.agents[CPU_1].reachable = False
        reconciliation = StartReconciliation()
        reconciliation.expect([CPU_0, CPU_1])
        watched(house, reconciliation, CPU_0)
        watched(house, reconciliation, CPU_1)
        started_s = house.clock.monotonic_s()
        assert await reconciliation.run(BUDGET, house.engine.flush) == (CPU_1,)
        assert house.clock.monotonic_s() - started_s == BUDGET.total_seconds()
        await reconciliation.over()
        await asyncio.sleep(10)
        assert CPU_1 in house.devices.unreachable, "told as for any agent that is silent"


async def test_a_store_that_hangs_does_not_keep_the_balancer_from_serving() -> None:
    reconciliation = StartReconciliation()
    assert await reconciliation.run(BUDGET, asyncio.Event().wait) == ()  # type: ignore[arg-type]
    await reconciliation.over()


async def test_one_that_was_heard_before_it_was_expected_is_not_awaited() -> None:
    reconciliation = StartReconciliation()
    reconciliation.reconciled(CPU_0)
    reconciliation.expect([CPU_0])
    assert await reconciliation.run(BUDGET, at_once) == ()


async def test_requests_are_held_back_until_it_is_over_and_refused_when_that_takes_long() -> None:
    reconciliation = StartReconciliation()
    reconciliation.expect([CPU_0])
    async with asyncio.TaskGroup() as asked:
        early = asked.create_task(reconciliation.over())
        await settle()
        assert not early.done()
        await reconciliation.run(BUDGET, at_once)
    never = StartReconciliation()
    with pytest.raises(RequestFailure) as refused:
        await never.over()
    assert refused.value.reason is Reason.NO_DEVICE_READY
    assert refused.value.retry_after == timedelta(seconds=1), "a client that tries again is let through later"
