"""When to try a call again, and when to give up: delays that double, never all clients at once, never for ever."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpu_balancer.client.failures import CallFailed
from gpu_balancer.runtime.failures import StatusCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.failures import RequestFailure


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to go on trying a daemon that cannot answer now."""

    patience: timedelta = timedelta(seconds=5)
    """From the first failure in a row to giving up. Zero: no second try."""
    first_delay: timedelta = timedelta(milliseconds=100)
    """Longest wait before the second try; each further wait is twice as long."""
    longest_delay: timedelta = timedelta(seconds=2)
    """No wait is longer, unless the daemon itself asks for more."""


STREAM_POLICY = RetryPolicy(patience=timedelta(seconds=60))
"""For streams and transfers, which outlive a restart of the daemon."""


class Retries:
    """The tries of one call or stream. One mutating door: `delay_after`."""

    def __init__(self, policy: RetryPolicy, *, clock: Clock, jitter: Callable[[], float]) -> None:
        """Begins without any failure.

        Args:
            policy: How long to go on.
            clock: Measures the patience.
            jitter: Gives a number from 0 to 1, so that many clients do not come back at the same instant.
        """
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._first_failure_s = 0.0

    def reset(self) -> None:
        """Forgets the failures: something was answered."""
        self._failures = 0

    def delay_after(self, failure: RequestFailure) -> timedelta | None:
        """Tells how long to wait before the next try.

        Args:
            failure: Why the last try failed.

        Returns:
            Half to the whole of the doubling delay, or what the daemon asked for when that is longer. None: give up,
            because a new try cannot help or patience has run out.
        """
        if failure.reason.code is not StatusCode.UNAVAILABLE or isinstance(failure, CallFailed):
            return None
        now_s = self._clock.monotonic_s()
        if self._failures == 0:
            self._first_failure_s = now_s
        # 2 ** 16 delays are beyond any longest_delay; the bound keeps the product finite.
        delay = min(self._policy.longest_delay, self._policy.first_delay * 2 ** min(self._failures, 16))
        delay *= (1 + self._jitter()) / 2
        if failure.retry_after is not None:
            delay = max(delay, failure.retry_after)
        self._failures += 1
        waited = timedelta(seconds=now_s - self._first_failure_s)
        return delay if waited + delay <= self._policy.patience else None
