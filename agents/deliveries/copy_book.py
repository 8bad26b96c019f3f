"""The book of all copies: the one door through which a status changes, in memory, in the journal and for watchers.

The journal is written first, in a thread and in order for each attempt, so that a restart takes back nothing that was
told. A line that cannot be written is let go: after a restart that copy is looked for at its destination, and found.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from agents.deliveries.consignment import Consignment, Copy
from agents.deliveries.destination import Parcel
from agents.deliveries.journal import CopyEntry, Entry, Header, ReleaseEntry, SpillEntry
from agents.deliveries.spill import remove_spilled
from agents.deliveries.status import DeliveryState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import timedelta

    from agents.deliveries.journal import Journal
    from agents.deliveries.source import Source
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)


class CopyBook:
    """Every consignment of this agent."""

    def __init__(
        self, journal: Journal, *, clock: Clock, give_up_after: timedelta, on_changed: Callable[[str], None]
    ) -> None:
        """Makes an empty book; `read` fills it.

        Args:
            journal: Where it is kept.
            clock: For times and ages.
            give_up_after: From the beginning of a consignment on.
            on_changed: Told the session of each change.
        """
        self._journal = journal
        self._clock = clock
        self._give_up_after_s = give_up_after.total_seconds()
        self._on_changed = on_changed
        self._consignments: dict[tuple[str, int], Consignment] = {}

    async def read(self) -> None:
        """Takes in the journal. What is settled and whose session is gone is forgotten."""
        for header, entries in await asyncio.to_thread(self._journal.found):
            consignment = self._enter(header)
            for entry in entries:
                consignment.apply(entry)
            gone = not await asyncio.to_thread(Path(header.folder).is_dir)
            if consignment.settled and (consignment.released or gone):
                await self._forget(consignment)

    async def begin(self, header: Header, entries: Sequence[Entry]) -> None:
        """Enters a consignment, durably.

        Raises:
            OSError: When it cannot be written down; then it is not entered.
        """
        await asyncio.to_thread(self._journal.begin, header, entries)
        consignment = self._enter(header)
        for entry in entries:
            consignment.apply(entry)
        self._on_changed(header.session)

    def of_attempt(self, session: str, attempt: int) -> Consignment | None:
        """Finds a consignment."""
        return self._consignments.get((session, attempt))

    def of_session(self, session: str) -> list[Consignment]:
        """Lists a session's consignments, by attempt."""
        return [self._consignments[key] for key in sorted(self._consignments) if key[0] == session]

    def pending(self) -> list[Copy]:
        """Lists all copies that are still to be made."""
        return [
            copy
            for consignment in self._consignments.values()
            for copy in consignment.copies(state=DeliveryState.PENDING)
        ]

    def parcel(self, copy: Copy) -> Parcel:
        """Gives what is to be copied, from where it is now."""
        source = self._consignment(copy).source(copy.path)
        return Parcel(session=copy.session, attempt=copy.attempt, source=source)

    def try_count(self, copy: Copy) -> int:
        """Tells how often a copy has been tried."""
        return self._consignment(copy).status(copy).try_count

    def is_overdue(self, copy: Copy) -> bool:
        """Tells whether a copy is to be given up."""
        return self._clock.monotonic_s() - self._consignment(copy).begun_s >= self._give_up_after_s

    async def delivered(self, copy: Copy, location: str) -> None:
        """Notes that a copy is confirmed."""
        await self._change(copy, DeliveryState.DELIVERED, location=location, tried=True)
        _LOG.info("Copied %s of sessions/%s to %s", copy.path, copy.session, location)

    async def not_delivered(self, copy: Copy, message: str, *, final: bool, tried: bool = True) -> None:
        """Notes that a copy could not be made.

        Args:
            copy: Which.
            message: Why.
            final: Whether it is given up.
            tried: Whether that was a try of its own.
        """
        state = DeliveryState.FAILED if final else DeliveryState.PENDING
        await self._change(copy, state, message=message, tried=tried)
        level = logging.ERROR if final else logging.WARNING
        _LOG.log(level, "sessions/%s, %s: %s", copy.session, copy.destination, message)

    async def spilled(self, consignment: Consignment, source: Source) -> None:
        """Notes durably that an artifact is copied from another place from now on.

        Raises:
            OSError: When that cannot be written down; then it is not so.
        """
        entry = SpillEntry(
            path=source.path,
            folder=str(source.folder),
            size_bytes=source.size_bytes,
            modified_ns=source.modified_ns,
        )
        await self._add(consignment, entry, durably=True)
        consignment.apply(entry)

    async def release(self, consignment: Consignment) -> None:
        """Notes durably that a session's own folder may be gone from now on.

        Raises:
            OSError: When that cannot be written down.
        """
        if not consignment.released:
            await self._add(consignment, ReleaseEntry(), durably=True)
            consignment.apply(ReleaseEntry())
        if consignment.settled:
            await self._forget(consignment)

    async def _change(
        self, copy: Copy, state: DeliveryState, *, location: str = "", message: str = "", tried: bool
    ) -> None:
        consignment = self._consignment(copy)
        entry = CopyEntry(
            path=copy.path,
            destination=copy.destination,
            state=state,
            location=location,
            try_count=consignment.status(copy).try_count + tried,
            message=message,
            update_time=self._clock.now(),
        )
        try:
            await self._add(consignment, entry, durably=False)
        except OSError as error:
            _LOG.error("Cannot note how far copies of sessions/%s are: %s", copy.session, error.strerror)
        consignment.apply(entry)
        self._on_changed(copy.session)
        await self._clear_up(copy, consignment)

    async def _clear_up(self, copy: Copy, consignment: Consignment) -> None:
        """Removes what is needed no more now that a copy's status has changed."""
        try:
            if consignment.is_spilled(copy.path) and consignment.states_of(copy.path) == {DeliveryState.DELIVERED}:
                await asyncio.to_thread(remove_spilled, consignment.source(copy.path))
            if consignment.released and consignment.settled:
                await self._forget(consignment)
        except OSError as error:
            _LOG.error("Cannot remove what is left of sessions/%s: %s", copy.session, error.strerror)

    async def _add(self, consignment: Consignment, entry: Entry, *, durably: bool) -> None:
        key = (consignment.header.session, consignment.header.attempt)
        async with consignment.journal_lock:
            if key in self._consignments:
                await asyncio.to_thread(self._journal.add, *key, entry, durably=durably)

    async def _forget(self, consignment: Consignment) -> None:
        """Drops a consignment whose session is gone. Spilled artifacts that were given up stay where they are."""
        key = (consignment.header.session, consignment.header.attempt)
        async with consignment.journal_lock:
            if self._consignments.pop(key, None) is None:
                return
            for file in consignment.header.files:
                left = consignment.states_of(file.path) - {DeliveryState.DELIVERED}
                if left and consignment.is_spilled(file.path):
                    source = consignment.source(file.path)
                    _LOG.error("%s was given up and is kept as %s", file.path, source.folder / source.path)
            await asyncio.to_thread(self._journal.remove, *key)
        self._on_changed(consignment.header.session)

    def _enter(self, header: Header) -> Consignment:
        age_s = (self._clock.now() - header.begin_time).total_seconds()
        consignment = Consignment(header, known_s=self._clock.monotonic_s(), age_s=age_s)
        self._consignments[header.session, header.attempt] = consignment
        return consignment

    def _consignment(self, copy: Copy) -> Consignment:
        return self._consignments[copy.session, copy.attempt]
