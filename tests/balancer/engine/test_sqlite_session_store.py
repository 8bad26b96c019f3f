"""What only the SQLite store does: files, schemas, damage, a full disk."""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from balancer.adapters.sqlite_session_store import SqliteSessionStore
from balancer.domain.ids import DeviceId
from balancer.ports.session_store import PutCursor, PutSession, StoreError, StoreFullError
from balancer.servicers.session_translation import check_stored
from fakes.session_records import full_record, session_record
from gpu_balancer.v1 import session_pb2


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sqlite"


def content_of(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


async def filled(path: Path, count: int = 3) -> None:
    store = SqliteSessionStore(path)
    await store.load()
    await store.commit([PutSession(record=session_record(number)) for number in range(count)])
    await store.close()


async def test_the_file_and_its_log_are_their_owners_only(path: Path) -> None:
    """Input URLs hold stream keys."""
    previous = os.umask(0)
    try:
        store = SqliteSessionStore(path)
        await store.load()
        await store.commit([PutSession(record=session_record())])
        modes = {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        await store.close()
    finally:
        os.umask(previous)
    assert modes == {0o600}


async def test_commits_survive_power_loss_by_flushing_each_one(path: Path) -> None:
    store = SqliteSessionStore(path)
    await store.load()
    connection = store._connection
    assert connection is not None
    answers = await store._run(
        lambda: [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    )
    await store.close()
    assert answers == ["wal", 2]


async def test_what_was_committed_is_there_after_a_crash(path: Path, tmp_path: Path) -> None:
    """A copy of the files as they are in the middle of life is what a crash leaves."""
    store = SqliteSessionStore(path)
    await store.load()
    await store.commit([PutSession(record=full_record()), PutCursor(device_id=DeviceId("cpu-0"), event_number=9)])
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for file in path.parent.glob("sessions.sqlite*"):
        write(crashed / file.name, content_of(file))
    await store.close()
    again = SqliteSessionStore(crashed / path.name)
    state = await again.load()
    await again.close()
    assert list(state.records) == [full_record()]
    assert dict(state.cursors) == {"cpu-0": 9}


async def test_ten_thousand_sessions_are_loaded_in_a_moment(path: Path) -> None:
    await filled(path, 10_000)
    store = SqliteSessionStore(path)
    started_s = time.process_time()
    state = await store.load()
    took_s = time.process_time() - started_s
    await store.close()
    assert len(state.records) == 10_000
    assert took_s < 5, "about 0.5 s of processor time on a slow machine"


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO schema_versions (version) VALUES (99)")
    before = content_of(path)
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match=r"schema is version 99, of a newer program.*Try the newer program"):
        await store.load()
    await store.close()
    assert content_of(path) == before


async def test_a_schema_that_is_there_is_not_made_again(path: Path) -> None:
    await filled(path)
    await filled(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT version FROM schema_versions").fetchall() == [(1,), (2,)]


async def test_a_file_that_is_no_store_is_refused(path: Path) -> None:
    write(path, b"this is no database at all, and long enough to be looked at" * 100)
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match=r"it is damaged .*Try a backup"):
        await store.load()
    await store.close()


async def test_a_store_that_was_emptied_is_refused_and_one_that_was_never_filled_is_not(path: Path) -> None:
    write(path, b"")
    await filled(path)
    os.truncate(path, 0)
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match="it is empty, and was not before"):
        await store.load()
    await store.close()


async def test_a_wish_that_cannot_be_read_is_refused_with_its_session(path: Path) -> None:
    """It is opaque to the store; found out later, it would fail every listing."""
    sound = session_record(1, payload=session_pb2.Session(name="sessions/one").SerializeToString())
    store = SqliteSessionStore(path, check_record=check_stored)
    await store.load()
    await store.commit([PutSession(record=sound)])
    await store.close()
    store = SqliteSessionStore(path, check_record=check_stored)
    assert list((await store.load()).records) == [sound]
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE sessions SET payload = x'ffff'")
    store = SqliteSessionStore(path, check_record=check_stored)
    with pytest.raises(StoreError, match=rf"session {sound.id} cannot be read: it cannot be told: .*Try a backup"):
        await store.load()
    await store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "attempt = 'first'",
        "revision = 1.5",
        "changing = json_set(changing, '$.progress.frames', 'many')",
        "changing = json_set(changing, '$.progress.speed', json('[]'))",
        "changing = json_set(changing, '$.progress.out_time_us', 'late')",
        "changing = json_set(changing, '$.recording_report', '/wAA')",
        "changing = json_set(changing, '$.recording_report', 'no base64!')",
        "changing = json_set(changing, '$.recording_report', 7)",
        "changing = json_set(changing, '$.reservation.device.1', 'much')",
        "changing = json_set(changing, '$.reservation.cost_pixels_per_second', null)",
        "changing = json_set(changing, '$.restart_count', 'once')",
        "changing = json_set(changing, '$.retry_count', 0.5)",
        "changing = json_set(changing, '$.failure[2]', 'nine')",
        "changing = json_set(changing, '$.conditions[0][1]', 7)",
        "changing = json_set(changing, '$.measured_use[0]', 'all')",
        "fixed = json_set(fixed, '$.traceparent', 7)",
    ],
)
async def test_a_session_that_could_not_be_told_is_refused_at_once(path: Path, damage: str) -> None:
    """Found out later, it would fail every listing, or end the daemon."""
    wish = session_pb2.Session(name="sessions/one").SerializeToString()
    store = SqliteSessionStore(path, check_record=check_stored)
    await store.load()
    record = replace(full_record(1), payload=wish, recording_report=b"")
    await store.commit([PutSession(record=record)])
    assert list((await store.load()).records) == [record]
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE sessions SET {damage}")
    store = SqliteSessionStore(path, check_record=check_stored)
    with pytest.raises(StoreError, match=rf"session {record.id} cannot be read: .*Try a backup"):
        await store.load()
    await store.close()


@pytest.mark.parametrize("damage", ["event_number = 'last'", "event_number = -1", "device_id = x'00'"])
async def test_a_damaged_cursor_is_refused(path: Path, damage: str) -> None:
    store = SqliteSessionStore(path)
    await store.load()
    await store.commit([PutCursor(device_id=DeviceId("GPU-1"), event_number=7)])
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE cursors SET {damage}")
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match=r"it is damaged \(the cursor of .*Try a backup"):
        await store.load()
    await store.close()


async def test_a_store_that_lost_the_version_of_its_schema_is_told_as_that(path: Path) -> None:
    await filled(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE schema_versions")
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match="it has sessions, but no version of its schema any more"):
        await store.load()
    await store.close()


async def test_a_damaged_page_is_refused(path: Path) -> None:
    await filled(path, 200)
    content = bytearray(content_of(path))
    content[5 * 4096 : 6 * 4096] = b"\xff" * 4096
    write(path, bytes(content))
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match="it is damaged"):
        await store.load()
    await store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "state = 'dancing'",
        "fixed = '{}'",
        "fixed = 'not JSON'",
        "changing = '{\"progress\": 7}'",
        "changing = '[]'",
        "create_time_us = 'noon'",
        "create_time_us = 9223372036854775807",
        "fixed = printf('%.*c', 100000, '[')",
        "changing = printf('%.*c', 100000, '[')",
    ],
)
async def test_a_session_that_cannot_be_read_is_named(path: Path, damage: str) -> None:
    await filled(path, 1)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE sessions SET {damage}")
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match="session session-0 cannot be read"):
        await store.load()
    await store.close()


async def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    store = SqliteSessionStore(tmp_path / "nowhere" / "sessions.sqlite")
    with pytest.raises(StoreError, match=r"Cannot open .*nowhere.*Try another state folder"):
        await store.load()
    await store.close()


async def test_a_full_store_says_so_keeps_what_it_had_and_goes_on_when_there_is_room(path: Path) -> None:
    store = SqliteSessionStore(path, max_pages=40)
    await store.load()
    kept = 20
    for number in range(kept):
        await store.commit([PutSession(record=session_record(number, payload=b"x" * 3000))])
    with pytest.raises(StoreFullError, match="the disk is full"):
        await store.commit([PutSession(record=session_record(number, payload=b"x" * 3000)) for number in range(1000)])
    await store.close()
    roomy = SqliteSessionStore(path)
    assert len((await roomy.load()).records) == kept
    await roomy.commit([PutSession(record=session_record(kept))])
    assert len((await roomy.load()).records) == kept + 1
    await roomy.close()


async def test_a_store_that_is_not_loaded_refuses_to_commit(path: Path) -> None:
    store = SqliteSessionStore(path)
    with pytest.raises(StoreError, match="it is not open"):
        await store.commit([PutSession(record=session_record())])
    await store.close()


async def test_a_session_of_a_program_that_knew_no_recordings_is_read(path: Path) -> None:
    record = session_record()
    store = SqliteSessionStore(path)
    await store.load()
    await store.commit([PutSession(record=record)])
    await store.close()
    with closing(sqlite3.connect(path)) as connection, connection:
        (fixed,) = connection.execute("SELECT fixed FROM sessions").fetchone()
        stored = json.loads(fixed)
        assert stored["workload"].pop("capture") is None
        assert stored["workload"].pop("upload_bits_per_second") == 0
        connection.execute("UPDATE sessions SET fixed = ?", (json.dumps(stored),))
    again = SqliteSessionStore(path)
    assert list((await again.load()).records) == [record]
    await again.close()
