"""An event loop whose time jumps to the next timer as soon as nothing else is to be done, and the clock that shows it.

Hours of timeouts and backoffs pass in milliseconds and always in the same order. While work runs in threads the time
stands still, because nobody could say how much of it the work takes.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gpu_balancer.runtime.steady_clock import SteadyClock

START_TIME = datetime(2030, 1, 1, tzinfo=UTC)


class _JumpingSelector(selectors.DefaultSelector):
    """Jumps where a real selector would wait for a timer."""

    def __init__(self) -> None:
        super().__init__()
        self.virtual_s = 0.0
        self.threads_at_work = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)
        ready = super().select(0)
        if ready or timeout <= 0:
            return ready
        if self.threads_at_work:
            return super().select(None)
        self.virtual_s += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with a time of its own, in seconds from 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.virtual_s

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = super().run_in_executor(executor, func, *args)
        self._jumping.threads_at_work += 1
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: asyncio.Future[Any]) -> None:
        self._jumping.threads_at_work -= 1


class VirtualClock:
    """Shows the running loop's time. Tests may set the wall time off by `wall_offset`."""

    def __init__(self) -> None:
        self.wall_offset = timedelta()

    def now(self) -> datetime:
        return START_TIME + timedelta(seconds=self.monotonic_s()) + self.wall_offset

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


class StoppableClock(VirtualClock):
    """Goes on while the process that looks at it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self._stopped_s = 0.0

    def stop_process_for(self, seconds: float) -> None:
        """Lets time go by in which nobody looks."""
        self._stopped_s += seconds

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self._stopped_s


class JumpingMachine:
    """A machine in virtual time whose wall clock can be set, and that can be rebooted."""

    def __init__(self, path: Path) -> None:
        """Begins with the right time.

        Args:
            path: Where its daemon keeps the time.
        """
        self.clock = VirtualClock()
        self.boot = "first"
        self._path = path

    def set_by(self, jump: timedelta) -> None:
        """Sets the wall clock forward, or back."""
        self.clock.wall_offset += jump

    def start(self) -> SteadyClock:
        """Starts a daemon: gives its clock."""
        return SteadyVirtualClock(
            self._path,
            wall_time=self.clock.now,
            since_boot_s=self.clock.monotonic_s,
            boot_id=lambda: self.boot,
        )


class SteadyVirtualClock(SteadyClock):
    """The daemons' clock in virtual time."""

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()


async def settle(rounds: int = 20) -> None:
    """Lets everything that can go on without a timer go on."""
    for _ in range(rounds):
        await asyncio.sleep(0)
