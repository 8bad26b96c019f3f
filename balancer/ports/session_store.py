"""The store of sessions: what must survive a restart of the balancer, and nothing else.

Load is never stored, only sessions are; nothing is read in the hot path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import SessionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSession:
    """Write the record, new or changed."""

    record: SessionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSession:
    """Forget the session and its request id."""

    session_id: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class PutCursor:
    """Remember the last event of an agent that was applied."""

    device_id: DeviceId
    event_number: int


Change = PutSession | RemoveSession | PutCursor


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """Everything in the store."""

    records: Sequence[SessionRecord]
    """Oldest first."""
    cursors: Mapping[DeviceId, int]


class StoreError(Exception):
    """The store could not do it. The message says what, why, and what to try."""


class StoreFullError(StoreError):
    """The disk is full."""


class SessionStore(Protocol):
    """Keeps sessions.

    MUST apply a batch wholly or not at all, and durably: what `commit` returned from survives power loss.
    MUST raise StoreError, leaving the stored state as it was, when it cannot; StoreFullError when the disk is full.
    """

    async def load(self) -> StoredState:
        """Reads everything, once, at start."""
        ...

    async def commit(self, changes: Sequence[Change]) -> None:
        """Applies changes in order, in one transaction."""
        ...

    async def close(self) -> None:
        """Gives the store back. Committing afterwards is an error."""
        ...
