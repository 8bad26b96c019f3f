"""What is known of a copy, and the ways in which making one can fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum


class DeliveryState(Enum):
    """How far a copy is."""

    PENDING = "PENDING"
    """Under way, or to be tried again."""
    DELIVERED = "DELIVERED"
    """Confirmed by its destination."""
    FAILED = "FAILED"
    """Given up; the artifact was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryStatus:
    """A copy of an artifact at one destination."""

    destination: str
    state: DeliveryState
    location: str = ""
    """Where the copy is, "s3://bucket/key" or a path. Empty until it is there."""
    try_count: int = 0
    message: str = ""
    """Why the last try failed. Empty: it did not."""
    update_time: datetime


class DeliveryFailure(Exception):
    """A destination did not take a copy. It is tried again."""

    def __init__(self, message: str, *, permanent: bool = False) -> None:
        super().__init__(message)
        self.permanent = permanent
        """Whether only an operator can mend it, so that it is tried again seldom."""


class SourceLost(Exception):
    """An artifact is gone, or is not what it was when its session ended. Trying again would not help."""


class CalledOff(Exception):
    """The agent is ending."""


class DeliveriesPending(Exception):
    """A session cannot be deleted yet: the message says what is still to be copied, and what to try."""
