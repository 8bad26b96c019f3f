"""Schemas that move forward: real stores of old programs, copies beforehand, full disks and kills in the middle."""

from __future__ import annotations

import os
import select
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from balancer.adapters import sqlite_session_store
from balancer.adapters.sqlite_session_store import SqliteSessionStore
from balancer.domain.session import SessionState
from balancer.ports.session_store import PutSession, StoredState, StoreError
from fakes.session_records import session_record
from fakes.small_file_system import fill, small_file_system

OLD_STORES = Path(__file__).parents[2] / "fakes" / "stores"
NOW = len(sqlite_session_store._MIGRATIONS)
NEXT = (
    "ALTER TABLE sessions ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'",
    "CREATE TABLE moods (name TEXT PRIMARY KEY)",
    "INSERT INTO moods VALUES ('calm')",
)
"""A migration that a later program may bring."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "balancer.sqlite"


def make_old(path: Path, version: int = 1) -> None:
    """Makes the store that a program of a schema has left."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript((OLD_STORES / f"schema_{version}.sql").read_text())
        connection.execute("PRAGMA journal_mode = WAL")


async def loaded(path: Path) -> StoredState:
    store = SqliteSessionStore(path)
    try:
        return await store.load()
    finally:
        await store.close()


def rows(path: Path, statement: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def versions(path: Path) -> list[int]:
    return [int(str(row[0])) for row in rows(path, "SELECT version FROM schema_versions ORDER BY version")]


def copies(path: Path) -> set[str]:
    return {copy.name.removeprefix(f"{path.name}.backup-") for copy in path.parent.glob(f"{path.name}.backup-*")}


def bring(monkeypatch: pytest.MonkeyPatch, *migrations: tuple[str, ...]) -> None:
    """Has the program know further migrations."""
    known = (*sqlite_session_store._MIGRATIONS[:NOW], *migrations)
    monkeypatch.setattr(sqlite_session_store, "_MIGRATIONS", known)


def test_every_old_schema_has_a_store_here() -> None:
    assert {file.stem for file in OLD_STORES.iterdir()} == {f"schema_{version}" for version in range(1, NOW)}


@pytest.mark.parametrize("version", range(1, NOW))
async def test_a_store_of_an_older_program_is_read_and_its_copy_kept(path: Path, version: int) -> None:
    make_old(path, version)
    state = await loaded(path)
    assert [(record.id, record.state) for record in state.records] == [
        ("session-1", SessionState.STARTING),
        ("session-2", SessionState.FAILED),
    ]
    assert dict(state.cursors) == {"cpu-0": 9}
    assert versions(path) == list(range(1, NOW + 1))
    assert copies(path) == {f"v{version}"}
    copy = path.with_name(f"{path.name}.backup-v{version}")
    assert versions(copy) == list(range(1, version + 1))
    assert rows(copy, "SELECT count(*) FROM sessions") == [(2,)]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600, "it holds what the store holds"


async def test_a_copy_is_a_store_that_can_be_gone_back_to(path: Path) -> None:
    make_old(path)
    before = await loaded(path)
    copy = path.with_name(f"{path.name}.backup-v1")
    for file in path.parent.glob(f"{path.name}*"):
        if file != copy:
            file.unlink()
    copy.rename(path)
    assert (await loaded(path)).records == before.records


async def test_what_was_committed_but_lies_in_the_log_still_is_copied(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The files in the middle of life are what a kill leaves: the last sessions are in the log beside the store."""
    store = SqliteSessionStore(path)
    await store.load()
    await store.commit([PutSession(record=session_record(number)) for number in range(9)])
    killed = tmp_path / "killed"
    killed.mkdir()
    for file in path.parent.glob("balancer.sqlite*"):
        (killed / file.name).write_bytes(file.read_bytes())
    await store.close()
    bring(monkeypatch, NEXT)
    assert len((await loaded(killed / path.name)).records) == 9
    assert rows(killed / f"{path.name}.backup-v{NOW}", "SELECT count(*) FROM sessions") == [(9,)]


async def test_a_new_store_and_one_that_is_up_to_date_are_not_copied(path: Path) -> None:
    await loaded(path)
    await loaded(path)
    assert copies(path) == set()


async def test_the_newest_two_copies_are_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_old(path)
    await loaded(path)
    more = [(f"CREATE TABLE more_{number} (x)",) for number in range(3)]
    for count in range(1, 4):
        for age, name in enumerate(sorted(copies(path), reverse=True)):
            os.utime(path.with_name(f"{path.name}.backup-{name}"), (1000 - age, 1000 - age))
        bring(monkeypatch, *more[:count])
        await loaded(path)
    assert versions(path)[-1] == NOW + 3
    assert copies(path) == {f"v{NOW + 1}", f"v{NOW + 2}"}


async def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await loaded(path)
    bring(monkeypatch, (*NEXT, "INSERT INTO nowhere VALUES (1)"))
    with pytest.raises(StoreError, match="nowhere"):
        await loaded(path)
    assert versions(path)[-1] == NOW
    assert rows(path, "SELECT name FROM sqlite_master WHERE name = 'moods'") == []
    bring(monkeypatch, NEXT)
    await loaded(path)
    assert versions(path)[-1] == NOW + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1m."""
    with small_file_system(tmp_path / "small", size="1m") as place:
        yield place


async def test_a_disk_without_room_for_the_copy_is_told_and_leaves_the_store_as_it_is(small_disk: Path) -> None:
    path = small_disk / "balancer.sqlite"
    make_old(path)
    filler = fill(small_disk)
    os.truncate(filler, filler.stat().st_size - 48 * 1024)  # for the log's index, not for a copy
    with pytest.raises(StoreError, match=r"Cannot copy .*balancer.sqlite .*disk is full.*Try to make 1 MiB of room"):
        await loaded(path)
    assert versions(path) == [1]
    assert copies(path) == set()
    filler.unlink()
    await loaded(path)
    assert versions(path)[-1] == NOW


ENDLESS = """
import asyncio, sys
from pathlib import Path
from balancer.adapters import sqlite_session_store as module
module._MIGRATIONS = (
    *module._MIGRATIONS,
    (
        "ALTER TABLE sessions ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm'",
        "CREATE TABLE moods (name TEXT PRIMARY KEY)",
        "PRAGMA cache_size = 10",
        "WITH RECURSIVE more(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM more) INSERT INTO moods SELECT x FROM more",
    ),
)
asyncio.run(module.SqliteSessionStore(Path(sys.argv[1])).load())
"""
"""A program whose migration never ends and soon writes more to the log than memory holds."""


def kill_in_migration(path: Path) -> None:
    """Starts a program on a store, awaits that it is in the middle of a migration, and kills it."""
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(path)], stdout=subprocess.DEVNULL) as migrating:
        log = path.with_name(f"{path.name}-wal")
        for _ in range(6000):
            if log.exists() and log.stat().st_size > 1024 * 1024:
                break
            assert migrating.poll() is None
            select.select([], [], [], 0.01)
        else:
            raise AssertionError("the migration has not come far")
        migrating.send_signal(signal.SIGKILL)


async def test_a_program_that_was_killed_in_a_migration_has_changed_nothing_and_the_next_one_completes(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old(path)
    await loaded(path)
    kill_in_migration(path)
    assert versions(path)[-1] == NOW
    bring(monkeypatch, NEXT)
    state = await loaded(path)
    assert len(state.records) == 2
    assert versions(path)[-1] == NOW + 1
    assert rows(path, "SELECT name FROM moods") == [("calm",)]
    assert rows(path, "SELECT DISTINCT mood FROM sessions") == [("calm",)]
    assert f"v{NOW}" in copies(path)


async def test_the_rest_of_a_copy_that_was_cut_off_is_not_in_the_way(path: Path) -> None:
    make_old(path)
    part = path.with_name(f"{path.name}.backup-v1.part")
    part.write_bytes(b"half of it")
    await loaded(path)
    assert not part.exists()
    assert copies(path) == {"v1"}
