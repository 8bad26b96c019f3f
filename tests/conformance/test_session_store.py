"""What every session store keeps to, the real one and the tests' own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from balancer.adapters.sqlite_session_store import SqliteSessionStore
from balancer.domain.decision import Reservation
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import SessionState
from balancer.domain.workload import CaptureTask, Workload
from balancer.ports.session_store import PutCursor, PutFinding, PutSession, RemoveSession, SessionStore, StoreError
from fakes.session_records import full_record, session_record
from fakes.session_store import FakeSessionStore

Reopen = Callable[[SessionStore], Awaitable[SessionStore]]


@pytest.fixture(params=["sqlite", "memory"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SessionStore]:
    made: SessionStore = (
        SqliteSessionStore(tmp_path / "sessions.sqlite") if request.param == "sqlite" else FakeSessionStore()
    )
    await made.load()
    yield made
    await made.close()


@pytest.fixture
def reopen(tmp_path: Path) -> Reopen:
    """Closes a store and opens what it left; the test that uses it closes the new one."""

    async def again(store: SessionStore) -> SessionStore:
        await store.close()
        return SqliteSessionStore(tmp_path / "sessions.sqlite") if isinstance(store, SqliteSessionStore) else store

    return again


async def test_a_new_store_is_empty(store: SessionStore) -> None:
    state = await store.load()
    assert list(state.records) == []
    assert dict(state.cursors) == {}


@pytest.mark.parametrize(
    "record",
    [
        session_record(),
        full_record(),
        session_record(
            workload=Workload(
                decode=None,
                scale_pixels_per_second=0,
                encodes=(),
                real_time=True,
                allow_software_encode=False,
                capture=CaptureTask(
                    width=1280,
                    height=720,
                    pixels_per_second=27_648_000,
                    browser=False,
                    sound=True,
                    application="clock",
                ),
                upload_bits_per_second=4_000_000,
            ),
            reservation=Reservation(
                device_id=DeviceId("cpu-0"),
                cost_pixels_per_second=1,
                device_amounts={Dimension.DISPLAYS: 1},
                host_amounts={Dimension.UPLOAD: 4_000_000, Dimension.MEMORY: 600},
                capture_amounts={Dimension.MEMORY: 500},
            ),
        ),
        session_record(
            workload=Workload(
                decode=None,
                scale_pixels_per_second=0,
                encodes=(),
                real_time=False,
                allow_software_encode=True,
            ),
            device_id=None,
            attempt=0,
            reservation=None,
            payload=b"",
        ),
    ],
    ids=["starting", "full", "recording", "bare"],
)
async def test_a_record_comes_back_equal(store: SessionStore, reopen: Reopen, record: object) -> None:
    await store.commit([PutSession(record=record)])  # type: ignore[arg-type]
    again = await reopen(store)
    assert list((await again.load()).records) == [record]
    await again.close()


async def test_records_come_back_oldest_first(store: SessionStore) -> None:
    records = [session_record(number) for number in (3, 1, 12, 2)]
    await store.commit([PutSession(record=record) for record in records])
    loaded = (await store.load()).records
    assert [record.id for record in loaded] == ["session-1", "session-2", "session-3", "session-12"]


async def test_a_record_that_is_put_again_is_replaced(store: SessionStore) -> None:
    record = session_record()
    await store.commit([PutSession(record=record)])
    ended = replace(record, state=SessionState.SUCCEEDED, reservation=None, revision=2, payload=b"what they say now")
    await store.commit([PutSession(record=ended)])
    assert list((await store.load()).records) == [ended]


async def test_changes_of_a_batch_are_applied_in_order(store: SessionStore) -> None:
    first, second = session_record(1), session_record(2)
    await store.commit(
        [
            PutSession(record=first),
            RemoveSession(session_id=first.id),
            PutSession(record=second),
            PutSession(record=replace(second, revision=9)),
            PutCursor(device_id=DeviceId("cpu-0"), event_number=5),
            PutCursor(device_id=DeviceId("cpu-0"), event_number=4),
        ]
    )
    state = await store.load()
    assert list(state.records) == [replace(second, revision=9)]
    assert dict(state.cursors) == {"cpu-0": 4}


async def test_removing_what_is_not_there_changes_nothing(store: SessionStore) -> None:
    await store.commit([RemoveSession(session_id=SessionId("nobody"))])
    assert list((await store.load()).records) == []


async def test_a_batch_larger_than_any_statement_is_kept_whole(store: SessionStore) -> None:
    await store.commit([PutSession(record=session_record(number)) for number in range(300)])
    assert len((await store.load()).records) == 300


async def test_a_closed_store_refuses_to_commit(store: SessionStore, reopen: Reopen) -> None:
    await store.close()
    with pytest.raises(StoreError, match="Cannot"):
        await store.commit([PutSession(record=session_record())])


async def test_decisions_add_up_and_go_with_their_session(store: SessionStore, reopen: Reopen) -> None:
    record = session_record()
    await store.commit([PutSession(record=record, decision='{"first":1}')])
    await store.commit([PutSession(record=record)])
    await store.commit([PutSession(record=record, decision='{"second":2}')])
    again = await reopen(store)
    await again.load()
    assert list(await again.read_decisions(record.id)) == ['{"first":1}', '{"second":2}']
    assert list(await again.read_decisions(SessionId("unknown"))) == []
    await again.commit([RemoveSession(session_id=record.id), PutSession(record=record)])
    assert list(await again.read_decisions(record.id)) == []
    await again.close()


async def test_findings_are_kept_replaced_and_forgotten(store: SessionStore, reopen: Reopen) -> None:
    await store.commit([PutFinding(key="calibration/GPU-1", text="{}"), PutFinding(key="cap", text="8")])
    await store.commit([PutFinding(key="cap", text="12"), PutFinding(key="calibration/GPU-1", text=None)])
    again = await reopen(store)
    assert dict((await again.load()).findings) == {"cap": "12"}
    await again.close()
