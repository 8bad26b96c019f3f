"""Which ended sessions are old enough to be forgotten, with their files. Live ones never are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from balancer.domain.ids import SessionId
from balancer.domain.session import SessionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """How long ended sessions are kept."""

    keep_ended: timedelta | None = timedelta(days=7)
    """After their end. None: for ever."""
    keep_count: int = 10_000
    """At most this many ended sessions; the ones that ended first go first."""
    look_every: timedelta = timedelta(minutes=1)


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
