"""Ends HLS playlists, also those that a full disk keeps open: they get their ends as soon as there is room.

That an end is owed is a condition of the attempt's status, so an agent that comes later knows of it, too.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agents.sessions.attempt import Condition
from agents.sessions.fence import FencedError
from agents.sessions.live_playlists import LivePlaylists, end_as_they_are
from agents.sessions.playlist_guard import PlaylistGuard
from agents.sessions.records import LaunchRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime

    from agents.pipelines.command import HlsPresentation
    from agents.sessions.fence import Fences
    from agents.sessions.records import AnyRecord
    from agents.sessions.status_book import Attempt, StatusBook

PLAYLISTS_OPEN = "PLAYLISTS_OPEN"
"""Condition of an attempt whose playlists could not get their ends."""
_LOOKED_EVERY_S = 5.0
_LOG = logging.getLogger(__name__)


def close_playlists(
    playlists: Sequence[HlsPresentation], now: datetime, *, goes_on: bool, torn: Sequence[str] = ()
) -> tuple[Condition, ...]:
    """Says in HLS playlists that nothing more comes. Blocks for the disk; may be repeated.

    Args:
        playlists: Whose.
        now: The time.
        goes_on: Whether another attempt may go on with them: then they are brought up to date and left open.
        torn: Folders of presentations that a full disk may have torn: they are mended first.

    Returns:
        PLAYLISTS_OPEN when a disk refused.
    """
    live = LivePlaylists(playlists)
    try:
        if goes_on:
            live.update()
        else:
            _end(live, torn)
    except (OSError, ValueError) as error:
        _LOG.error("Cannot close playlists: %s", error)
        return () if goes_on else (_still_open(error, now),)
    return ()


def _end(live: LivePlaylists, torn: Sequence[str]) -> None:
    if torn:
        live.update()
        PlaylistGuard(torn).restore(full=True)
    live.end()


def _still_open(error: OSError | ValueError, now: datetime) -> Condition:
    why = (error.strerror if isinstance(error, OSError) else None) or str(error)
    message = f"Its HLS playlists could not get their ends: {why}. Its agent tries again until they have them."
    return Condition(type=PLAYLISTS_OPEN, message=message, since_time=now)


class LatePlaylists:
    """The ended attempts of an agent whose playlists are to get their ends."""

    def __init__(
        self, ended: Callable[[], Iterable[tuple[Attempt, AnyRecord]]], *, fences: Fences, book: StatusBook
    ) -> None:
        """Looks at nothing yet.

        Args:
            ended: Lists the attempts that have ended.
            fences: Of this host.
            book: Where their statuses are told.
        """
        self._ended = ended
        self._fences = fences
        self._book = book

    async def watch(self) -> None:
        """Looks again and again. Never returns."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOKED_EVERY_S)

    async def look(self) -> None:
        """Gives playlists the ends that they can have by now."""
        for attempt, record in tuple(self._ended()):
            owed = _owed(attempt)
            if owed is not None and await asyncio.to_thread(self._is_done, attempt, record, owed.since_time):
                _LOG.info("The playlists of %s have their ends now", attempt.key)
                others = tuple(one for one in attempt.status.conditions if one != owed)
                attempt.status = replace(attempt.status, conditions=others)
                await self._book.publish(attempt)

    async def last_look(self, session: str) -> None:
        """Gives the playlists of a session that is deleted their ends, as they are where there is no room."""
        for attempt, record in tuple(self._ended()):
            if attempt.key.session == session and (owed := _owed(attempt)) is not None:
                await asyncio.to_thread(self._is_done, attempt, record, owed.since_time, last=True)

    def _is_done(self, attempt: Attempt, record: AnyRecord, since: datetime, *, last: bool = False) -> bool:
        torn = record.hls_folders if isinstance(record, LaunchRecord) else ()
        try:
            with self._fences.prove(attempt.key, attempt.folder.path, generation=record.fences):
                done = not close_playlists(record.playlists, since, goes_on=False, torn=torn)
                if last and not done:
                    end_as_they_are(record.playlists)
                return done
        except FencedError as error:
            return not error.untold  # They are another attempt's by now, or deleted.


def _owed(attempt: Attempt) -> Condition | None:
    return next((one for one in attempt.status.conditions if one.type == PLAYLISTS_OPEN), None)
