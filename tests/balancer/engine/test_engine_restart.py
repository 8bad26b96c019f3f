"""A balancer that is killed and started again goes on where it was."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from balancer.adapters.sqlite_session_store import SqliteSessionStore
from balancer.domain.session import SessionState
from balancer.ports.session_store import StoreError
from balancer.session_listing import SessionFilter
from fakes.device_views import device_view
from fakes.engine_house import admission, engine_house, rebuilt_ledger, same_ledger
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import settle

VIEWS = [device_view("cpu-0"), device_view("cpu-1", weight=50)]
DEVICES = [view.id for view in VIEWS]


async def test_a_restart_changes_nothing_that_clients_see(tmp_path: Path) -> None:
    path = tmp_path / "sessions.sqlite"
    async with engine_house(SqliteSessionStore(path), *VIEWS) as house:
        agents = house.agents
        for device_id in DEVICES:
            house.watch(device_id)
        records = await asyncio.gather(*(house.admit(f"request-{number}") for number in range(12)))
        await asyncio.sleep(1)
        for record in records[:6]:
            assert record.device_id is not None
            agents[record.device_id].run(record.id)
        for record in records[:3]:
            assert record.device_id is not None
            agents[record.device_id].end(record.id)
        await asyncio.sleep(1)
        await house.engine.flush()
        before = house.engine.list(SessionFilter(), page_size=1000).records
        ledger = house.engine.ledger
        cursors = [house.engine.cursor(device_id) for device_id in DEVICES]
    async with engine_house(SqliteSessionStore(path), *VIEWS, agents=agents) as house:
        after = house.engine.list(SessionFilter(), page_size=1000).records
        assert [(record.id, record.state, record.device_id) for record in after] == [
            (record.id, record.state, record.device_id) for record in before
        ]
        assert same_ledger(house.engine.ledger, ledger, DEVICES)
        assert same_ledger(house.engine.ledger, rebuilt_ledger(list(after)), DEVICES)
        assert [house.engine.cursor(device_id) for device_id in DEVICES] == cursors
        again = await house.engine.admit(admission("request-5"))
        assert again.id == records[5].id
        assert all(
            new.revision > old.revision for new, old in zip(after, before, strict=True) if not old.state.final
        ), "progress may have raised it unseen by the store"


async def test_launches_under_way_go_on_after_a_restart(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        agents = house.agents
        house.agent.reachable = False
        record = await house.admit()
        await asyncio.sleep(3)
    agents[record.device_id or VIEWS[0].id].reachable = True
    async with engine_house(store, agents=agents) as house:
        house.watch()
        await settle()
        assert house.agent.launches == [(record.id, 1)]


async def test_a_launch_whose_answer_was_lost_starts_nothing_twice(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        agents = house.agents
        record = await house.admit()
        await settle()
    async with engine_house(store, agents=agents) as house:
        house.watch()
        await settle()
        assert house.agent.launches == [(record.id, 1), (record.id, 1)]
        assert house.agent.live == {record.id: 1}
        house.agent.run(record.id)
        await settle()
        assert house.engine.get(record.id).state is SessionState.RUNNING


async def test_a_stop_under_way_goes_on_after_a_restart(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        agents = house.agents
        house.watch()
        record = await house.admit()
        await settle()
        house.agent.run(record.id)
        await settle()
        house.agent.reachable = False
        house.agent.cut()
        await house.engine.stop(record.id)
        await asyncio.sleep(3)
    agents[VIEWS[0].id].reachable = True
    async with engine_house(store, agents=agents) as house:
        house.watch()
        await settle()
        assert house.engine.get(record.id).state is SessionState.CANCELLED


async def test_a_session_that_ended_meanwhile_ends_after_the_restart(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        agents = house.agents
        house.watch()
        record = await house.admit()
        await settle()
        house.agent.run(record.id)
        await settle()
    agents[VIEWS[0].id].end(record.id)
    async with engine_house(store, agents=agents) as house:
        assert house.engine.ledger.session_count(VIEWS[0].id) == 1
        house.watch()
        await settle()
        assert house.engine.get(record.id).state is SessionState.SUCCEEDED
        assert house.engine.ledger.session_count(VIEWS[0].id) == 0


async def test_a_running_session_that_was_unreachable_is_not_so_for_ever(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        agents = house.agents
        house.watch()
        record = await house.admit()
        await settle()
        house.agent.run(record.id)
        await asyncio.sleep(11)
        house.agent.reachable = False
        house.agent.cut()
        await asyncio.sleep(11)
        assert house.engine.get(record.id).conditions != ()
    agents[VIEWS[0].id].reachable = True
    async with engine_house(store, agents=agents) as house:
        assert house.engine.get(record.id).conditions != ()
        house.watch()
        await settle()
        assert house.engine.get(record.id).conditions == ()


async def test_a_store_that_cannot_be_written_stops_the_start(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        await house.admit()
    store.failure = StoreError("Cannot write: broken.")
    with pytest.raises(StoreError, match="broken"):
        async with engine_house(store):
            pass


async def test_progress_is_unknown_after_a_restart_until_the_agent_tells_it(store: FakeSessionStore) -> None:
    """What the store has of it is as old as the last change of state: told, a client would see frames become fewer."""
    async with engine_house(store) as house:
        agents = house.agents
        house.watch()
        record = await house.admit()
        await settle()
        house.agent.progress(record.id, 15)
        house.agent.run(record.id)
        await settle()
        house.agent.progress(record.id, 900)
        await settle()
        assert house.engine.get(record.id).progress is not None
    async with engine_house(store, agents=agents) as house:
        assert house.engine.get(record.id).state is SessionState.RUNNING
        assert house.engine.get(record.id).progress is None
        house.watch()
        await settle()
        house.agent.progress(record.id, 925)
        await settle()
        progress = house.engine.get(record.id).progress
        assert progress is not None
        assert progress.frames == 925
