"""What clients may do to a recording while its agent makes it.

Refusals raise `RequestFailure` with the agent's own reason; an agent that does not answer raises
`AgentUnreachableError`. All but the snapshot change something, and are idempotent on the agent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from balancer.domain.ids import DeviceId, SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A picture of a display."""

    image: bytes
    """PNG."""
    snapshot_time: datetime


class AgentRecordings(Protocol):
    """Speaks to one agent of its recordings."""

    async def pause(self, session_id: SessionId, attempt: int) -> None:
        """Lets an attempt rest."""
        ...

    async def resume(self, session_id: SessionId, attempt: int) -> None:
        """Goes on recording."""
        ...

    async def extend(self, session_id: SessionId, attempt: int, max_duration: timedelta | None) -> None:
        """Gives an attempt another bound of time, counted from its first frame without pauses. None: none."""
        ...

    async def snapshot(self, session_id: SessionId, attempt: int, *, width: int | None) -> Snapshot:
        """Has a picture of the display taken now, so many pixels wide. None: as wide as the display."""
        ...


class AgentRecordingsDirectory(Protocol):
    """Finds who speaks to the agent of a device."""

    def get(self, device_id: DeviceId, /) -> AgentRecordings | None:
        """Gives who speaks to a device's agent. None: no agent speaks for the device."""
        ...
