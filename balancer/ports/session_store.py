"""The store of sessions: what must survive a restart of the balancer, and nothing else.

Load is never stored, only sessions are; nothing is read in the hot path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import SessionRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSession:
    """Write the record, new or changed."""

    record: SessionRecord
    decision: str = ""
    """Why it was placed or not: a line of JSON, added to those that are kept of the session. Empty: nothing to add."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSession:
    """Forget the session, its request id and its decisions."""

    session_id: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class PutCursor:
    """Remember the last event of an agent that was applied."""

    device_id: DeviceId
    event_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PutFinding:
    """Remember what was found out about a device or the host, such as a calibration."""

    key: str
    """"calibration/GPU-…" for instance."""
    text: str | None
    """JSON, opaque to the store. None: forget it."""


Change = PutSession | RemoveSession | PutCursor | PutFinding


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredState:
    """Everything in the store."""

    records: Sequence[SessionRecord]
    """Oldest first."""
    cursors: Mapping[DeviceId, int]
    findings: Mapping[str, str] = field(default_factory=dict)


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

    async def read_decisions(self, session_id: SessionId) -> Sequence[str]:
        """Reads the decisions that are kept of a session, oldest first. Not for the hot path."""
        ...

    async def close(self) -> None:
        """Gives the store back. Committing afterwards is an error."""
        ...
