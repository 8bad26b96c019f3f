"""A wall clock that does not jump: what a daemon takes for the time of day, whatever somebody sets the clock to.

Deadlines that outlive a restart, ages, and the order of things are told in instants. Were they the system's, a clock
that is set a year forward would end every wait and forget every ended session, and one that is set back would let both
last for ever. So the time of day is taken once, at the first start after the machine's, and carried on by what counts
since the boot; what it was is kept in a file, so that the next start goes on with it. From what the system says
since then it differs less and less: it runs a hundredth faster or slower until both agree, which no timeout feels.

After a reboot nobody can know how long the machine was off but by its own clock, which is believed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG = logging.getLogger(__name__)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CATCHES_UP = 0.01
"""Seconds per second by which it runs faster or slower than it should until it agrees with the system's clock."""
_TOLD_FROM = timedelta(minutes=1)
_KEPT_EVERY_S = 60.0
"""Seconds between two times that are kept: one that is lost costs the catching up of so long, which is nothing."""


def _wall_time() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - an adapter behind the port


def _since_boot_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    """Names this run of the machine. Empty: it has no name, and is no other's."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


class SteadyClock:
    """The time of day without jumps. Implements `Clock`. For any thread."""

    def __init__(
        self,
        path: Path,
        *,
        wall_time: Callable[[], datetime] = _wall_time,
        since_boot_s: Callable[[], float] = _since_boot_s,
        boot_id: Callable[[], str] = _boot_id,
    ) -> None:
        """Goes on with the time that was kept, where that was since the machine's last start.

        Args:
            path: Where the time is kept; the folder exists.
            wall_time: Tells what the system takes for the time, aware, UTC.
            since_boot_s: Counts seconds since the machine's start, those asleep included.
            boot_id: Names the machine's start.
        """
        self._path = path
        self._wall_time = wall_time
        self._since_boot_s = since_boot_s
        self._boot_id = boot_id()
        self._door = threading.Lock()
        self._at_s = since_boot_s()
        self._time = self._kept() or wall_time()
        off = wall_time() - self._time
        if abs(off) > _TOLD_FROM:
            _LOG.warning(
                "The system's clock was set by about %s since the machine's start: times go on as before and approach "
                "it slowly, so that no deadline moves",
                off,
            )

    def now(self) -> datetime:
        """Returns the time of day, aware, UTC; later than at any call before, however the system's clock is set."""
        with self._door:
            at_s = self._since_boot_s()
            passed_s, self._at_s = max(at_s - self._at_s, 0.0), at_s
            self._time += timedelta(seconds=passed_s)
            off_s = (self._wall_time() - self._time).total_seconds()
            most_s = passed_s * _CATCHES_UP
            self._time += timedelta(seconds=min(max(off_s, -most_s), most_s))
            return self._time

    def monotonic_s(self) -> float:
        """Returns CLOCK_MONOTONIC in seconds."""
        return time.monotonic()  # noqa: TID251 - an adapter behind the port

    def keep(self) -> None:
        """Writes down what time it is, for the next start. Blocks for the disk; one that refuses is no fault."""
        now = self.now()
        kept = {"boot_id": self._boot_id, "since_boot_s": self._at_s, "time": now.isoformat()}
        try:
            write_durably(self._path, json.dumps(kept).encode())
        except OSError as error:
            _LOG.warning("Cannot keep the time in %s: %s", self._path, error.strerror)

    def _kept(self) -> datetime | None:
        """Reads what time it is by what was kept. None: nothing was, or the machine has been off since."""
        try:
            kept = json.loads(self._path.read_bytes())
            then_s, told = float(kept["since_boot_s"]), datetime.fromisoformat(kept["time"])
            if not self._boot_id or kept["boot_id"] != self._boot_id or then_s > self._at_s or told.tzinfo is None:
                return None
            return told + timedelta(seconds=self._at_s - then_s)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
            _LOG.warning("Cannot read the time kept in %s: %s", self._path, error)
            return None


async def keep_time(clock: SteadyClock) -> None:
    """Keeps a clock's time, now and again and again. Never returns."""
    while True:
        await asyncio.to_thread(clock.keep)
        await asyncio.sleep(_KEPT_EVERY_S)
