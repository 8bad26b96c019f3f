"""A session store in memory that can be made to fail or to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import SessionRecord
from balancer.ports.session_store import Change, PutCursor, PutSession, RemoveSession, StoredState, StoreError


class FakeSessionStore:
    """Keeps sessions while the test runs; may be loaded again after `close`, like a file."""

    def __init__(self) -> None:
        self.records: dict[SessionId, SessionRecord] = {}
        self.cursors: dict[DeviceId, int] = {}
        self.batches: list[tuple[Change, ...]] = []
        """Every batch that was committed."""
        self.failure: StoreError | None = None
        """Raised by each commit while it is set."""
        self.gate = asyncio.Event()
        """Commits wait for it."""
        self.gate.set()
        self._open = False

    async def load(self) -> StoredState:
        self._open = True
        records = sorted(self.records.values(), key=lambda record: (record.create_time, record.id))
        return StoredState(records=records, cursors=dict(self.cursors))

    async def commit(self, changes: Sequence[Change]) -> None:
        if not self._open:
            raise StoreError("Cannot write the fake store: it is not open.")
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        for change in changes:
            match change:
                case PutSession():
                    self.records[change.record.id] = change.record
                case RemoveSession():
                    self.records.pop(change.session_id, None)
                case PutCursor():
                    self.cursors[change.device_id] = change.event_number
        self.batches.append(tuple(changes))

    async def close(self) -> None:
        self._open = False
