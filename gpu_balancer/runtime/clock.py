"""The clock port: the only way to learn the time, so that tests own it and wall clock jumps change no timeout."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells the time.

    MUST give `monotonic_s` in seconds that never go back, and `now` as aware UTC.
    """

    def now(self) -> datetime:
        """Returns the wall time, aware, UTC. For people and records; never for timeouts."""
        ...

    def monotonic_s(self) -> float:
        """Returns seconds since an arbitrary start; never goes back. For timeouts and durations."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> datetime:
        """Returns the machine's wall time, aware, UTC."""
        return datetime.now(UTC)  # noqa: TID251 - the adapter behind the port

    def monotonic_s(self) -> float:
        """Returns CLOCK_MONOTONIC in seconds."""
        return time.monotonic()  # noqa: TID251 - the adapter behind the port
