"""A wall clock that is set, forward or back, while a balancer runs or while none does: nothing waits longer or less."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from balancer.admission import Admission
from balancer.domain.session import SessionRecord, SessionState
from balancer.session_engine import EngineSettings
from balancer.session_listing import SessionFilter
from balancer.session_retention import RetentionSettings
from balancer.uploads.upload_store import UploadStore
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, admission, engine_house
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import JumpingMachine, settle

ONE = device_view(core_count=2)
"""Has room for one ladder."""
JUMPS = [timedelta(days=400), timedelta(days=-400)]


def waiting(max_wait: timedelta) -> Admission:
    """Asks for a ladder that may wait."""
    return replace(admission(), max_wait=max_wait)


async def running(house: EngineHouse) -> SessionRecord:
    record = await house.engine.admit(admission())
    await settle()
    house.agent.run(record.id, record.attempt)
    await settle()
    return record


async def passing(house: EngineHouse, seconds: int) -> None:
    """Lets time pass while the agent measures: one that says nothing counts as silent."""
    for _ in range(seconds):
        await asyncio.sleep(1)
        house.agent.measure()


@pytest.fixture
def machine(tmp_path: Path) -> JumpingMachine:
    return JumpingMachine(tmp_path / "clock")


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_wait_is_as_long_as_it_was_granted(
    store: FakeSessionStore, machine: JumpingMachine, jump: timedelta
) -> None:
    async with engine_house(store, ONE, clock=machine.start()) as house:
        house.watch()
        first = await running(house)
        queued = await house.engine.admit(waiting(timedelta(seconds=30)))
        await passing(house, 5)
        machine.set_by(jump)
        await passing(house, 24)
        assert house.engine.get(queued.id).state is SessionState.QUEUED
        await passing(house, 3)
        given_up = house.engine.get(queued.id)
        assert (given_up.state, given_up.failure and given_up.failure.reason) == (SessionState.FAILED, "QUEUE_TIMEOUT")
        assert house.engine.get(first.id).state is SessionState.RUNNING
        assert house.engine.get(first.id).conditions == (), "an agent that was heard a second ago is not silent"


@pytest.mark.parametrize("jump", JUMPS)
async def test_a_wait_goes_on_across_a_restart_whatever_the_clock_was_set_to_meanwhile(
    store: FakeSessionStore, machine: JumpingMachine, jump: timedelta
) -> None:
    clock = machine.start()
    async with engine_house(store, ONE, clock=clock) as house:
        house.watch()
        await running(house)
        queued = await house.engine.admit(waiting(timedelta(seconds=60)))
        await passing(house, 20)
        clock.keep()
        agents = house.agents
    machine.set_by(jump)
    await asyncio.sleep(10)
    async with engine_house(store, ONE, agents=agents, clock=machine.start()) as house:
        house.watch()
        await passing(house, 29)
        assert house.engine.get(queued.id).state is SessionState.QUEUED
        await passing(house, 3)
        assert house.engine.get(queued.id).state is SessionState.FAILED


async def test_sessions_keep_their_order_and_their_waits_when_the_clock_is_set_back_between_them(
    store: FakeSessionStore, machine: JumpingMachine
) -> None:
    """By the system's clock itself, as a daemon has it that cannot keep its time."""
    async with engine_house(store, ONE, clock=machine.clock) as house:
        house.watch()
        first = await running(house)
        machine.set_by(timedelta(days=-400))
        second = await house.engine.admit(waiting(timedelta(seconds=30)))
        third = await house.engine.admit(waiting(timedelta(seconds=40)))
        listed = house.engine.list(SessionFilter()).records
        assert [record.id for record in listed] == [third.id, second.id, first.id]
        await passing(house, 32)
        assert [house.engine.get(one.id).state for one in (second, third)] == [SessionState.FAILED, SessionState.QUEUED]
        house.agent.end(first.id)
        await settle()
        assert house.engine.get(third.id).state is SessionState.STARTING


@pytest.mark.parametrize("jump", JUMPS)
async def test_ended_sessions_are_kept_for_as_long_as_was_said(
    store: FakeSessionStore, machine: JumpingMachine, jump: timedelta
) -> None:
    settings = EngineSettings(retention=RetentionSettings(keep_ended=timedelta(hours=1)))
    async with engine_house(store, ONE, settings=settings, clock=machine.start()) as house:
        house.watch()
        before = await running(house)
        house.agent.end(before.id)
        await settle()
        machine.set_by(jump)
        after = await running(house)
        house.agent.end(after.id)
        await settle()
        await passing(house, 3300)
        assert len(house.engine.list(SessionFilter()).records) == 2
        await passing(house, 500)
        assert house.engine.list(SessionFilter()).records == ()


@pytest.mark.parametrize("jump", JUMPS)
async def test_an_upload_is_kept_for_as_long_as_was_said(
    tmp_path: Path, machine: JumpingMachine, jump: timedelta
) -> None:
    clock = machine.start()
    (tmp_path / "uploads").mkdir()
    uploads = UploadStore(tmp_path / "uploads", max_bytes=1000, expire_after=timedelta(hours=1), clock=clock)
    upload = await uploads.create(file_name="film.mp4", size_bytes=4, request_id=None)
    machine.set_by(jump)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"film"

    await uploads.write(upload.name.removeprefix("uploads/"), offset_bytes=0, pieces=pieces())
    await asyncio.sleep(3500)
    assert await uploads.remove_expired(in_use=tuple) == ()
    await asyncio.sleep(200)
    assert await uploads.remove_expired(in_use=tuple) == (upload.name,)
