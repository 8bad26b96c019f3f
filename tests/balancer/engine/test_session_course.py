"""Sessions from launch to end, agents that are away, stores that fail, deletion and retention."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from balancer.domain.decision import PlacementSettings
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.session import Progress, SessionState
from balancer.domain.session_events import AttemptPhase, AttemptReported, StopRequested
from balancer.domain.workload import Workload
from balancer.placer import PlacementRules
from balancer.ports.session_store import StoreError, StoreFullError
from balancer.session_engine import EngineSettings
from balancer.session_listing import SessionFilter
from balancer.session_retention import RetentionSettings
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, engine_house
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import settle
from gpu_balancer.runtime.failures import Reason, RequestFailure


async def ended(house: EngineHouse) -> SessionId:
    """Lets a session be admitted and succeed."""
    record = await house.admit()
    await settle()
    house.agent.end(record.id)
    await settle()
    assert house.engine.get(record.id).state is SessionState.SUCCEEDED
    return record.id


async def test_a_session_runs_when_its_agent_says_so_and_frees_its_device_when_it_ended(house: EngineHouse) -> None:
    house.watch()
    record = await house.admit()
    await settle()
    assert house.engine.get(record.id).state is SessionState.STARTING
    house.agent.run(record.id)
    await settle()
    assert house.engine.get(record.id).state is SessionState.RUNNING
    assert house.engine.ledger.session_count(house.agent.device_id) == 1
    house.agent.end(record.id)
    await settle()
    assert house.engine.get(record.id).state is SessionState.SUCCEEDED
    assert house.engine.ledger.session_count(house.agent.device_id) == 0
    assert house.engine.live() == ()


async def test_the_ingest_url_of_a_launch_is_kept(house: EngineHouse, store: FakeSessionStore) -> None:
    house.agent.ingest_url = "rtmp://127.0.0.1:1935/key"
    record = await house.admit()
    await settle()
    assert house.engine.get(record.id).ingest_url == house.agent.ingest_url
    assert store.records[record.id].ingest_url == house.agent.ingest_url


async def test_progress_is_shown_but_not_stored(house: EngineHouse, store: FakeSessionStore) -> None:
    record = await house.admit()
    await settle()
    running = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING)
    await house.engine.apply(record.id, running)
    batches = len(store.batches)
    further = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING, progress=Progress(frames=30))
    await house.engine.apply(record.id, further)
    shown = house.engine.get(record.id)
    assert shown.progress == Progress(frames=30)
    assert len(store.batches) == batches
    assert shown.revision > store.records[record.id].revision


async def test_progress_during_a_commit_is_shown_after_it(house: EngineHouse, store: FakeSessionStore) -> None:
    record = await house.admit()
    await settle()
    store.gate.clear()
    house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING))
    house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING, progress=Progress(frames=30)))
    await settle()
    assert house.engine.get(record.id).state is SessionState.STARTING
    store.gate.set()
    await settle()
    assert house.engine.get(record.id).state is SessionState.RUNNING
    assert house.engine.get(record.id).progress == Progress(frames=30)


async def test_a_cursor_is_stored_with_what_its_event_changed(house: EngineHouse, store: FakeSessionStore) -> None:
    record = await house.admit()
    device_id = house.agent.device_id
    await house.engine.apply(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING), cursor=(device_id, 7))
    assert store.cursors == {device_id: 7}
    assert len(store.batches[-1]) == 2
    assert house.engine.cursor(device_id) == 7


async def test_an_event_of_an_unknown_session_moves_the_cursor_only(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    device_id = house.agent.device_id
    await house.engine.apply(SessionId("nobody"), StopRequested(), cursor=(device_id, 3))
    assert store.cursors == {device_id: 3}
    assert store.records == {}


async def test_an_event_of_a_session_that_is_not_durable_yet_changes_nothing(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    """It cannot be true: nothing was launched."""
    store.gate.clear()
    asking = asyncio.create_task(house.admit())
    await settle()
    [entry] = house.engine._book.unended()
    assert house.engine.post(entry.record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING)) is False
    store.gate.set()
    assert (await asking).state is SessionState.STARTING


async def test_what_an_agent_reported_is_kept_as_soon_as_the_store_works_again(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    record = await house.admit()
    await settle()
    store.failure = StoreError("Cannot write: broken.")
    applying = asyncio.create_task(
        house.engine.apply(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING))
    )
    await asyncio.sleep(30)
    assert house.engine.get(record.id).state is SessionState.STARTING, "the world sees what is durable"
    assert not applying.done()
    store.failure = None
    await asyncio.sleep(5)
    assert applying.done()
    assert house.engine.get(record.id).state is SessionState.RUNNING
    assert store.records[record.id].state is SessionState.RUNNING


async def test_a_change_is_seen_when_it_is_durable_though_a_later_one_is_not(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    record = await house.admit()
    await settle()
    store.gate.clear()
    house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING))
    await settle()
    house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.ENDED))
    store.gate.set()
    store.gate.clear()
    await settle()
    assert house.engine.get(record.id).state is SessionState.RUNNING
    store.gate.set()
    await settle()
    assert house.engine.get(record.id).state is SessionState.FAILED


async def test_what_is_tried_again_never_overwrites_what_came_later(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    record = await house.admit()
    await settle()
    store.gate.clear()
    store.failure = StoreError("Cannot write: broken.")
    house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING))
    await settle()
    house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.ENDED))
    store.gate.set()
    await settle()
    store.failure = None
    await asyncio.sleep(5)
    assert store.records[record.id].state is SessionState.FAILED
    assert house.engine.get(record.id).state is SessionState.FAILED


async def test_a_failing_store_refuses_admissions_soon_though_events_wait(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    record = await house.admit()
    store.failure = StoreFullError("Cannot write: full.")
    house.engine.post(record.id, AttemptReported(attempt=1, phase=AttemptPhase.RUNNING))
    await asyncio.sleep(60)
    async with asyncio.timeout(2):
        with pytest.raises(RequestFailure) as caught:
            await house.admit()
    assert caught.value.reason is Reason.DISK_FULL


async def test_a_stopped_session_ends_cancelled(house: EngineHouse) -> None:
    house.watch()
    record = await house.admit()
    await settle()
    house.agent.run(record.id)
    await settle()
    stopping = await house.engine.stop(record.id)
    assert stopping.state is SessionState.STOPPING
    await settle()
    assert house.agent.stops == [(record.id, 1)]
    assert house.engine.get(record.id).state is SessionState.CANCELLED
    again = await house.engine.stop(record.id)
    assert again.state is SessionState.CANCELLED
    assert house.agent.stops == [(record.id, 1)]


async def test_an_unknown_session_cannot_be_stopped_deleted_or_got(house: EngineHouse) -> None:
    for asking in (house.engine.stop, house.engine.delete):
        with pytest.raises(RequestFailure, match="does not exist") as caught:
            await asking(SessionId("nobody"))
        assert caught.value.reason is Reason.SESSION_NOT_FOUND
    with pytest.raises(RequestFailure, match="does not exist"):
        house.engine.get(SessionId("nobody"))


async def test_a_full_disk_does_not_keep_a_session_from_being_stopped(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    house.watch()
    record = await house.admit()
    await settle()
    store.failure = StoreFullError("Cannot write: full.")
    with pytest.raises(RequestFailure, match="its agent is told") as caught:
        await house.engine.stop(record.id)
    assert caught.value.reason is Reason.DISK_FULL
    await settle()
    assert house.agent.stops == [(record.id, 1)]
    store.failure = None
    await asyncio.sleep(5)
    assert house.engine.get(record.id).state is SessionState.CANCELLED


async def test_a_stop_waits_for_the_launch_under_way(house: EngineHouse) -> None:
    house.agent.launch_gate.clear()
    record = await house.admit()
    await settle()
    await house.engine.stop(record.id)
    await settle()
    assert house.agent.stops == []
    house.agent.launch_gate.set()
    await settle()
    assert house.agent.launches == [(record.id, 1)]
    assert house.agent.stops == [(record.id, 1)]


async def test_a_launch_is_tried_until_the_agent_answers(house: EngineHouse) -> None:
    house.agent.reachable = False
    record = await house.admit()
    await asyncio.sleep(600)
    assert house.engine.get(record.id).state is SessionState.STARTING
    house.agent.reachable = True
    await asyncio.sleep(6)
    assert house.agent.launches == [(record.id, 1)]


async def test_a_launch_that_gets_no_answer_in_time_is_tried_again(house: EngineHouse) -> None:
    house.agent.launch_gate.clear()
    record = await house.admit()
    await asyncio.sleep(40)
    assert house.agent.launches.count((record.id, 1)) > 1
    house.agent.launch_gate.set()
    await asyncio.sleep(40)
    house.agent.launches.clear()
    await asyncio.sleep(100)
    assert house.agent.launches == []


async def test_a_session_that_is_stopped_before_its_launch_got_through_is_not_launched(house: EngineHouse) -> None:
    house.watch()
    house.agent.reachable = False
    record = await house.admit()
    await asyncio.sleep(1)
    await house.engine.stop(record.id)
    house.agent.reachable = True
    await asyncio.sleep(10)
    assert house.agent.launches == []
    assert house.engine.get(record.id).state is SessionState.CANCELLED


async def test_a_launch_that_the_agent_refuses_fails_the_session_with_the_agents_reason(house: EngineHouse) -> None:
    house.agent.launch_failure = RequestFailure(reason=Reason.OUTPUT_EXISTS, message="Cannot write: it exists.")
    record = await house.admit()
    await settle()
    failed = house.engine.get(record.id)
    assert failed.state is SessionState.FAILED
    assert failed.failure is not None
    assert (failed.failure.reason, failed.failure.message) == ("OUTPUT_EXISTS", "Cannot write: it exists.")
    assert house.engine.ledger.session_count(house.agent.device_id) == 0


async def test_a_launch_that_the_agent_cannot_take_just_now_is_tried_again(house: EngineHouse) -> None:
    house.agent.launch_failure = RequestFailure(reason=Reason.SHUTTING_DOWN, message="Cannot: shutting down.")
    record = await house.admit()
    await asyncio.sleep(5)
    assert house.engine.get(record.id).state is SessionState.STARTING
    house.agent.launch_failure = None
    await asyncio.sleep(10)
    assert record.id in house.agent.attempts


async def test_a_deleted_session_is_gone_with_its_files_and_its_request_id(
    house: EngineHouse, store: FakeSessionStore
) -> None:
    house.watch()
    record = await house.admit("mine")
    await settle()
    with pytest.raises(RequestFailure, match="Try to stop it first") as caught:
        await house.engine.delete(record.id)
    assert caught.value.reason is Reason.SESSION_NOT_ENDED
    house.agent.keeps_stopping = True
    await house.engine.stop(record.id)
    with pytest.raises(RequestFailure, match="Try again when it has ended"):
        await house.engine.delete(record.id)
    house.agent.end(record.id)
    await settle()
    await asyncio.gather(*(house.engine.delete(record.id) for _ in range(3)))
    assert record.id in house.agent.deleted
    assert store.records == {}
    assert house.engine.list(SessionFilter()).records == ()
    assert (await house.admit("mine")).id != record.id


async def test_a_session_whose_files_cannot_be_removed_is_kept(house: EngineHouse) -> None:
    house.watch()
    session_id = await ended(house)
    house.agent.reachable = False
    with pytest.raises(RequestFailure, match="does not answer") as caught:
        await house.engine.delete(session_id)
    assert caught.value.reason is Reason.AGENT_UNREACHABLE
    assert house.engine.get(session_id).id == session_id


async def test_a_session_whose_device_is_gone_for_good_can_be_deleted(house: EngineHouse) -> None:
    house.watch()
    session_id = await ended(house)
    house.agents.clear()
    await house.engine.delete(session_id)
    assert house.engine.list(SessionFilter()).records == ()


async def test_a_deletion_that_cannot_be_kept_is_refused(house: EngineHouse, store: FakeSessionStore) -> None:
    house.watch()
    session_id = await ended(house)
    store.failure = StoreError("Cannot write: broken.")
    with pytest.raises(RequestFailure) as caught:
        await house.engine.delete(session_id)
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert house.engine.get(session_id).id == session_id


async def test_ended_sessions_are_forgotten_when_they_are_old_or_too_many(store: FakeSessionStore) -> None:
    retention = RetentionSettings(keep_ended=timedelta(hours=1), keep_count=2, look_every=timedelta(minutes=1))
    async with engine_house(store, settings=EngineSettings(retention=retention)) as house:
        house.watch()
        live = await house.admit()
        finished = [await ended(house) for _ in range(4)]
        await asyncio.sleep(61)
        assert {record.id for record in house.engine.list(SessionFilter()).records} == {live.id, *finished[2:]}
        await asyncio.sleep(3700)
        assert [record.id for record in house.engine.list(SessionFilter()).records] == [live.id]
        assert house.agent.deleted == finished


async def test_retention_waits_for_an_agent_that_is_away(store: FakeSessionStore) -> None:
    retention = RetentionSettings(keep_count=0)
    async with engine_house(store, settings=EngineSettings(retention=retention)) as house:
        house.watch()
        session_id = await ended(house)
        house.agent.reachable = False
        await asyncio.sleep(200)
        assert house.engine.get(session_id).id == session_id
        house.agent.reachable = True
        await asyncio.sleep(61)
        assert house.engine.list(SessionFilter()).records == ()


class Listening(LeastWeightedLoad):
    """A policy that keeps a diary."""

    def __init__(self) -> None:
        super().__init__()
        self.diary: list[str] = []

    def on_settings(self, settings: PlacementSettings) -> None:
        self.diary.append(f"settings {settings.version}")

    def on_devices(self, devices: object) -> None:
        self.diary.append("devices")

    def on_session_created(self, session_id: SessionId, workload: Workload) -> None:
        self.diary.append("created")

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        self.diary.append(f"placed {device_id}")

    def on_session_ended(self, session_id: SessionId) -> None:
        self.diary.append("ended")


async def test_a_policy_is_told_of_everything_in_order(store: FakeSessionStore) -> None:
    policy = Listening()
    async with engine_house(store, policy=policy) as house:
        house.watch()
        await ended(house)
        assert policy.diary == ["settings 1", "devices", "created", "placed cpu-0", "ended"]
        house.devices.devices = (device_view(codecs=()),)
        policy.diary.clear()
        with pytest.raises(RequestFailure):
            await house.admit()
        assert policy.diary == ["devices", "created", "ended"]


async def test_a_policy_hears_that_a_session_could_not_be_kept(store: FakeSessionStore) -> None:
    policy = Listening()
    async with engine_house(store, policy=policy) as house:
        store.failure = StoreError("Cannot write: broken.")
        with pytest.raises(RequestFailure):
            await house.admit()
        assert policy.diary[-3:] == ["created", "placed cpu-0", "ended"]


async def test_a_new_policy_is_told_of_live_sessions(house: EngineHouse) -> None:
    await house.admit()
    policy = Listening()
    house.engine.rules = PlacementRules(
        policy=policy, settings=PlacementSettings(version=2), host_capacity=house.engine.rules.host_capacity
    )
    assert policy.diary == ["settings 2", "devices", "created", "placed cpu-0"]
    house.engine.rules = PlacementRules(
        policy=policy, settings=PlacementSettings(version=3), host_capacity=house.engine.rules.host_capacity
    )
    assert policy.diary[4:] == ["settings 3"]


async def test_the_observer_sees_each_change_from_the_last_seen(house: EngineHouse) -> None:
    house.watch()
    await ended(house)
    states = [(before.state, after.state) for before, after in house.observer.changed]
    assert states == [(SessionState.STARTING, SessionState.SUCCEEDED)]


async def test_closing_keeps_what_was_under_way(house: EngineHouse, store: FakeSessionStore) -> None:
    store.gate.clear()
    asking = asyncio.create_task(house.admit())
    await settle()
    closing = asyncio.create_task(house.engine.close())
    await settle()
    assert not closing.done()
    store.gate.set()
    await closing
    record = await asking
    assert store.records[record.id].id == record.id
    assert house.engine.post(record.id, StopRequested()) is False


async def test_closing_does_not_wait_for_ever_for_a_broken_store(house: EngineHouse, store: FakeSessionStore) -> None:
    record = await house.admit()
    store.failure = StoreError("Cannot write: broken.")
    house.engine.post(record.id, StopRequested())
    async with asyncio.timeout(10):
        await house.engine.close()
