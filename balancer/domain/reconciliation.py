"""What becomes of an attempt when the store and an agent tell of it: a total function of what both say.

The balancer and its agents are killed, restarted and cut off from one another at any moment, so each comes back with a
memory of its own. Which of them is believed, and what is done then, stands here and nowhere else;
docs/reconciliation.md shows it as a table, and a test compares the two cell by cell.

Nothing is ever concluded from silence alone, and an attempt of which an agent tells is ended rather than forgotten.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from balancer.domain.session import SessionRecord, SessionState

if TYPE_CHECKING:
    from balancer.domain.ids import DeviceId


class StoreSays(StrEnum):
    """What the store has of the session of an attempt."""

    NO_RECORD = "no record"
    QUEUED = "queued"
    STARTING_UNANSWERED = "starting, launch not answered"
    """The agent may never have heard of it, or its answer was lost."""
    STARTING_ANSWERED = "starting, launch answered"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class Fit(StrEnum):
    """Whether the attempt in question is the one that the store has."""

    SAME = "same attempt"
    OTHER_ATTEMPT = "other attempt"
    OTHER_DEVICE = "other device"


class AgentSays(StrEnum):
    """What the agent of a device says of an attempt."""

    LIVE = "lists it live"
    ENDED = "told its end"
    UNKNOWN = "does not know it"
    """It was asked after the attempt was to be there, and everything that it kept was heard."""
    UNREACHABLE = "unreachable"


class Outcome(StrEnum):
    """What is done."""

    GO_ON = "go on"
    """Both agree."""
    TAKE_END = "take its end"
    """The session ends, or begins anew, as the agent tells."""
    LAUNCH = "launch"
    """The launch is said again at once. Idempotent: an agent that has the attempt by then starts nothing."""
    STOP_AGAIN = "say the stop again"
    """The agent may have been restarted since it was told. One that does not know the attempt notes that it never may
    begin, and tells its end."""
    STOP_STRAY = "stop the stray"
    """Nothing is booked for it, and a newer attempt may write the same outputs."""
    POST_MISSING = "post as missing"
    """The agent had it and has it no more: nothing of it runs."""
    TELL_UNREACHABLE = "tell unreachable"
    """It may well run on, so nothing is released; the session carries the condition."""
    AWAIT = "await the agent"
    """What is to be done follows from what the agent says once it answers."""
    NOTHING = "nothing"


def reconcile(store: StoreSays, fit: Fit, agent: AgentSays) -> Outcome:
    """Tells what becomes of an attempt.

    Args:
        store: What the store has of its session.
        fit: Whether it is the session's present attempt. Of no account without a record.
        agent: What the agent of the device says of it.
    """
    if store is StoreSays.NO_RECORD or store is StoreSays.QUEUED or store is StoreSays.ENDED or fit is not Fit.SAME:
        return _unwanted(agent)
    match agent:
        case AgentSays.LIVE:
            return Outcome.STOP_AGAIN if store is StoreSays.STOPPING else Outcome.GO_ON
        case AgentSays.ENDED:
            return Outcome.TAKE_END
        case AgentSays.UNKNOWN:
            return _unknown(store)
        case AgentSays.UNREACHABLE:
            return Outcome.TELL_UNREACHABLE
        case _:
            assert_never(agent)


def _unwanted(agent: AgentSays) -> Outcome:
    """Tells what becomes of an attempt for which nothing is booked."""
    match agent:
        case AgentSays.LIVE:
            return Outcome.STOP_STRAY
        case AgentSays.ENDED | AgentSays.UNKNOWN:
            # What it left stays with the agent: a store that was lost, or came from a backup, must not cost files.
            return Outcome.NOTHING
        case AgentSays.UNREACHABLE:
            return Outcome.AWAIT
        case _:
            assert_never(agent)


def _unknown(store: StoreSays) -> Outcome:
    """Tells what becomes of the session's attempt that its agent does not know."""
    match store:
        case StoreSays.STARTING_UNANSWERED:
            return Outcome.LAUNCH
        case StoreSays.STOPPING:
            # Not missing at once: its launch may still be on the way, and a stop waits for that.
            return Outcome.STOP_AGAIN
        case _:
            return Outcome.POST_MISSING


def store_says(record: SessionRecord | None, *, answered: bool) -> StoreSays:
    """Tells what the store has of a session.

    Args:
        record: The session. None: there is none.
        answered: Whether the launch of its present attempt was answered before the agent was asked.
    """
    if record is None:
        return StoreSays.NO_RECORD
    match record.state:
        case SessionState.QUEUED:
            return StoreSays.QUEUED
        case SessionState.STARTING:
            return StoreSays.STARTING_ANSWERED if answered else StoreSays.STARTING_UNANSWERED
        case SessionState.RUNNING:
            return StoreSays.RUNNING
        case SessionState.STOPPING:
            return StoreSays.STOPPING
        case SessionState.SUCCEEDED | SessionState.FAILED | SessionState.CANCELLED:
            return StoreSays.ENDED
        case _:
            assert_never(record.state)


def fit_of(record: SessionRecord | None, device_id: DeviceId, attempt: int) -> Fit:
    """Tells whether an attempt on a device is the one that a session's record is about."""
    if record is None or (record.device_id == device_id and record.attempt == attempt):
        return Fit.SAME
    return Fit.OTHER_ATTEMPT if record.device_id == device_id else Fit.OTHER_DEVICE
