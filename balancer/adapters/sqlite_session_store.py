"""The store of sessions in one SQLite file.

WAL with synchronous=FULL: a commit is one flush of the log and survives power loss. All work is done by one thread of
the store's own, because a flush may take long and SQLite's connections want one user; rows are encoded before, in the
caller's thread, because two threads that both run Python only get in each other's way.

It must be the only one who writes the file; the lock of the state folder sees to that.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from balancer.adapters.session_codec import SessionRow, decode_session, encode_session
from balancer.adapters.sqlite_backup import BackupError, back_up
from balancer.domain.ids import DeviceId, SessionId
from balancer.ports.session_store import (
    Change,
    PutCursor,
    PutFinding,
    PutSession,
    RemoveSession,
    StoredState,
    StoreError,
    StoreFullError,
)
from gpu_balancer.runtime.disk_reserve import DiskReserve

if TYPE_CHECKING:
    from pathlib import Path

    from balancer.domain.session import SessionRecord

_log = structlog.stdlib.get_logger(__name__)
_Result = TypeVar("_Result")

# ---------------------------------------------------------------------------------------------------------------- SQL

_SETTINGS = (
    # Readers, such as a backup, do not stop the writer; a commit is one append.
    "PRAGMA journal_mode = WAL",
    # Flush the log at every commit: what was acknowledged survives power loss.
    "PRAGMA synchronous = FULL",
    # Somebody may be reading a copy just now.
    "PRAGMA busy_timeout = 5000",
)

_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_versions (
    version    INTEGER PRIMARY KEY,              -- each migration that was applied, from 1
    apply_time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))
)
"""

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    # 1: sessions and cursors.
    (
        """
        CREATE TABLE sessions (
            id             TEXT PRIMARY KEY,     -- the part of the name after "sessions/"
            create_time_us INTEGER NOT NULL,     -- microseconds since 1970, no two alike
            state          TEXT NOT NULL,        -- "starting", "running", …
            device_id      TEXT,
            attempt        INTEGER NOT NULL,
            revision       INTEGER NOT NULL,
            request_id     TEXT,                 -- the client's name of the request
            request_digest TEXT,                 -- hash of the request
            payload        BLOB NOT NULL,        -- the client's session, serialized gpu_balancer.v1.Session
            fixed          TEXT NOT NULL,        -- JSON: workload, labels, priority, traceparent
            changing       TEXT NOT NULL         -- JSON: reservation, conditions, progress, failure, times
        )
        """,
        """
        CREATE TABLE cursors (
            device_id    TEXT PRIMARY KEY,
            event_number INTEGER NOT NULL        -- the agent's last event that was applied
        )
        """,
    ),
    # 2: why sessions went where they went, and what was found out about devices.
    (
        # Beside the session, not in a table of its own: an admission stays one statement.
        # JSON, a line each, oldest first.
        "ALTER TABLE sessions ADD COLUMN decisions TEXT NOT NULL DEFAULT ''",
        """
        CREATE TABLE findings (
            key  TEXT PRIMARY KEY,               -- "calibration/GPU-…"
            text TEXT NOT NULL                   -- JSON
        )
        """,
    ),
)

_COLUMNS = ", ".join(SessionRow._fields)
_SELECT_SESSIONS = f"SELECT {_COLUMNS} FROM sessions ORDER BY create_time_us, id"  # noqa: S608 - our own names
_SELECT_TABLE = "SELECT 1 FROM sqlite_master WHERE name = 'sessions'"
_SELECT_CURSORS = "SELECT device_id, event_number FROM cursors"
_SELECT_FINDINGS = "SELECT key, text FROM findings"
_SELECT_DECISIONS = "SELECT decisions FROM sessions WHERE id = ?"
# Who asked and when never changes, so an update leaves it alone. One statement for several rows: each statement costs
# two changes of the interpreter's lock, which a busy event loop gives back late.
_PUT_SESSIONS = (
    f"INSERT INTO sessions ({_COLUMNS}, decisions) VALUES {{rows}} ON CONFLICT (id) DO UPDATE SET "  # noqa: S608
    "state = excluded.state, decisions = decisions || excluded.decisions, "
    "device_id = excluded.device_id, attempt = excluded.attempt, revision = excluded.revision, "
    "payload = excluded.payload, changing = excluded.changing"
)
_ROW = f"({', '.join('?' * (len(SessionRow._fields) + 1))})"
_REMOVE_SESSION = "DELETE FROM sessions WHERE id = ?"
_PUT_CURSOR = (
    "INSERT INTO cursors (device_id, event_number) VALUES (?, ?) "
    "ON CONFLICT (device_id) DO UPDATE SET event_number = excluded.event_number"
)
_PUT_FINDING = "INSERT INTO findings (key, text) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET text = excluded.text"
_FORGET_FINDING = "DELETE FROM findings WHERE key = ?"
_MAX_ROWS = 64
_RESERVE_BYTES = 1024 * 1024
"""Kept for ends and removals: a session that filled the disk can be removed only once its end was written."""

# --------------------------------------------------------------------------------------------------------------------


class SqliteSessionStore:
    """Keeps sessions in a SQLite file, made when it is not there, readable by its owner only."""

    def __init__(
        self,
        path: Path,
        *,
        max_pages: int | None = None,
        check_record: Callable[[SessionRecord], None] = lambda _: None,
    ) -> None:
        """Names the file; `load` opens it.

        Args:
            path: The file, in a folder that exists.
            max_pages: Size of the file in pages of 4 KiB at which it counts as full. None: the disk alone bounds it.
            check_record: Raises ValueError for what cannot be told to clients: much of it is opaque here.
        """
        self._path = path
        self._max_pages = max_pages
        self._check_record = check_record
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="session-store")
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._reserve = DiskReserve(path.with_name(f"{path.name}-reserve"), size_bytes=_RESERVE_BYTES)

    async def load(self) -> StoredState:
        """Opens the file, brings its schema up to date and reads everything.

        Raises:
            StoreError: It cannot be opened, is damaged, or is of a newer program.
        """
        return await self._run(self._load)

    async def commit(self, changes: Sequence[Change]) -> None:
        """Applies changes in order, in one transaction.

        Raises:
            StoreFullError: There is no room.
            StoreError: It cannot be written.
        """
        statements = list(_statements(changes))
        frees = any(isinstance(change, RemoveSession) or _ends(change) for change in changes)
        await self._run(lambda: self._commit_or_make_room(statements, frees=frees))

    async def read_decisions(self, session_id: SessionId) -> Sequence[str]:
        """Reads the decisions that are kept of a session, oldest first.

        Raises:
            StoreError: They cannot be read.
        """
        return await self._run(lambda: self._decisions(session_id))

    async def close(self) -> None:
        """Closes the file. Closing again does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            await self._run(self._close)
        finally:
            self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[[], _Result]) -> _Result:
        try:
            result = asyncio.get_running_loop().run_in_executor(self._thread, lambda: self._named(work))
        except RuntimeError as error:
            raise StoreError(f"Cannot use {self._path}: it is closed.") from error
        return await result

    def _named(self, work: Callable[[], _Result]) -> _Result:
        try:
            return work()
        except sqlite3.Error as error:
            raise self._named_error(error) from error
        except OSError as error:
            raise StoreError(
                f"Cannot open {self._path}: {error.strerror or error}. Try another state folder, or give this one's "
                "owner the right to write."
            ) from error

    def _named_error(self, error: sqlite3.Error) -> StoreError:
        name = getattr(error, "sqlite_errorname", "")
        if name in {"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"}:
            return StoreFullError(f"Cannot write {self._path}: the disk is full. Try to make room on it.")
        if name in {"SQLITE_CORRUPT", "SQLITE_NOTADB"} or name.startswith("SQLITE_CORRUPT_"):
            return StoreError(_damaged(self._path, str(error)))
        return StoreError(
            f"Cannot use {self._path}: {error}{f' ({name})' if name else ''}. "
            "Try to see whether its disk works and the state folder may be written."
        )

    def _load(self) -> StoredState:
        connection = self._opened()
        cursors = dict(map(self._cursor, connection.execute(_SELECT_CURSORS)))
        records = []
        for row in connection.execute(_SELECT_SESSIONS):
            try:
                record = decode_session(row)
                self._check_record(record)
                records.append(record)
            except ValueError as error:
                raise StoreError(_damaged(self._path, f"session {row[0]} cannot be read: {error}")) from error
        return StoredState(records=records, cursors=cursors, findings=dict(connection.execute(_SELECT_FINDINGS)))

    def _cursor(self, row: tuple[Any, Any]) -> tuple[DeviceId, int]:
        device_id, number = row
        if not isinstance(device_id, str) or not isinstance(number, int) or number < 0:
            raise StoreError(_damaged(self._path, f"the cursor of {device_id} is {number!r}"))
        return DeviceId(device_id), number

    def _decisions(self, session_id: SessionId) -> Sequence[str]:
        row = self._required().execute(_SELECT_DECISIONS, (session_id,)).fetchone()
        return row[0].splitlines() if row else ()

    def _required(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"Cannot use {self._path}: it is not open.")
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        if self._path.exists() and not self._path.stat().st_size and self._reserve.path.exists():
            # The room beside it is taken only once it holds something; begun anew, it would end what agents run.
            raise StoreError(_damaged(self._path, "it is empty, and was not before"))
        # The client's words may hold stream keys; SQLite gives the log beside it the same mode.
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self._path, isolation_level=None, cached_statements=_MAX_ROWS + 16)
        self._connection = connection
        for setting in _SETTINGS:
            connection.execute(setting)
        if self._max_pages is not None:
            connection.execute(f"PRAGMA max_page_count = {self._max_pages:d}")
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(3)") if row[0] != "ok"]
        if problems:
            raise StoreError(_damaged(self._path, "; ".join(problems)))
        self._migrate(connection)
        self._reserve.take()
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute(_VERSION_TABLE)
        present = connection.execute("SELECT coalesce(max(version), 0) FROM schema_versions").fetchone()[0]
        if present > len(_MIGRATIONS):
            raise StoreError(
                f"Cannot use {self._path}: its schema is version {present}, of a newer program; this one knows up to "
                f"{len(_MIGRATIONS)}. Try the newer program, or another state folder."
            )
        if not present and connection.execute(_SELECT_TABLE).fetchone():
            raise StoreError(_damaged(self._path, "it has sessions, but no version of its schema any more"))
        if 0 < present < len(_MIGRATIONS):
            try:
                copy = back_up(connection, self._path, version=present)
            except BackupError as error:
                raise StoreError(str(error)) from error
            _log.info("copied the store before its schema changes", copy=str(copy))
        for version, statements in enumerate(_MIGRATIONS[present:], start=present + 1):
            _log.info("bringing the store's schema up to date", path=str(self._path), version=version)
            record_version = ("INSERT INTO schema_versions (version) VALUES (?)", (version,))
            self._commit([*((statement, ()) for statement in statements), record_version])

    def _commit_or_make_room(self, statements: Sequence[tuple[str, Sequence[Any]]], *, frees: bool) -> None:
        try:
            self._commit(statements)
        except sqlite3.Error as error:
            if not (frees and isinstance(self._named_error(error), StoreFullError) and self._reserve.give_up()):
                raise
            _log.warning("the disk is full; the store uses its reserve", path=str(self._path))
            self._commit(statements)
        else:
            self._reserve.take()

    def _commit(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> None:
        connection = self._required()
        try:
            if len(statements) == 1:
                # A transaction by itself. Every further statement would fight for the interpreter's lock twice.
                connection.execute(*statements[0])
                return
            connection.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                connection.execute(statement, values)
            connection.execute("COMMIT")
        except sqlite3.Error:
            # SQLite has rolled some failures back itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _ends(change: Change) -> bool:
    return isinstance(change, PutSession) and change.record.state.final


def _statements(changes: Sequence[Change]) -> list[tuple[str, Sequence[Any]]]:
    """Makes the statements of a batch, in order; neighbouring records share one."""
    statements: list[tuple[str, Sequence[Any]]] = []
    rows: list[tuple[SessionRow, str]] = []

    def put_rows() -> None:
        if rows:
            statement = _PUT_SESSIONS.format(rows=", ".join([_ROW] * len(rows)))
            statements.append((statement, [value for row, decision in rows for value in (*row, decision)]))
            rows.clear()

    for change in changes:
        if not isinstance(change, PutSession) or len(rows) == _MAX_ROWS:
            put_rows()
        match change:
            case PutSession():
                rows.append((encode_session(change.record), f"{change.decision}\n" if change.decision else ""))
            case RemoveSession():
                statements.append((_REMOVE_SESSION, (change.session_id,)))
            case PutCursor():
                statements.append((_PUT_CURSOR, (change.device_id, change.event_number)))
            case PutFinding(text=None):
                statements.append((_FORGET_FINDING, (change.key,)))
            case PutFinding():
                statements.append((_PUT_FINDING, (change.key, change.text)))
    put_rows()
    return statements


def _damaged(path: Path, what: str) -> str:
    return (
        f"Cannot read {path}: it is damaged ({what}). Try a backup of it, or move it away to begin without sessions; "
        "agents then end what they run."
    )
