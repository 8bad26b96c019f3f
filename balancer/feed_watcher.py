"""One watcher of the change feed: what it has not been given yet, in order, each session once."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from balancer.domain.ids import SessionId
    from balancer.domain.session import SessionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionUpdated:
    """A session as it is now, new or changed."""

    record: SessionRecord
    resume_token: str
    """Empty while the present sessions are being given: a watcher that is cut then begins again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRemoved:
    """A session was deleted, or no longer matches."""

    session_id: SessionId
    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedSynced:
    """The watcher knows everything up to now; changes follow."""

    resume_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedReset:
    """What the watcher knows is void; all present sessions follow."""


FeedItem = SessionUpdated | SessionRemoved | FeedSynced | FeedReset


@dataclass(slots=True)
class PendingChange:
    """What a watcher has not been given of one session yet."""

    sequence: int
    record: SessionRecord | None
    """The latest. None: the watcher never needs it."""
    removed: bool


class FeedWatcher:
    """What changed since a watcher last looked, the longest unchanged first."""

    def __init__(self, matches: Callable[[SessionRecord], bool], max_pending: int) -> None:
        """Begins with nothing pending.

        Args:
            matches: Which sessions it wants.
            max_pending: Number of changed sessions beyond which it begins again.
        """
        self._matches = matches
        self._max_pending = max_pending
        self._awake = asyncio.Event()
        self.pending: dict[SessionId, PendingChange] = {}
        self.given: set[SessionId] = set()
        """Sessions that the watcher believes to match."""
        self.overflown = False
        self.closed = False

    def offer(self, session_id: SessionId, record: SessionRecord | None, sequence: int) -> None:
        """Notes a change. `record` is None for a deletion."""
        before = self.pending.pop(session_id, None)
        if record is None:
            if before is None and session_id not in self.given:
                return
            # A final state that was not given yet is given before the deletion.
            last = before.record if before else None
            self.pending[session_id] = PendingChange(sequence, last, removed=True)
        elif before is not None or session_id in self.given or self._matches(record):
            # At the end of the dict, so that sequences rise from front to back.
            self.pending[session_id] = PendingChange(sequence, record, removed=False)
        else:
            return
        if len(self.pending) > self._max_pending:
            self.pending.clear()
            self.overflown = True
        self._awake.set()

    def close(self) -> None:
        """Ends the watch."""
        self.closed = True
        self._awake.set()

    async def changed(self) -> None:
        """Returns when there is something to give, or the watch ends."""
        while not (self.pending or self.overflown or self.closed):
            self._awake.clear()
            await self._awake.wait()

    def take(self, up_to: int, token: Callable[[int], str]) -> Iterator[FeedItem]:
        """Gives what is pending of the changes up to a sequence."""
        while self.pending and not self.overflown:
            session_id, change = next(iter(self.pending.items()))
            if change.sequence > up_to:
                return
            del self.pending[session_id]
            yield from self._told(session_id, change, token)

    def _told(self, session_id: SessionId, change: PendingChange, token: Callable[[int], str]) -> Iterator[FeedItem]:
        if change.record is not None and self._matches(change.record):
            self.given.add(session_id)
            # Before a deletion, a watcher that is cut has yet to hear of the deletion.
            yield SessionUpdated(record=change.record, resume_token=token(change.sequence - change.removed))
            if not change.removed:
                return
        if session_id in self.given:
            self.given.discard(session_id)
            yield SessionRemoved(session_id=session_id, resume_token=token(change.sequence))
