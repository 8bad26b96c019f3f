"""Tells watchers what changes, without queues that overflow.

A status is the whole truth about an attempt, so a watcher needs no list of what it has missed, only the number up to
which it has heard: whatever has a larger number is told next, in order. A slow watcher skips what was overtaken, loses
nothing that still holds, and costs no memory. Progress and measurements are told as they stand when it listens.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.sessions.attempt import AttemptKey, AttemptStatus

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from agents.devices.measurements import Measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusTold:
    """An attempt's status."""

    status: AttemptStatus
    number: int
    """0: progress only, not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementsTold:
    """Measurements of the device."""

    measurements: Measurements


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentChanged:
    """The agent's own state changed; whoever tells it looks it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CaughtUp:
    """All kept events were told."""

    live_attempts: tuple[AttemptKey, ...]


Event = StatusTold | MeasurementsTold | AgentChanged | CaughtUp


class EventFeed:
    """The watchers of one agent and what each has still to hear."""

    def __init__(self, statuses: Mapping[AttemptKey, AttemptStatus]) -> None:
        """Makes a feed without watchers.

        Args:
            statuses: The present status of every attempt, owned and changed by the registry.
        """
        self._statuses = statuses
        self._watchers: set[Watcher] = set()

    @property
    def watcher_count(self) -> int:
        """How many watch."""
        return len(self._watchers)

    @contextmanager
    def watch(self, after: int, last_number: int) -> Iterator[Watcher]:
        """Adds a watcher for as long as the block runs.

        Args:
            after: Number of the last event it has stored.
            last_number: Number of the agent's latest event. A cursor beyond it is from another life of the state
                folder, and everything is told again.
        """
        watcher = Watcher(self._statuses, after if after <= last_number else 0)
        self._watchers.add(watcher)
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    def status_changed(self) -> None:
        """Wakes watchers: a status got a new number."""
        for watcher in self._watchers:
            watcher.wake()

    def progress_made(self, key: AttemptKey) -> None:
        """Notes that an attempt's progress changed."""
        for watcher in self._watchers:
            watcher.note_progress(key)

    def measured(self, measurements: Measurements) -> None:
        """Notes new measurements."""
        for watcher in self._watchers:
            watcher.note_measurements(measurements)

    def agent_changed(self) -> None:
        """Notes that the agent's own state changed."""
        for watcher in self._watchers:
            watcher.note_agent()


class Watcher:
    """One that listens: where it stands and what it has not heard yet."""

    def __init__(self, statuses: Mapping[AttemptKey, AttemptStatus], after: int) -> None:
        self._statuses = statuses
        self._cursor = after
        self._caught_up = False
        self._progressed: set[AttemptKey] = set()
        self._measurements: Measurements | None = None
        self._agent_changed = False
        self._news = asyncio.Event()
        self._news.set()

    def wake(self) -> None:
        """Makes it look for numbered events."""
        self._news.set()

    def note_progress(self, key: AttemptKey) -> None:
        """Has the attempt's progress told, as it stands then."""
        self._progressed.add(key)
        self._news.set()

    def note_measurements(self, measurements: Measurements) -> None:
        """Has measurements told, unless newer ones overtake them."""
        self._measurements = measurements
        self._news.set()

    def note_agent(self) -> None:
        """Has the agent told."""
        self._agent_changed = True
        self._news.set()

    async def events(self) -> AsyncIterator[Event]:
        """Gives kept events in order of their numbers, then CaughtUp once, then live ones; never ends by itself."""
        while True:
            await self._news.wait()
            self._news.clear()
            for event in self._collect():
                yield event

    def _collect(self) -> Iterator[Event]:
        while newer := self._newer_numbers():
            for number, key in newer:
                self._cursor = number
                # Looked up anew: while one event was on its way, an attempt may have moved on and got a larger number.
                status = self._statuses.get(key)
                if status is not None and status.event_number == number:
                    self._progressed.discard(key)
                    yield StatusTold(status=status, number=number)
        if not self._caught_up:
            self._caught_up = True
            yield CaughtUp(live_attempts=tuple(sorted(key for key, status in self._statuses.items() if status.live)))
        if self._agent_changed:
            self._agent_changed = False
            yield AgentChanged()
        progressed, self._progressed = self._progressed, set()
        for key in progressed:
            if (status := self._statuses.get(key)) and status.live:
                yield StatusTold(status=status, number=0)
        if measurements := self._measurements:
            self._measurements = None
            yield MeasurementsTold(measurements=measurements)

    def _newer_numbers(self) -> list[tuple[int, AttemptKey]]:
        return sorted((status.event_number, key) for key, status in self._statuses.items() if self._is_news(status))

    def _is_news(self, status: AttemptStatus) -> bool:
        return status.event_number > self._cursor
