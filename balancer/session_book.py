"""The sessions in memory: as the engine has them, as the world may see them, and what they have booked.

The two views differ by the commits under way: a change counts for placement at once, and is published when durable.
The book does no waiting and no writing; it is the engine's alone to change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.change_feed import ChangeFeed, session_not_found
from balancer.domain.ledger import Ledger
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterator

    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord


class Entry:
    """One session in the engine's hands."""

    __slots__ = ("admitted", "known_attempt", "record", "unwritten")

    def __init__(self, record: SessionRecord, admitted: asyncio.Future[SessionRecord] | None = None) -> None:
        """Enters a session.

        Args:
            record: The session.
            admitted: Gets the outcome of its admission. None: it is durable already.
        """
        self.record = record
        """As it is now."""
        self.admitted = admitted
        """None from the moment the admission is durable."""
        self.unwritten = 0
        """Changes on their way to the store."""
        self.known_attempt = 0
        """The last attempt of which the agent showed, since this engine started, that it has it. 0: none."""


class SessionBook:
    """Keeps entries, request ids, the ledger and what is published."""

    def __init__(self) -> None:
        """Begins empty."""
        self.ledger = Ledger()
        self._entries: dict[SessionId, Entry] = {}
        self._requests: dict[str, Entry] = {}
        self._published: dict[SessionId, SessionRecord] = {}
        """Oldest first."""
        self.changes = ChangeFeed(self._published, epoch=random_id(length=8))

    def enter(self, entry: Entry) -> None:
        """Takes in a session, not yet published, and books what it has reserved."""
        record = entry.record
        self._entries[record.id] = entry
        if record.request_id is not None:
            self._requests[record.request_id] = entry
        if record.reservation is not None:
            self.ledger.book(record.id, record.reservation)

    def forget(self, entry: Entry) -> None:
        """Drops a session, its request id and what it has booked; watchers hear of it when it was published."""
        record = entry.record
        del self._entries[record.id]
        if record.request_id is not None:
            del self._requests[record.request_id]
        self.ledger.release(record.id)
        if self._published.pop(record.id, None) is not None:
            self.changes.publish(record.id, None)

    def change(self, entry: Entry, record: SessionRecord) -> None:
        """Replaces a session's record and moves its booking, unpublished."""
        before, entry.record = entry.record, record
        if record.reservation is None:
            if before.reservation is not None:
                self.ledger.release(record.id)
        elif record.reservation != before.reservation:
            self.ledger.book(record.id, record.reservation)

    def publish(self, record: SessionRecord) -> None:
        """Shows the world a session as it is now."""
        self._published[record.id] = record
        self.changes.publish(record.id, record)

    def entry(self, session_id: SessionId) -> Entry | None:
        """Gives a session's entry, whether its admission is durable or not. None: there is none."""
        return self._entries.get(session_id)

    def requested(self, request_id: str) -> Entry | None:
        """Gives the session that a request id made. None: the id is free."""
        return self._requests.get(request_id)

    def published(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as the world may see it. None: it may see none."""
        return self._published.get(session_id)

    def require(self, session_id: SessionId) -> SessionRecord:
        """Gives a session as the world may see it.

        Raises:
            RequestFailure: SESSION_NOT_FOUND.
        """
        record = self._published.get(session_id)
        if record is None:
            raise session_not_found(session_id)
        return record

    def newest_first(self) -> Iterator[SessionRecord]:
        """Gives every session as the world may see it. Nothing may change meanwhile."""
        return reversed(self._published.values())

    def unended(self) -> list[Entry]:
        """Gives the sessions that have not ended, those included whose admission is not durable yet."""
        return [entry for entry in self._entries.values() if not entry.record.state.final]

    def live(self, device_id: DeviceId | None = None) -> list[Entry]:
        """Gives the durable sessions that have not ended, of one device or of all."""
        return [
            entry
            for entry in self.unended()
            if entry.admitted is None and (device_id is None or entry.record.device_id == device_id)
        ]
