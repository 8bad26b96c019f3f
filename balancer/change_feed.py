"""The change feed: who watches sessions hears of every one's latest state, however slow the watcher is.

The engine publishes and goes on at once. Each watcher holds the sessions that changed since it last looked, each once
and with its latest record, so that memory is bounded by the number of sessions; beyond a limit it begins again with
all present sessions. What a watcher gets is in the order of the changes, hence one number tells where it stands: a
resume token is that number and the name of this feed's life.
"""

from __future__ import annotations

from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from balancer.feed_watcher import (
    FeedItem,
    FeedReset,
    FeedSynced,
    FeedWatcher,
    PendingChange,
    SessionRemoved,
    SessionUpdated,
)
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from balancer.domain.ids import SessionId
    from balancer.domain.session import SessionRecord

__all__ = ["ChangeFeed", "FeedItem", "FeedReset", "FeedSynced", "SessionRemoved", "SessionUpdated", "session_not_found"]

KEPT_CHANGES = 4096
"""How far back a watcher can resume."""
_MAX_DIGITS = 20
MAX_PENDING = 4096
"""Changed sessions a slow watcher may be behind before it begins again."""


class ChangeFeed:
    """Tells watchers of sessions."""

    def __init__(
        self,
        records: Mapping[SessionId, SessionRecord],
        *,
        epoch: str,
        kept_changes: int = KEPT_CHANGES,
        max_pending: int = MAX_PENDING,
    ) -> None:
        """Begins without changes.

        Args:
            records: Every session as published, kept up to date by the publisher.
            epoch: Name of this life of the feed, without "-": tokens of other lives are foreign.
            kept_changes: Number of changes that can be resumed after.
            max_pending: Number of changed sessions a watcher may be behind before it begins again.
        """
        self._records = records
        self._epoch = epoch
        self._max_pending = max_pending
        self._sequence = 0
        self._kept: deque[tuple[int, SessionId]] = deque(maxlen=kept_changes)
        self._watchers: set[FeedWatcher] = set()
        self._single: dict[SessionId, set[FeedWatcher]] = {}
        self._closed = False

    @property
    def resume_token(self) -> str:
        """The token of a watcher that knows everything up to now."""
        return self._token(self._sequence)

    @property
    def watcher_count(self) -> int:
        """How many watch now."""
        return len(self._watchers) + sum(len(several) for several in self._single.values())

    def publish(self, session_id: SessionId, record: SessionRecord | None) -> None:
        """Tells watchers of a session's new state.

        Args:
            session_id: Which session.
            record: Its state, already in the records. None: it was deleted, and is no longer in the records.
        """
        self._sequence += 1
        self._kept.append((self._sequence, session_id))
        for watcher in self._watchers:
            watcher.offer(session_id, record, self._sequence)
        for watcher in self._single.get(session_id, ()):
            watcher.offer(session_id, record, self._sequence)

    def close(self) -> None:
        """Ends every watcher with SHUTTING_DOWN."""
        self._closed = True
        for watcher in (*self._watchers, *(one for several in self._single.values() for one in several)):
            watcher.close()

    async def watch_session(self, session_id: SessionId, *, after_revision: int = 0) -> AsyncIterator[SessionRecord]:
        """Gives a session's changes, first its present state; ends after the final one.

        Args:
            session_id: Which session.
            after_revision: The last revision that is known; only other ones are given.

        Yields:
            The latest record after one or several changes.

        Raises:
            RequestFailure: SESSION_NOT_FOUND when it does not exist or is deleted before it ended; SHUTTING_DOWN.
        """
        with self._watching_session(session_id) as watcher:
            record = self._records.get(session_id)
            if record is None:
                raise session_not_found(session_id)
            watcher.given.add(session_id)
            # A final state is worth telling twice: it ends the watch.
            if record.revision != after_revision or record.state.final:
                yield record
            while not record.state.final:
                await watcher.changed()
                self._check_open()
                change = watcher.pending.pop(session_id)
                if change.record is not None:
                    record = change.record
                    yield record
                if change.removed and not record.state.final:
                    raise session_not_found(session_id)

    async def watch_sessions(
        self, *, matches: Callable[[SessionRecord], bool] = lambda _: True, resume_token: str = ""
    ) -> AsyncIterator[FeedItem]:
        """Gives the changes of all sessions that match, for ever.

        It begins with all present sessions, or after `resume_token` with what changed since, then FeedSynced, then
        changes. FeedReset comes first when the token is foreign or too old, and whenever the watcher fell too far
        behind.

        Args:
            matches: Which sessions. MUST give the same answer for the same record.
            resume_token: The last item's token. Empty: begins with all present sessions.

        Yields:
            Items in the order of the changes.

        Raises:
            RequestFailure: SHUTTING_DOWN.
        """
        with self._watching(matches) as watcher:
            missed = self._missed(resume_token)
            if missed is None:
                watcher.overflown = bool(resume_token)
                if not resume_token:
                    for item in self._present(watcher, matches):
                        yield item
            else:
                for item in self._resumed(watcher, matches, missed):
                    yield item
            while True:
                self._check_open()
                if watcher.overflown:
                    watcher.overflown = False
                    watcher.pending.clear()
                    watcher.given.clear()
                    yield FeedReset()
                    for item in self._present(watcher, matches):
                        yield item
                for item in watcher.take(self._sequence, self._token):
                    yield item
                await watcher.changed()

    def _present(self, watcher: FeedWatcher, matches: Callable[[SessionRecord], bool]) -> Iterator[FeedItem]:
        """Gives all present sessions; the consumer may be slow, so each is looked at only when its turn comes."""
        synced = self.resume_token
        for session_id in tuple(self._records):
            record = self._records.get(session_id)
            if watcher.overflown:
                return
            if record is not None and matches(record):
                watcher.given.add(session_id)
                yield SessionUpdated(record=record, resume_token="")
        yield FeedSynced(resume_token=synced)

    def _resumed(
        self, watcher: FeedWatcher, matches: Callable[[SessionRecord], bool], missed: dict[SessionId, int]
    ) -> Iterator[FeedItem]:
        """Gives what changed since a token, the longest unchanged first."""
        synced = self._sequence
        watcher.given.update(session_id for session_id, record in self._records.items() if matches(record))
        watcher.given.update(missed)
        for session_id, sequence in missed.items():
            record = self._records.get(session_id)
            watcher.pending[session_id] = PendingChange(sequence, record, removed=record is None)
        yield from watcher.take(synced, self._token)
        if not watcher.overflown:
            yield FeedSynced(resume_token=self._token(synced))

    def _missed(self, resume_token: str) -> dict[SessionId, int] | None:
        """Finds what changed after a token, in order of the last change. None: cannot be told."""
        epoch, _, number = resume_token.rpartition("-")
        if epoch != self._epoch or not (number.isascii() and number.isdigit() and len(number) < _MAX_DIGITS):
            return None
        after = int(number)
        oldest = self._kept[0][0] if self._kept else self._sequence + 1
        if not oldest - 1 <= after <= self._sequence:
            return None
        missed: dict[SessionId, int] = {}
        for sequence, session_id in self._kept:
            if sequence > after:
                missed.pop(session_id, None)
                missed[session_id] = sequence
        return missed

    def _token(self, sequence: int) -> str:
        return f"{self._epoch}-{sequence}"

    def _check_open(self) -> None:
        if self._closed:
            raise RequestFailure(
                reason=Reason.SHUTTING_DOWN,
                message="Cannot watch any longer: the balancer is shutting down. Try again when it is back.",
            )

    @contextmanager
    def _watching(self, matches: Callable[[SessionRecord], bool]) -> Iterator[FeedWatcher]:
        watcher = FeedWatcher(matches, self._max_pending)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    @contextmanager
    def _watching_session(self, session_id: SessionId) -> Iterator[FeedWatcher]:
        watcher = FeedWatcher(lambda _: True, self._max_pending)
        self._single.setdefault(session_id, set()).add(watcher)
        try:
            yield watcher
        finally:
            watchers = self._single[session_id]
            watchers.discard(watcher)
            if not watchers:
                del self._single[session_id]


def session_not_found(session_id: SessionId) -> RequestFailure:
    """Makes the failure of a session that does not exist."""
    return RequestFailure(
        reason=Reason.SESSION_NOT_FOUND,
        message=f"Cannot find sessions/{session_id}: it does not exist, or was deleted. Try `gpu-balancer sessions`.",
    )
