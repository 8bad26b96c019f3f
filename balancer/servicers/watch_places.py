"""How many watches there may be at once: every change is told to each of them, by the loop that also places sessions.

gRPC bounds the calls of one connection, but a caller may open any number of connections.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Generator

_RETRY_AFTER = timedelta(seconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchLimits:
    """Numbers of open watches at most, in the balancer as a whole."""

    all_sessions: int = 256
    """Each is told of every change of every session: a few hundred still leave the loop most of its time."""
    one_session: int = 1024
    """Each sleeps until its own session changes: more of them than sessions that a machine runs at once."""
    devices: int = 64
    """Each is told of every device every second."""


class WatchPlaces:
    """The places of one kind of watch."""

    def __init__(self, method: str, limit: int) -> None:
        """Begins with all places free.

        Args:
            method: The watch's name in the contract, for people.
            limit: Number of places.
        """
        self._method = method
        self._limit = limit
        self.taken = 0
        """Number of open watches."""

    @contextmanager
    def place(self) -> Generator[None]:
        """Takes a place for as long as a watch is open.

        Raises:
            RequestFailure: TOO_MANY_WATCHERS.
        """
        if self.taken >= self._limit:
            raise RequestFailure(
                reason=Reason.TOO_MANY_WATCHERS,
                message=f"Cannot watch: {self.taken:,} {self._method} streams are open, which is as many as the "
                "balancer bears. Try again when one has ended.",
                retry_after=_RETRY_AFTER,
                metadata={"limit": str(self._limit)},
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1
