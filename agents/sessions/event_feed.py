"""Tells watchers what changes, without queues that overflow.

A status is the whole truth about an attempt, so a watcher needs no list of what it has missed, only the number up to
which it has heard: whatever has a larger number is told next, in order. A slow watcher skips what was overtaken, loses
nothing that still holds, and costs no memory. Progress and measurements are told as they stand when it listens.
"""

from __future__ import annotations

import asyncio
from collections import deque
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
        self._to_look = True
        self._newer: deque[tuple[int, AttemptKey]] = deque()
        self._caught_up = False
        # It asked what the agent is before it began to listen, and may have been told of what has changed since.
        self._agent_changed = True
        self._progressed: dict[AttemptKey, None] = {}
        self._measurements: Measurements | None = None
        self._news = asyncio.Event()

    def wake(self) -> None:
        """Makes it look for numbered events."""
        self._to_look = True
        self._news.set()

    def note_progress(self, key: AttemptKey) -> None:
        """Has the attempt's progress told, as it stands then."""
        self._progressed[key] = None
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
        """Gives kept events in order of their numbers, then CaughtUp and AgentChanged, then live ones; never ends."""
        while True:
            self._news.clear()
            event = self._next()
            if event is None:
                await self._news.wait()
            else:
                yield event

    def _next(self) -> Event | None:
        """Gives what is to be told first: while one event was on its way, everything may have changed."""
        if (status := self._next_status()) is not None:
            return StatusTold(status=status, number=status.event_number)
        if not self._caught_up:
            self._caught_up = True
            return CaughtUp(live_attempts=tuple(sorted(key for key, status in self._statuses.items() if status.live)))
        if self._agent_changed:
            self._agent_changed = False
            return AgentChanged()
        while self._progressed:
            key = next(iter(self._progressed))
            del self._progressed[key]
            found = self._statuses.get(key)
            if found is not None and found.live:
                return StatusTold(status=found, number=0)
        measurements, self._measurements = self._measurements, None
        return None if measurements is None else MeasurementsTold(measurements=measurements)

    def _next_status(self) -> AttemptStatus | None:
        while True:
            if not self._newer:
                if not self._to_look:
                    return None
                self._to_look = False
                numbers = ((status.event_number, key) for key, status in self._statuses.items())
                self._newer.extend(sorted(pair for pair in numbers if pair[0] > self._cursor))
                continue
            number, key = self._newer.popleft()
            status = self._statuses.get(key)
            # An attempt that has moved on since has a larger number, under which it is found by the next look.
            if status is not None and status.event_number == number:
                self._cursor = number
                self._progressed.pop(key, None)
                return status
