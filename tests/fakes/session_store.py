"""A session store in memory that can be made to fail or to wait."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import SessionRecord
from balancer.ports.session_store import (
    Change,
    PutCursor,
    PutFinding,
    PutSession,
    RemoveSession,
    StoredState,
    StoreError,
)


class FakeSessionStore:
    """Keeps sessions while the test runs; may be loaded again after `close`, like a file."""

    def __init__(self) -> None:
        self.records: dict[SessionId, SessionRecord] = {}
        self.cursors: dict[DeviceId, int] = {}
        self.findings: dict[str, str] = {}
        self.decisions: dict[SessionId, list[str]] = {}
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
        return StoredState(records=records, cursors=dict(self.cursors), findings=dict(self.findings))

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
                    if change.decision:
                        self.decisions.setdefault(change.record.id, []).extend(change.decision.splitlines())
                case RemoveSession():
                    self.decisions.pop(change.session_id, None)
                    self.records.pop(change.session_id, None)
                case PutCursor():
                    self.cursors[change.device_id] = change.event_number
                case PutFinding(text=None):
                    self.findings.pop(change.key, None)
                case PutFinding():
                    self.findings[change.key] = change.text or ""
        self.batches.append(tuple(changes))

    async def read_decisions(self, session_id: SessionId) -> Sequence[str]:
        return tuple(self.decisions.get(session_id, ()))

    async def close(self) -> None:
        self._open = False
