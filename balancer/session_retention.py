"""Which ended sessions are old enough to be forgotten, with their files. Live ones never are, nor are they deleted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.domain.session import SessionState
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from datetime import datetime

    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord
    from gpu_balancer.runtime.clock import Clock

_log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long ended sessions are kept."""

    keep_ended: timedelta | None = timedelta(days=7)
    """After their end. None: for ever."""
    keep_count: int = 10_000
    """At most this many ended sessions; the ones that ended first go first."""
    look_every: timedelta = timedelta(minutes=1)


def not_ended(record: SessionRecord) -> RequestFailure:
    """Makes the failure of deleting a session that has not ended."""
    stops = record.state is SessionState.STOPPING
    cure = "again when it has ended" if stops else "to stop it first"
    return RequestFailure(
        reason=Reason.SESSION_NOT_ENDED,
        message=f"Cannot delete sessions/{record.id}: it is {record.state.value}. Try {cure}.",
    )


def outlived(records: Iterable[SessionRecord], settings: RetentionSettings, now: datetime) -> list[SessionId]:
    """Finds the ended sessions that are to be deleted, the one that ended first at the front."""
    ended = sorted(
        (record for record in records if record.state.final),
        key=lambda record: (record.end_time or record.create_time, record.create_time),
    )
    surplus = len(ended) - settings.keep_count
    return [
        record.id
        for place, record in enumerate(ended)
        if place < surplus
        or (settings.keep_ended is not None and now - (record.end_time or record.create_time) > settings.keep_ended)
    ]


class KeptSessions(Protocol):
    """The sessions there are."""

    def newest_first(self) -> Iterator[SessionRecord]:
        """Gives every session."""
        ...

    def published(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session. None: it is gone."""
        ...


async def forget_outlived(
    sessions: KeptSessions,
    delete: Callable[[SessionId], Awaitable[None]],
    settings: RetentionSettings,
    clock: Clock,
) -> None:
    """Deletes what has outlived its time, for ever.

    What an agent that is away has the files of is kept until later, and so is what is still to be delivered.
    """
    while True:
        await asyncio.sleep(settings.look_every.total_seconds())
        away: set[DeviceId | None] = set()
        for session_id in outlived(sessions.newest_first(), settings, clock.now()):
            record = sessions.published(session_id)
            if record is None or record.device_id in away:
                continue
            try:
                await delete(session_id)
            except RequestFailure as failure:
                if failure.reason is not Reason.DELIVERY_PENDING:
                    away.add(record.device_id)
                _log.info("keeping an outlived session for now", session=session_id, problem=failure.message)
