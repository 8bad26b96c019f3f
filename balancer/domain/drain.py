"""Emptying a device: what an operator asked for, who is moved from it and who is not, and how that is told.

Moving costs a session a gap at least, so nobody is moved who is better left alone. What may not be moved stays until it
ends by itself or the deadline is over: emptying a device is never a reason to end what has no other place, unless the
operator said when his patience is over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from balancer.domain.ids import DeviceId
from balancer.domain.reachability import UNREACHABLE
from balancer.domain.session import Failure, SessionRecord, SessionState

DRAINED = "DEVICE_DRAINED"
"""Reason of whatever is done to a session for the sake of emptying its device."""


class DrainMode(StrEnum):
    """How a device is emptied."""

    WAIT = "wait"
    """Its sessions end by themselves."""
    MOVE = "move"
    """Its sessions go on as further attempts on other devices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceDrain:
    """A device that is being emptied, or was, and was not opened since."""

    mode: DrainMode
    start_time: datetime
    deadline_time: datetime | None = None
    """When what is left is stopped, for people and over restarts. None: never."""
    patience: timedelta | None = None
    """How long the deadline was away when it was set. None: there is none."""
    stopped_count: int = 0
    """Sessions that were stopped because the deadline was over."""
    session_count: int = 0
    """Sessions that are still on it."""
    message: str = ""
    """How far it is, as sentences."""

    def left(self, now: datetime) -> timedelta | None:
        """Gives how long the deadline is away, of a drain that was read after a restart.

        Only the wall clock was there meanwhile. Where it was set back, nobody waits longer than was asked for.

        Args:
            now: The wall time.

        Returns:
            None: there is no deadline.
        """
        if self.deadline_time is None or self.patience is None:
            return None
        return min(self.patience, max(timedelta(), self.deadline_time - now))


class Staying(StrEnum):
    """Why a session is not moved."""

    MOVING = "moving"
    ENDING = "ending"
    UNREACHABLE = "unreachable"
    PUBLISHED = "published"
    NEARLY_DONE = "nearly_done"
    NO_ROOM = "no_room"
    """Found out by asking, not by looking at it."""


_CLAUSES: Mapping[Staying, str] = {
    Staying.MOVING: "{} on the way",
    Staying.ENDING: "{} ending",
    Staying.UNREACHABLE: "{} out of reach, as their agent does not answer",
    Staying.PUBLISHED: "{} fed by publishers who know no other address",
    Staying.NEARLY_DONE: "{} more than half done and would begin anew",
    Staying.NO_ROOM: "{} without room on another device",
}


def staying(record: SessionRecord) -> Staying | None:
    """Tells why a session is not moved from a device that is being emptied, as far as it can be seen of the session.

    A file begins anew when it is moved. One that is more than half done is soon done where it is, and loses nothing;
    one of unknown length is moved at once, because it would only lose more later. A publisher knows the address of one
    agent, and would speak to nobody.

    Returns:
        None: it may be moved.
    """
    if record.state not in (SessionState.STARTING, SessionState.RUNNING):
        return Staying.ENDING if record.moving is None else Staying.MOVING
    if any(condition.type == UNREACHABLE for condition in record.conditions):
        return Staying.UNREACHABLE
    if record.ingest_url is not None:
        return Staying.PUBLISHED
    return Staying.NEARLY_DONE if not record.resumable and _more_than_half_done(record) else None


def _more_than_half_done(record: SessionRecord) -> bool:
    progress = record.progress
    return progress is not None and progress.total_time is not None and 2 * progress.out_time > progress.total_time


def moving_failure(device_id: DeviceId) -> Failure:
    """Gives why a session is moved."""
    return Failure(reason=DRAINED, message=f"Device {device_id} is being emptied by its operator.")


def stopping_failure(device_id: DeviceId) -> Failure:
    """Gives why a session is stopped when the deadline is over."""
    return Failure(
        reason=DRAINED,
        message=f"It was stopped: device {device_id} was being emptied by its operator, whose deadline was over.",
    )


def told(mode: DrainMode, count: int, stayers: Iterable[Staying]) -> str:
    """Tells how far a drain is.

    Args:
        mode: How the device is emptied.
        count: Sessions that are still on it.
        stayers: Why those are not moved that are not; empty where nobody is to be moved.

    Returns:
        Sentences for people.
    """
    if not count:
        return "It was emptied, and takes no session until it is opened again."
    are = "1 session is" if count == 1 else f"{count} sessions are"
    if mode is DrainMode.WAIT:
        return f"Being emptied: {are} left, and not moved."
    counted = Counter(stayers)
    clauses = [_CLAUSES[why].format(counted[why]) for why in Staying if counted[why]]
    return f"Being emptied: {are} left{': ' + '; '.join(clauses) if clauses else ''}."
