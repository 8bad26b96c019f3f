"""Admissions: placed once, durable first, launched after, undone when they cannot be kept."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from balancer.admission import PlacementRefused
from balancer.domain.device import DeviceState
from balancer.domain.ids import SessionId
from balancer.domain.lifecycle import advance
from balancer.domain.session import SessionState
from balancer.domain.session_events import Placed
from balancer.domain.workload import VideoCodec
from balancer.ports.session_store import StoreError, StoreFullError
from balancer.session_listing import SessionFilter
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, admission, engine_house
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import settle
from gpu_balancer.runtime.failures import Reason, RequestFailure


async def test_sixty_four_sessions_at_once_spread_evenly_over_eight_equal_devices(store: FakeSessionStore) -> None:
    views = [device_view(f"cpu-{number}") for number in range(8)]
    async with engine_house(store, *views) as house:
        records = await asyncio.gather(*(house.admit() for _ in range(64)))
        assert set(Counter(record.device_id for record in records).values()) == {8}
        assert {house.engine.ledger.session_count(view.id) for view in views} == {8}
        await settle()
        assert {len(agent.launches) for agent in house.agents.values()} == {8}


async def test_what_is_placed_at_once_is_as_if_it_had_waited_for_no_time(house: EngineHouse) -> None:
    """The record is made in one go, because admissions are many; `advance` says what it must be."""
    record = await house.admit()
    assert record.reservation is not None
    queued = replace(
        record, state=SessionState.QUEUED, device_id=None, attempt=0, reservation=None, revision=record.revision - 1
    )
    assert advance(queued, Placed(reservation=record.reservation), record.create_time)[0] == record


async def test_a_thousand_retries_of_one_request_launch_one_session(house: EngineHouse) -> None:
    records = await asyncio.gather(*(house.admit("again") for _ in range(1000)))
    await settle()
    assert len({record.id for record in records}) == 1
    assert house.agent.launches == [(records[0].id, 1)]
    assert (await house.admit("again")).id == records[0].id


async def test_a_request_id_is_not_good_for_another_session(house: EngineHouse) -> None:
    await house.admit("mine")
    with pytest.raises(RequestFailure, match="was used for another session") as caught:
        await house.engine.admit(admission("mine", digest="other"))
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_sessions_without_request_ids_are_all_different(house: EngineHouse) -> None:
    assert (await house.admit()).id != (await house.admit()).id


async def test_nothing_is_launched_or_seen_before_it_is_durable(house: EngineHouse, store: FakeSessionStore) -> None:
    store.gate.clear()
    admitting = asyncio.gather(house.admit())
    await settle()
    assert house.agent.launches == []
    assert house.engine.list(SessionFilter()).records == ()
    assert house.engine.ledger.session_count(house.agent.device_id) == 1, "but it is booked"
    store.gate.set()
    [record] = await admitting
    await settle()
    assert house.agent.launches == [(record.id, 1)]
    assert house.engine.get(record.id).state is SessionState.STARTING


async def test_many_admissions_share_a_commit(house: EngineHouse, store: FakeSessionStore) -> None:
    await asyncio.gather(*(house.admit() for _ in range(100)))
    assert len(store.batches) <= 2


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (StoreError("Cannot write: broken."), Reason.STORE_UNAVAILABLE),
        (StoreFullError("Cannot write: full."), Reason.DISK_FULL),
    ],
)
async def test_an_admission_that_cannot_be_kept_leaves_nothing(
    house: EngineHouse, store: FakeSessionStore, failure: StoreError, reason: Reason
) -> None:
    store.failure = failure
    outcomes = await asyncio.gather(*(house.admit("one") for _ in range(3)), return_exceptions=True)
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, RequestFailure)] == [reason] * 3
    assert house.engine.ledger.session_count(house.agent.device_id) == 0
    assert house.engine.list(SessionFilter()).records == ()
    store.failure = None
    record = await house.engine.admit(admission("one", digest="another session by now"))
    await settle()
    assert house.agent.launches == [(record.id, 1)]


async def test_a_client_that_hangs_up_does_not_undo_its_session(house: EngineHouse, store: FakeSessionStore) -> None:
    store.gate.clear()
    asking = asyncio.create_task(house.admit("mine"))
    await settle()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    store.gate.set()
    await settle()
    [record] = house.engine.list(SessionFilter()).records
    assert house.agent.launches == [(record.id, 1)]
    assert (await house.admit("mine")).id == record.id


async def test_a_client_that_hangs_up_is_not_missed_when_the_commit_fails(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    store.gate.clear()
    store.failure = StoreError("Cannot write: broken.")
    asking = asyncio.create_task(house.admit())
    await settle()
    asking.cancel()
    store.gate.set()
    await settle()
    assert asking.cancelled()
    assert house.engine.ledger.session_count(house.agent.device_id) == 0


async def test_sessions_admitted_in_one_instant_have_times_of_their_own(house: EngineHouse) -> None:
    """The virtual clock stands still between them; pages need an order."""
    records = await asyncio.gather(*(house.admit() for _ in range(5)))
    assert len({record.create_time for record in records}) == 5
    assert [record.id for record in reversed(records)] == [
        record.id for record in house.engine.list(SessionFilter()).records
    ]


async def test_the_observer_hears_of_admissions_and_refusals(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=16)) as house:
        record = await house.admit()
        with pytest.raises(PlacementRefused):
            await asyncio.gather(*(house.admit() for _ in range(50)))
        assert house.observer.admitted[0][0] == record
        assert house.observer.admitted[0][1].device_id == record.device_id
        assert house.observer.refused[0].device_id is None


async def test_full_devices_refuse_for_now_and_say_so(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view("cpu-0", core_count=16), device_view("cpu-1", core_count=16)) as house:
        outcomes = await asyncio.gather(*(house.admit() for _ in range(50)), return_exceptions=True)
        refusal = next(outcome for outcome in outcomes if isinstance(outcome, PlacementRefused))
        assert refusal.reason is Reason.NO_CAPACITY
        assert refusal.retry_after is not None
        assert [verdict.device_id for verdict in refusal.decision.verdicts] == ["cpu-0", "cpu-1"]
        assert "cpu-0" in refusal.message
        assert "cpu-1" in refusal.message


async def test_what_no_device_can_do_is_refused_for_good(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(codecs=(VideoCodec.VP8,))) as house:
        with pytest.raises(PlacementRefused) as caught:
            await house.admit()
        assert caught.value.reason is Reason.NO_CAPABLE_DEVICE
        assert caught.value.retry_after is None


@pytest.mark.parametrize(
    "views",
    [
        [device_view(state=DeviceState.UNREACHABLE)],
        [device_view("cpu-0", codecs=(VideoCodec.VP8,)), device_view("cpu-1", state=DeviceState.PROBING)],
    ],
    ids=["the only one is away", "only the one that might is away"],
)
async def test_a_session_whose_device_is_not_ready_is_told_to_come_back(
    store: FakeSessionStore, views: list[object]
) -> None:
    async with engine_house(store, *views) as house:  # type: ignore[arg-type]
        with pytest.raises(PlacementRefused) as caught:
            await house.admit()
        assert caught.value.reason is Reason.NO_DEVICE_READY
        assert caught.value.retry_after is not None


async def test_without_any_device_a_session_is_told_to_come_back(house: EngineHouse) -> None:
    house.devices.devices = ()
    with pytest.raises(PlacementRefused, match="no device is known yet") as caught:
        await house.admit()
    assert caught.value.reason is Reason.NO_DEVICE_READY


async def test_an_engine_that_shuts_down_takes_no_session(house: EngineHouse) -> None:
    house.engine.refuse_admissions()
    with pytest.raises(RequestFailure, match="shutting down") as caught:
        await house.admit()
    assert caught.value.reason is Reason.SHUTTING_DOWN


async def test_a_plan_books_nothing(house: EngineHouse) -> None:
    decision = house.engine.plan(admission().workload)
    assert decision.device_id == house.agent.device_id
    assert house.engine.ledger.session_count(house.agent.device_id) == 0
    assert house.engine.current(SessionId("any")) is None


async def test_after_several_came_together_a_commit_lets_in_those_on_their_way(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    """One that comes alone is not kept waiting for others."""

    async def late(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await house.admit()

    await asyncio.gather(house.admit(), late(3))
    assert [len(batch) for batch in store.batches] == [1, 1]
    await asyncio.gather(house.admit(), house.admit())
    await asyncio.gather(house.admit(), late(3))
    assert [len(batch) for batch in store.batches] == [1, 1, 2, 2]
