"""Ended sessions whose files are too much together: the ones that ended first go, nothing that is owed does."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from balancer.artifact_retention import excess, keep_within
from balancer.domain.ids import SessionId
from balancer.domain.session import SessionState
from balancer.session_listing import SessionFilter
from fakes.engine_house import EngineHouse, engine_house
from fakes.session_records import session_record
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import START_TIME, settle
from gpu_balancer.runtime.failures import Reason, RequestFailure


def ended_record(number: int, *, ended: int) -> object:
    end_time = START_TIME + timedelta(minutes=ended)
    return session_record(number, state=SessionState.SUCCEEDED, reservation=None, end_time=end_time)


def test_as_many_go_as_it_takes_by_when_they_ended() -> None:
    records = [
        ended_record(1, ended=30),
        ended_record(2, ended=10),
        ended_record(3, ended=20),
        ended_record(4, ended=5),
    ]
    names = [SessionId(f"session-{number}") for number in range(5)]
    sizes = {names[1]: 60, names[2]: 30, names[3]: 20, names[4]: 0}
    assert excess(records, sizes, 110) == []
    assert excess(records, sizes, 109) == [names[2]]
    assert excess(records, sizes, 79) == [names[2], names[3]]
    assert excess(records, sizes, 0) == [names[2], names[3], names[1]], "who left nothing stays"
    del sizes[names[2]]
    assert excess(records, sizes, 79) == [names[3]], "whose size nobody knows stays"


async def ended(house: EngineHouse) -> SessionId:
    record = await house.admit()
    await settle()
    house.agent.run(record.id, record.attempt)
    await settle()
    house.agent.end(record.id)
    await settle()
    return record.id


async def test_old_files_make_way_for_new_ones_unless_they_are_owed_to_somebody(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        house.watch()
        asked: list[SessionId] = []
        away: set[SessionId] = set()

        async def size_of(session_id: SessionId) -> int:
            asked.append(session_id)
            if session_id in away:
                raise RequestFailure(reason=Reason.AGENT_UNREACHABLE, message="Cannot tell: it is away.")
            return 100

        keeping = keep_within(house.engine, size_of, keep_bytes=250, look_every=timedelta(minutes=1))
        house.tasks.spawn_eternal(keeping, name="retention by size")
        live = await house.admit()
        owed, second, third = [await ended(house) for _ in range(3)]
        pending = RequestFailure(reason=Reason.DELIVERY_PENDING, message="Cannot delete it: a copy is on its way.")
        house.agent.undelivered[owed] = pending
        await asyncio.sleep(61)
        assert kept(house) == {live.id, owed, second, third}, "the one that ended first is owed, the others fit"
        fourth = await ended(house)
        away.add(fourth)
        await asyncio.sleep(60)
        assert kept(house) == {live.id, owed, second, third, fourth}
        away.clear()
        await asyncio.sleep(60)
        assert kept(house) == {live.id, owed, third, fourth}
        house.agent.undelivered.clear()
        await asyncio.sleep(60)
        assert kept(house) == {live.id, third, fourth}
        assert asked.count(third) == 1, "what has ended does not grow"


def kept(house: EngineHouse) -> set[SessionId]:
    return {record.id for record in house.engine.list(SessionFilter()).records}
