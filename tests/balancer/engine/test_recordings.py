"""Recordings in the engine: what is measured is booked and kept, reports are kept with other changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from balancer.admission import Admission, PlacementRefused
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId
from balancer.domain.session import Failure, MeasuredUse, Priority, Progress, SessionRecord, SessionState
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.domain.workload import CaptureTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from balancer.session_engine import EngineSettings
from balancer.session_listing import SessionFilter
from balancer.session_retention import RetentionSettings
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, admission, engine_house, rebuilt_ledger, same_ledger
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import settle
from gpu_balancer.runtime.failures import Reason, RequestFailure

PIXELS = 1280 * 720 * 30
RECORDING = Workload(
    decode=None,
    scale_pixels_per_second=0,
    encodes=(
        EncodeTask(
            codec=VideoCodec.H264,
            width=1280,
            height=720,
            bit_depth=8,
            speed=EncodingSpeed.FASTEST,
            pixels_per_second=PIXELS,
        ),
    ),
    real_time=True,
    allow_software_encode=False,
    capture=CaptureTask(width=1280, height=720, pixels_per_second=PIXELS, browser=True, sound=True),
)
RUNNING = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING)
CPU = DeviceId("cpu-0")


def recording(**changes: object) -> Admission:
    asked = Admission(payload=b"words", workload=RECORDING, priority=Priority.LIVE)
    return replace(asked, **changes)  # type: ignore[arg-type]


def used(cores: float, memory_mib: int = 600) -> MeasuredUse:
    return MeasuredUse(cores=round(cores * 1_000_000), memory_mib=memory_mib, measured_time=timedelta(seconds=15))


async def running(house: EngineHouse) -> SessionRecord:
    record = await house.engine.admit(recording())
    await house.engine.apply(record.id, RUNNING)
    return house.engine.get(record.id)


async def test_what_was_measured_is_booked_durably(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=2)) as house:
        record = await running(house)
        await house.engine.apply(record.id, replace(RUNNING, measured_use=used(1.5, 900)))
        kept = store.records[record.id]
        assert kept.measured_use == used(1.5, 900)
        assert house.engine.ledger.used(CPU)[Dimension.CORES] == 1_500_000
        assert house.engine.ledger.host_used()[Dimension.MEMORY] == 900
        assert same_ledger(house.engine.ledger, rebuilt_ledger([kept]), [CPU])
    async with engine_house(store, device_view(core_count=2)) as again:
        assert again.engine.ledger.used(CPU)[Dimension.CORES] == 1_500_000
        assert again.engine.get(record.id).measured_use == used(1.5, 900)


async def test_a_page_that_takes_little_makes_room_for_who_waits(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=2)) as house:
        record = await running(house)
        with pytest.raises(PlacementRefused):
            await house.engine.admit(recording())
        waiting = await house.engine.admit(recording(max_wait=timedelta(minutes=1)))
        assert waiting.state is SessionState.QUEUED
        await house.engine.apply(record.id, replace(RUNNING, measured_use=used(0.3)))
        await settle()
        assert house.engine.get(waiting.id).state is SessionState.STARTING


async def test_a_page_that_takes_more_than_there_is_keeps_running_and_newcomers_out(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=4)) as house:
        heavy, other = await running(house), await running(house)
        await house.engine.apply(heavy.id, replace(RUNNING, measured_use=used(3.9)))
        assert house.engine.ledger.used(CPU)[Dimension.CORES] > 3_600_000
        with pytest.raises(PlacementRefused):
            await house.engine.admit(recording())
        await settle()
        assert {house.engine.get(one.id).state for one in (heavy, other)} == {SessionState.RUNNING}
        assert house.agent.stops == house.agent.paces == []
        for one in (heavy, other):
            await house.engine.apply(
                one.id, AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.COMPLETED)
            )
        assert dict(house.engine.ledger.used(CPU)) == dict(house.engine.ledger.host_used()) == {}


async def test_reports_are_shown_at_once_but_kept_with_other_changes_only(store: FakeSessionStore) -> None:
    async with engine_house(store) as house:
        record = await running(house)
        progress = Progress(frames=30)
        house.engine.post(record.id, replace(RUNNING, progress=progress, recording_report=b"one"))
        assert house.engine.get(record.id).recording_report == b"one"
        await house.engine.flush()
        assert store.records[record.id].recording_report is None
        done = AttemptReported(
            attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.COMPLETED, recording_report=b"two"
        )
        await house.engine.apply(record.id, done)
        assert store.records[record.id].recording_report == b"two"


async def test_a_recording_is_never_paced_though_files_share_its_device(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=4)) as house:
        house.watch()
        record = await running(house)
        file = admission(workload=replace(RECORDING, capture=None, real_time=False))
        await house.engine.admit(replace(file, priority=Priority.BATCH))
        await asyncio.sleep(3)
        house.engine.hurry(CPU)
        await settle()
        assert house.agent.paces
        assert record.id not in {session_id for session_id, *_ in house.agent.paces}


async def test_a_changed_wish_is_kept_and_launched(store: FakeSessionStore) -> None:
    async with engine_house(store, device_view(core_count=2)) as house:
        await running(house)
        waiting = await house.engine.admit(recording(max_wait=timedelta(minutes=1)))
        amended = await house.engine.amend(waiting.id, b"more time")
        assert amended.payload == store.records[waiting.id].payload == b"more time"
        assert amended.state is SessionState.QUEUED


async def test_what_is_wrong_with_a_page_ends_it_without_another_try(store: FakeSessionStore) -> None:
    views = (device_view("cpu-0"), device_view("cpu-1"))
    async with engine_house(store, *views) as house:
        record = await house.engine.admit(recording())
        failure = Failure(reason="GATE_TIMEOUT", message="Cannot begin: nothing was painted.")
        ended = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.FAILED, failure=failure)
        await house.engine.apply(record.id, ended)
        assert house.engine.get(record.id).failure == failure


async def test_a_display_that_does_not_start_is_tried_elsewhere(store: FakeSessionStore) -> None:
    views = (device_view("cpu-0"), device_view("cpu-1"))
    async with engine_house(store, *views) as house:
        record = await house.engine.admit(recording())
        failure = Failure(reason="DISPLAY_FAILED", message="Cannot start a display.")
        ended = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.FAILED, failure=failure)
        await house.engine.apply(record.id, ended)
        await settle()
        moved = house.engine.get(record.id)
        assert (moved.state, moved.attempt) == (SessionState.STARTING, 2)
        assert moved.device_id != record.device_id


async def test_what_is_still_to_be_delivered_keeps_its_session_but_no_other(store: FakeSessionStore) -> None:
    retention = RetentionSettings(keep_count=0)
    async with engine_house(store, settings=EngineSettings(retention=retention)) as house:
        house.watch()
        records = [await running(house) for _ in range(2)]
        for record in records:
            house.agent.end(record.id)
        await settle()
        pending = RequestFailure(reason=Reason.DELIVERY_PENDING, message="Cannot delete it: a copy is on its way.")
        house.agent.undelivered[records[0].id] = pending
        await asyncio.sleep(200)
        assert [one.id for one in house.engine.list(SessionFilter()).records] == [records[0].id]
        house.agent.undelivered.clear()
        await asyncio.sleep(61)
        assert house.engine.list(SessionFilter()).records == ()
