"""Sessions that wait: in order, bounded, overtaken for a while only, given up in time, and never lost."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import pytest

from balancer.admission import Admission, PlacementRefused
from balancer.domain.capacity import ENGINE
from balancer.domain.device import DeviceState, Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.queue import QueueSettings
from balancer.domain.session import Failure, Priority, Progress, SessionRecord, SessionState
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.domain.workload import VideoCodec
from balancer.ports.session_store import StoreError
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, admission, engine_house
from fakes.session_records import LADDER
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import settle
from gpu_balancer.runtime.failures import Reason, RequestFailure

HOUR = timedelta(hours=1)
FILE = replace(LADDER, real_time=False)
FIRM = replace(FILE, reserved_speed=Fraction(1))
ONE = device_view(core_count=2)
"""Has room for one ladder."""


def waiting(
    *,
    priority: Priority = Priority.LIVE,
    max_wait: timedelta | None = HOUR,
    preemptible: bool = False,
    request_id: str | None = None,
) -> Admission:
    """Asks for a ladder that may wait."""
    asked = admission(request_id, workload=LADDER if priority is Priority.LIVE else FIRM)
    return replace(asked, priority=priority, max_wait=max_wait, preemptible=preemptible)


def elastic() -> Admission:
    """Asks for a file that is content with what is left."""
    asked = waiting(priority=Priority.BATCH, preemptible=True, max_wait=None)
    return replace(asked, workload=FILE)


async def running(house: EngineHouse, asked: Admission | None = None) -> SessionRecord:
    """Admits a session and has its first frame reported."""
    record = await house.engine.admit(asked or admission())
    await settle()
    house.agents[record.device_id or DeviceId("")].run(record.id, record.attempt)
    await settle()
    return house.engine.get(record.id)


async def passing(house: EngineHouse, seconds: int) -> None:
    """Lets time pass while agents measure, as they do: one that says nothing counts as silent."""
    for _ in range(seconds):
        await asyncio.sleep(1)
        for agent in house.agents.values():
            agent.measure()


def states(house: EngineHouse, *records: SessionRecord) -> list[str]:
    return [house.engine.get(record.id).state.value for record in records]


async def test_a_session_that_may_wait_is_queued_and_placed_when_room_comes_free(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        first = await running(house)
        second = await house.engine.admit(waiting())
        assert (second.state, second.device_id, second.reservation) == (SessionState.QUEUED, None, None)
        assert store.records[second.id].state is SessionState.QUEUED, "and it is durable"
        assert house.agent.launches == [(first.id, 1)]
        house.agent.end(first.id)
        await settle()
        assert states(house, second) == ["starting"]
        assert house.agent.launches[-1] == (second.id, 1)
        assert len(await house.engine.decisions(second.id)) == 2, "the refusal, and the placement"
        assert [record.id for record, _ in house.observer.queued] == [second.id]


async def test_a_full_disk_fails_nobody_who_waits(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        first = await running(house)
        waiters = [await house.engine.admit(waiting()) for _ in range(3)]
        full = RequestFailure(reason=Reason.DISK_LOW, message="Cannot launch: 0 MiB are left on the agent's disk.")
        house.agent.launch_failure = full
        house.agent.end(first.id)
        await asyncio.sleep(20)
        assert states(house, *waiters) == ["queued"] * 3
        house.agent.launch_failure = None
        await asyncio.sleep(20)
        assert states(house, *waiters) == ["starting", "queued", "queued"]


async def test_a_pause_between_two_looks_at_clocks_puts_nobody_behind_who_asked_later(
    store: FakeSessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        await running(house)
        first = await house.engine.admit(waiting())
        steady_s = house.clock.monotonic_s
        monkeypatch.setattr(house.clock, "monotonic_s", lambda: steady_s() - 60)
        second = await house.engine.admit(waiting())
        monkeypatch.undo()
        await asyncio.sleep(1.5)
        standings = [house.engine.get(record.id).standing for record in (first, second)]
        assert [standing and standing.position for standing in standings] == [1, 2]


async def test_who_may_not_wait_is_refused_as_before(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        await running(house)
        with pytest.raises(PlacementRefused) as caught:
            await house.engine.admit(waiting(max_wait=None))
        assert caught.value.reason is Reason.NO_CAPACITY


async def test_what_no_device_can_do_does_not_wait_for_one(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(codecs=(VideoCodec.VP8,))) as house:
        with pytest.raises(PlacementRefused) as caught:
            await house.engine.admit(waiting())
        assert caught.value.reason is Reason.NO_CAPABLE_DEVICE


async def test_what_no_device_has_room_for_even_when_it_is_empty_does_not_wait_for_one(store: FakeSessionStore) -> None:
    """It would have a device kept for it, and keep everybody else out, for nothing."""
    async with engine_house(store, device_view(core_count=1)) as house:
        for workload in (LADDER, replace(FILE, reserved_speed=Fraction(50))):
            with pytest.raises(PlacementRefused, match="when nothing runs") as caught:
                await house.engine.admit(replace(waiting(), workload=workload))
            assert caught.value.reason is Reason.NO_CAPABLE_DEVICE


async def test_a_device_that_is_not_ready_yet_is_waited_for(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(state=DeviceState.PROBING)) as house:
        record = await house.engine.admit(waiting())
        assert record.state is SessionState.QUEUED
        house.devices.devices = (device_view(),)
        await asyncio.sleep(2)
        assert states(house, record) == ["starting"]


async def test_live_goes_before_batch_and_each_in_the_order_of_asking(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        current = await running(house)
        batch = await house.engine.admit(waiting(priority=Priority.BATCH))
        lives = [await house.engine.admit(waiting()) for _ in range(2)]
        await asyncio.sleep(1.5)
        standings = [house.engine.get(record.id).standing for record in (*lives, batch)]
        assert [standing and standing.position for standing in standings] == [1, 2, 3]
        order = []
        for _ in range(3):
            house.agent.end(current.id)
            await settle()
            current = next(one for one in (batch, *lives) if house.engine.get(one.id).state is SessionState.STARTING)
            order.append(current.id)
        assert order == [lives[0].id, lives[1].id, batch.id]


async def test_batch_that_has_waited_long_is_not_overtaken_by_live_work_any_more(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE, queue=QueueSettings(batch_ages_after=timedelta(minutes=10))) as house:
        house.watch()
        current = await running(house)
        batch = await house.engine.admit(waiting(priority=Priority.BATCH))
        await passing(house, 11 * 60)
        live = await house.engine.admit(waiting())
        house.agent.end(current.id)
        await settle()
        assert states(house, batch, live) == ["starting", "queued"]


async def test_small_sessions_overtake_a_large_one_for_a_while_only(store: FakeSessionStore) -> None:
    """Five cores: three small ladders leave no room for a large one, however many small ones come."""
    large = replace(LADDER, encodes=LADDER.encodes * 2, scale_pixels_per_second=2 * LADDER.scale_pixels_per_second)
    async with engine_house(store, device_view(core_count=5)) as house:
        house.watch()
        small = [await running(house) for _ in range(2)]
        big = await house.engine.admit(replace(waiting(), workload=large))
        assert big.state is SessionState.QUEUED
        overtaking = await house.engine.admit(waiting())
        assert overtaking.state is SessionState.STARTING
        await passing(house, 90)
        house.agent.end(overtaking.id)
        await settle()
        with pytest.raises(PlacementRefused, match="kept for"):
            await house.engine.admit(admission())
        for record in small:
            house.agent.end(record.id)
        await settle()
        assert states(house, big) == ["starting"]


async def test_a_full_queue_refuses_with_every_refusal_and_a_time_to_try_again(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE, queue=QueueSettings(max_sessions=3)) as house:
        await running(house)
        outcomes = await asyncio.gather(*(house.engine.admit(waiting()) for _ in range(10)), return_exceptions=True)
        refused = [outcome for outcome in outcomes if isinstance(outcome, PlacementRefused)]
        assert len(refused) == 7
        assert refused[0].reason is Reason.QUEUE_FULL
        assert refused[0].retry_after is not None
        assert refused[0].decision.verdicts[0].refusal is not None


async def test_a_session_that_waits_in_vain_fails_and_says_so(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        await running(house)
        record = await house.engine.admit(waiting(max_wait=timedelta(seconds=20)))
        await asyncio.sleep(19)
        assert states(house, record) == ["queued"]
        await asyncio.sleep(3)
        ended = house.engine.get(record.id)
        assert ended.failure is not None
        assert (ended.state, ended.failure.reason) == (SessionState.FAILED, "QUEUE_TIMEOUT")
        assert house.engine.waiting.live_count == 0


async def test_a_wall_clock_that_jumps_ends_no_wait(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        await running(house)
        record = await house.engine.admit(waiting(max_wait=timedelta(seconds=20)))
        house.clock.wall_offset = timedelta(days=365)
        await asyncio.sleep(5)
        assert states(house, record) == ["queued"]


async def test_a_session_that_waits_can_be_stopped(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        first = await running(house)
        record = await house.engine.admit(waiting())
        assert (await house.engine.stop(record.id)).state is SessionState.CANCELLED
        house.agent.end(first.id)
        await settle()
        assert house.agent.launches == [(first.id, 1)]


async def test_all_who_stop_a_session_at_once_are_told_that_it_has_ended(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        await running(house)
        record = await house.engine.admit(waiting())
        told = await asyncio.gather(*(house.engine.stop(record.id) for _ in range(3)))
        assert {one.state for one in told} == {SessionState.CANCELLED}


async def test_retries_of_a_queued_request_wait_once(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        await running(house)
        records = await asyncio.gather(*(house.engine.admit(waiting(request_id="mine")) for _ in range(50)))
        assert len({record.id for record in records}) == 1
        assert house.engine.waiting.live_count == 1


async def test_the_queue_survives_a_restart_in_its_order(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        first = await running(house)
        waiters = [await house.engine.admit(waiting(max_wait=timedelta(minutes=5))) for _ in range(3)]
        agents = house.agents
        ended = house.engine.get(first.id)
    async with engine_house(store, ONE, agents=agents) as house:
        house.watch()
        await settle()
        assert states(house, *waiters) == ["queued"] * 3
        house.agent.end(ended.id)
        await settle()
        assert states(house, *waiters) == ["starting", "queued", "queued"]
        await passing(house, 305)
        assert states(house, *waiters[1:]) == ["failed", "failed"]


async def test_nothing_that_could_not_be_kept_waits(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        first = await running(house)
        store.failure = StoreError("Cannot write: broken.")
        with pytest.raises(RequestFailure) as caught:
            await house.engine.admit(waiting())
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
        store.failure = None
        house.agent.end(first.id)
        await settle()
        assert house.engine.waiting.live_count == 0
        assert house.agent.launches == [(first.id, 1)]


async def test_the_wait_is_estimated_from_files_whose_end_is_in_sight(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        first = await running(house, waiting(priority=Priority.BATCH))
        progress = Progress(frames=30, out_time=timedelta(seconds=30), total_time=timedelta(seconds=90), speed=2.0)
        house.engine.post(first.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING, progress=progress))
        record = await house.engine.admit(waiting(priority=Priority.BATCH))
        await asyncio.sleep(1.5)
        standing = house.engine.get(record.id).standing
        assert standing is not None
        assert standing.estimated_wait == timedelta(seconds=30)
        assert "cpu-0" in standing.message


# ------------------------------------------------------------------------------------------------------- preemption


async def test_files_that_are_content_with_what_is_left_give_way_without_being_stopped(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        files = [await running(house, elastic()) for _ in range(2)]
        live = await house.engine.admit(waiting(max_wait=None))
        assert states(house, live, *files) == ["starting", "running", "running"]
        with pytest.raises(PlacementRefused):
            await house.engine.admit(waiting(max_wait=None))
        assert house.agent.stops == [], "stopping the files would not make room for a second one"


async def test_only_as_many_are_stopped_as_must_be_those_first_that_have_done_least(store: FakeSessionStore) -> None:
    view = device_view(core_count=2)
    async with engine_house(store, view) as house:
        house.watch()
        house.agent.keeps_stopping = True
        reserved = replace(FILE, reserved_speed=Fraction(1))
        half = replace(reserved, encodes=LADDER.encodes[1:2], scale_pixels_per_second=0, decode=None)
        files = [
            await running(house, replace(waiting(priority=Priority.BATCH, preemptible=True), workload=half))
            for _ in range(6)
        ]
        with pytest.raises(PlacementRefused):
            await house.engine.admit(replace(waiting(priority=Priority.BATCH, max_wait=None), workload=FIRM))
        for number, record in enumerate(files):
            done = Progress(frames=1, out_time=timedelta(seconds=60 - number))
            house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING, progress=done))
        live = await house.engine.admit(waiting(max_wait=None))
        await settle()
        assert live.state is SessionState.QUEUED
        stopped = [record for record in files if house.engine.get(record.id).state is SessionState.STOPPING]
        assert 0 < len(stopped) < len(files)
        assert stopped == files[-len(stopped) :]
        assert house.agent.discarded == [(record.id, 1) for record in stopped] or len(house.agent.discarded) == len(
            stopped
        )
        late = await house.engine.admit(replace(waiting(priority=Priority.BATCH), workload=half))
        assert late.state is SessionState.QUEUED, "nobody slips into the room that is made"
        for record in stopped:
            house.agent.end(record.id, 1, AttemptOutcome.STOPPED)
        await settle()
        assert states(house, live) == ["starting"]
        again = house.engine.get(stopped[0].id)
        assert (again.state, again.preemption_count) == (SessionState.QUEUED, 1)
        house.agent.end(live.id)
        await settle()
        begun = house.engine.get(stopped[0].id)
        assert (begun.state, begun.attempt) == (SessionState.STARTING, 2)
        assert (stopped[0].id, 2) in house.agent.launches


async def test_live_work_that_is_stopped_gives_the_room_that_was_made_to_others(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        house.agent.keeps_stopping = True
        file = await running(
            house,
            waiting(priority=Priority.BATCH, preemptible=True),
        )
        live = await house.engine.admit(waiting(max_wait=None))
        await house.engine.stop(live.id)
        house.agent.end(file.id, 1, AttemptOutcome.STOPPED)
        await settle()
        again = house.engine.get(file.id)
        assert (again.state, again.attempt) == (SessionState.STARTING, 2)


async def test_live_work_gets_room_that_is_coming_free_already(store: FakeSessionStore) -> None:
    """Four ladders' room, one file in it all: each of four that come while the file is being stopped has its room."""
    async with engine_house(store, device_view(core_count=6)) as house:
        house.watch()
        house.agent.keeps_stopping = True
        whole = replace(FIRM, reserved_speed=Fraction(4))
        file = await running(house, replace(waiting(priority=Priority.BATCH, preemptible=True), workload=whole))
        lives = [await house.engine.admit(waiting(max_wait=None)) for _ in range(4)]
        assert states(house, *lives) == ["queued"] * 4
        with pytest.raises(PlacementRefused):
            await house.engine.admit(waiting(max_wait=None))
        assert house.agent.discarded == [(file.id, 1)]
        house.agent.end(file.id, 1, AttemptOutcome.STOPPED)
        await settle()
        assert states(house, *lives) == ["starting"] * 4


async def test_live_work_that_comes_at_once_finds_room_on_each_device_of_a_host(store: FakeSessionStore) -> None:
    """The file on the other device, for which the first one waits, holds the host until it is stopped."""
    devices = device_view("cpu-0", core_count=2), device_view("cpu-1", core_count=2)
    async with engine_house(store, *devices, host_capacity={Dimension.CORES: 4 * ENGINE}) as house:
        for view in devices:
            house.watch(view.id)
        files = [await running(house, waiting(priority=Priority.BATCH, preemptible=True)) for _ in range(2)]
        lives = await asyncio.gather(*(house.engine.admit(waiting(max_wait=None)) for _ in range(2)))
        await passing(house, 2)
        assert {live.reservation.device_id for live in lives if live.reservation} == {"cpu-0", "cpu-1"}
        assert states(house, *lives, *files) == ["starting"] * 2 + ["queued"] * 2
        with pytest.raises(PlacementRefused):
            await house.engine.admit(waiting(max_wait=None))


async def test_who_was_to_be_stopped_for_a_session_that_could_not_be_kept_may_be_stopped_for_another(
    store: FakeSessionStore,
) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        file = await running(house, waiting(priority=Priority.BATCH, preemptible=True))
        store.failure = StoreError("Cannot write: broken.")
        with pytest.raises(RequestFailure):
            await house.engine.admit(waiting(max_wait=None))
        store.failure = None
        live = await house.engine.admit(waiting(max_wait=None))
        await settle()
        assert states(house, live, file) == ["starting", "queued"]


async def test_room_whose_making_was_forgotten_in_a_crash_is_made_again(store: FakeSessionStore) -> None:
    """The balancer died between the session's record and that of whom it was to stop."""
    async with engine_house(store, ONE) as house:
        house.watch()
        file = await running(house, waiting(priority=Priority.BATCH, preemptible=True))
        house.agent.keeps_stopping = True
        live = await house.engine.admit(waiting(max_wait=None))
        kept = store.records[live.id]
        agents, before = house.agents, file
    store.records = {file.id: before, live.id: kept}
    agents[DeviceId("cpu-0")].keeps_stopping = False
    async with engine_house(store, ONE, agents=agents) as house:
        house.watch()
        await passing(house, 3)
        assert states(house, live) == ["starting"]
        assert house.engine.get(file.id).preemption_count == 1


async def test_a_restart_in_the_middle_of_making_room_goes_on_with_it(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        house.agent.keeps_stopping = True
        file = await running(
            house,
            waiting(priority=Priority.BATCH, preemptible=True),
        )
        live = await house.engine.admit(waiting(max_wait=None))
        await settle()
        agents = house.agents
    async with engine_house(store, ONE, agents=agents) as house:
        house.watch()
        await settle()
        assert states(house, file, live) == ["stopping", "queued"]
        assert house.agent.discarded[-1] == (file.id, 1), "told again as it was meant"
        house.agent.end(file.id, 1, AttemptOutcome.STOPPED)
        await settle()
        assert states(house, file, live) == ["queued", "starting"]


# ------------------------------------------------------------------------------------------------------- elsewhere


async def test_a_session_that_a_device_cannot_begin_is_tried_on_another_without_its_client_asking(
    store: FakeSessionStore,
) -> None:
    views = device_view("cpu-0"), device_view("cpu-1", weight=50)
    async with engine_house(store, *views) as house:
        for view in views:
            house.watch(view.id)
        record = await house.engine.admit(admission())
        await settle()
        failure = Failure(reason="ENCODER_SESSION_LIMIT", message="Cannot open another encoder.")
        ended = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.FAILED, failure=failure)
        house.agents[DeviceId("cpu-0")].tell(record.id, ended)
        await settle()
        moved = house.engine.get(record.id)
        assert (moved.state, moved.device_id, moved.attempt) == (SessionState.STARTING, "cpu-1", 2)
        assert house.agents[DeviceId("cpu-1")].launches == [(record.id, 2)]
        house.agents[DeviceId("cpu-1")].run(record.id, 2)
        house.agents[DeviceId("cpu-1")].end(record.id, 2)
        await settle()
        await house.engine.delete(record.id)
        assert [agent.deleted for agent in house.agents.values()] == [[record.id], [record.id]]


async def test_what_no_other_device_takes_fails_for_the_reason_of_the_first(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        record = await house.engine.admit(admission())
        await settle()
        failure = Failure(reason="DEVICE_LOST", message="Cannot use the GPU: it is lost.")
        house.agent.tell(
            record.id,
            AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.FAILED, failure=failure),
        )
        await asyncio.sleep(15)
        assert house.engine.get(record.id).failure == failure


# ----------------------------------------------------------------------------------------------------------- pacing


async def test_files_are_held_back_while_live_work_shares_their_device_and_then_let_go(
    store: FakeSessionStore,
) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        file = await running(house, elastic())
        assert file.speed_limit is None
        live = await running(house)
        held = house.engine.get(file.id).speed_limit
        assert held is not None
        assert 0 < held < 1
        assert house.agent.paces[-1] == (file.id, 1, held)
        house.agent.end(live.id)
        await settle()
        assert house.engine.get(file.id).speed_limit is None
        assert house.agent.paces[-1] == (file.id, 1, None)


async def test_an_agent_that_comes_back_is_told_the_speeds_again(store: FakeSessionStore) -> None:
    async with engine_house(store, ONE) as house:
        house.watch()
        file = await running(house, elastic())
        await running(house)
        told = len(house.agent.paces)
        house.agent.cut()
        await asyncio.sleep(1)
        assert house.agent.paces[told:] == [(file.id, 1, house.engine.get(file.id).speed_limit)]


async def test_a_device_that_turns_out_to_carry_less_holds_its_files_more(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=4)) as house:
        house.watch()
        file = await running(house, elastic())
        await running(house)
        before = house.engine.get(file.id).speed_limit
        house.devices.devices = (device_view(core_count=2),)
        await passing(house, 2)
        after = house.engine.get(file.id).speed_limit
        assert before is not None
        assert after is not None
        assert after < before


async def test_what_others_take_is_not_left_to_files(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=4)) as house:
        house.watch()
        file = await running(house, elastic())
        await running(house)
        before = house.engine.get(file.id).speed_limit
        house.engine.ledger.set_foreign(DeviceId("cpu-0"), {Dimension.CORES: 1_000_000})
        await settle()
        after = house.engine.get(file.id).speed_limit
        assert before is not None
        assert after is not None
        assert after < before


async def test_sessions_of_one_kind_are_never_paced(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=64)) as house:
        house.watch()
        for priority in (Priority.LIVE, Priority.BATCH):
            records = [await running(house, waiting(priority=priority)) for _ in range(5)]
            for record in records:
                house.agent.end(record.id)
            await settle()
        assert house.agent.paces == []
        assert house.engine.current(SessionId("none")) is None
