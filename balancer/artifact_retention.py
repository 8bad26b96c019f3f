"""Keeps what ended sessions left within a size: the ones that ended first go, with their files.

Sizes are asked of the agents that have the files, once per session, because what has ended does not grow. Sessions that
left nothing cost nothing and stay; so does what is still to be delivered, and what an agent has that is away.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.domain.session import SessionState
from balancer.session_listing import MAX_PAGE_SIZE, SessionFilter
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import timedelta

    from balancer.domain.ids import SessionId
    from balancer.domain.session import SessionRecord
    from balancer.session_listing import SessionPage

_log = structlog.stdlib.get_logger(__name__)
_ENDED = SessionFilter(states=frozenset(state for state in SessionState if state.final))


class EndedSessions(Protocol):
    """The sessions there are, and the way to be rid of one."""

    def list(self, wanted: SessionFilter, *, page_size: int = 0, page_token: str = "") -> SessionPage:
        """Gives a page of sessions, newest first."""
        ...

    async def delete(self, session_id: SessionId) -> None:
        """Removes an ended session and its files; raises RequestFailure when that cannot be now."""
        ...


def excess(records: Iterable[SessionRecord], sizes: Mapping[SessionId, int], keep_bytes: int) -> list[SessionId]:
    """Chooses who goes so that the others are within a size.

    Args:
        records: Ended sessions, in any order.
        sizes: Bytes that each has left. Who is not in it is left alone.
        keep_bytes: What all together may have.

    Returns:
        Those that ended first, as many as it takes, the first of them at the front.
    """
    with_files = [record for record in records if sizes.get(record.id)]
    by_end = sorted(with_files, key=lambda record: (record.end_time or record.create_time, record.create_time))
    over = sum(sizes[record.id] for record in by_end) - keep_bytes
    chosen = []
    for record in by_end:
        if over <= 0:
            break
        chosen.append(record.id)
        over -= sizes[record.id]
    return chosen


async def keep_within(
    sessions: EndedSessions,
    size_of: Callable[[SessionId], Awaitable[int]],
    *,
    keep_bytes: int,
    look_every: timedelta,
) -> None:
    """Deletes what is too much, again and again, for ever.

    Args:
        sessions: The sessions.
        size_of: Tells how many bytes a session has left; raises RequestFailure while nobody can tell.
        keep_bytes: What ended sessions may have together.
        look_every: How often to look.
    """
    sizes: dict[SessionId, int] = {}
    while True:
        await asyncio.sleep(look_every.total_seconds())
        records = _all_ended(sessions)
        known = {record.id: sizes[record.id] for record in records if record.id in sizes}
        sizes = known | await _measured([record.id for record in records if record.id not in known], size_of)
        for session_id in excess(records, sizes, keep_bytes):
            try:
                await sessions.delete(session_id)
            except RequestFailure as failure:
                _log.info("keeping a session that is too much for now", session=session_id, problem=failure.message)
            else:
                _log.info("removed a session to make room for newer ones", session=session_id, bytes=sizes[session_id])


def _all_ended(sessions: EndedSessions) -> list[SessionRecord]:
    found: list[SessionRecord] = []
    token = ""
    while True:
        page = sessions.list(_ENDED, page_size=MAX_PAGE_SIZE, page_token=token)
        found += page.records
        token = page.next_page_token
        if not token:
            return found


async def _measured(
    session_ids: Iterable[SessionId], size_of: Callable[[SessionId], Awaitable[int]]
) -> dict[SessionId, int]:
    sizes = {}
    for session_id in session_ids:
        try:
            sizes[session_id] = await size_of(session_id)
        except RequestFailure as failure:
            _log.debug("cannot tell the size of a session", session=session_id, problem=failure.message)
    return sizes
