"""What one attempt left to be copied, and how far each copy is: the journal's entries, replayed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from agents.deliveries.journal import CopyEntry, Entry, Header, ReleaseEntry, SpillEntry
from agents.deliveries.source import Source
from agents.deliveries.status import DeliveryState, DeliveryStatus


@dataclass(frozen=True, slots=True)
class Copy:
    """Names one copy."""

    session: str
    attempt: int
    path: str
    destination: str


class Consignment:
    """The copies of one attempt's artifacts. Changed by `apply` alone."""

    def __init__(self, header: Header, *, known_s: float, age_s: float) -> None:
        """Makes one of which nothing has happened yet.

        Args:
            header: What is to be copied where.
            known_s: The monotonic time now.
            age_s: How long ago it was begun, in seconds; from there on the wall clock does not matter.
        """
        self.header = header
        self.begun_s = known_s - max(0.0, age_s)
        """When it was begun, in monotonic time."""
        self.journal_lock = asyncio.Lock()
        """Held while its journal is written, so that lines keep their order."""
        self.released = False
        """Whether the session may be deleted, or is."""
        folder = Path(header.folder)
        self._sources = {
            file.path: Source(folder=folder, path=file.path, size_bytes=file.size_bytes, modified_ns=file.modified_ns)
            for file in header.files
        }
        self._spilled: set[str] = set()
        self._statuses = {
            (file.path, destination): DeliveryStatus(
                destination=destination, state=DeliveryState.PENDING, update_time=header.begin_time
            )
            for file in header.files
            for destination in header.destinations
        }

    def apply(self, entry: Entry) -> None:
        """Takes in what happened. What is about an unknown file is left out."""
        match entry:
            case CopyEntry():
                if (key := (entry.path, entry.destination)) in self._statuses:
                    self._statuses[key] = DeliveryStatus(
                        destination=entry.destination,
                        state=entry.state,
                        location=entry.location,
                        try_count=entry.try_count,
                        message=entry.message,
                        update_time=entry.update_time,
                    )
            case SpillEntry():
                if entry.path in self._sources:
                    self._spilled.add(entry.path)
                    self._sources[entry.path] = Source(
                        folder=Path(entry.folder),
                        path=entry.path,
                        size_bytes=entry.size_bytes,
                        modified_ns=entry.modified_ns,
                    )
            case ReleaseEntry():
                self.released = True
            case _:
                assert_never(entry)

    def copies(self, *, state: DeliveryState | None = None) -> list[Copy]:
        """Lists the copies in a state. None: all."""
        header = self.header
        return [
            Copy(header.session, header.attempt, path, destination)
            for (path, destination), status in self._statuses.items()
            if state is None or status.state is state
        ]

    def status(self, copy: Copy) -> DeliveryStatus:
        """Gives a copy's status."""
        return self._statuses[copy.path, copy.destination]

    def statuses(self) -> dict[str, tuple[DeliveryStatus, ...]]:
        """Gives all statuses by path, in the order in which destinations were named."""
        return {
            path: tuple(self._statuses[path, destination] for destination in self.header.destinations)
            for path in self._sources
        }

    def source(self, path: str) -> Source:
        """Gives where an artifact is read."""
        return self._sources[path]

    def is_spilled(self, path: str) -> bool:
        """Tells whether an artifact has been put into the spill folder."""
        return path in self._spilled

    def states_of(self, path: str) -> set[DeliveryState]:
        """Gives the states of an artifact's copies."""
        return {self._statuses[path, destination].state for destination in self.header.destinations}

    @property
    def settled(self) -> bool:
        """Whether nothing is to be done any more."""
        return all(status.state is not DeliveryState.PENDING for status in self._statuses.values())

    @property
    def needs_session_folder(self) -> bool:
        """Whether a copy is still to be made from the session's own folder."""
        return any(
            status.state is DeliveryState.PENDING and path not in self._spilled
            for (path, _), status in self._statuses.items()
        )
