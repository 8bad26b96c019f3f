"""What the silence of an agent means for the sessions of its device: nothing, at first, because they may well run on.

After long silence the agent counts as lost, and who may goes on elsewhere without knowing how the attempt ended, if it
has: fences see to it that it writes over nothing, and it is ended when its agent is heard again.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from balancer.domain.requeueing import given_up, moved
from balancer.domain.session import PLACED, Condition, Failure, SessionRecord
from balancer.domain.session_events import AgentLost

UNREACHABLE = "UNREACHABLE"
"""Type of the condition of a session whose agent does not answer. The balancer's own; agents never report it."""


def silent(record: SessionRecord, now: datetime) -> SessionRecord:
    """Notes that the agent of a session's device does not answer."""
    if record.state not in PLACED or any(condition.type == UNREACHABLE for condition in record.conditions):
        return record
    message = f"The agent of {record.device_id} does not answer; the session may well be running on."
    condition = Condition(type=UNREACHABLE, message=message, since_time=now)
    return replace(record, conditions=(*record.conditions, condition))


def heard(record: SessionRecord) -> SessionRecord:
    """Notes that it answers again."""
    left = tuple(condition for condition in record.conditions if condition.type != UNREACHABLE)
    return replace(record, conditions=left)


def lost(record: SessionRecord, event: AgentLost, now: datetime) -> SessionRecord:
    """Has a session go on elsewhere whose agent is not waited for any more, if its rule lets it.

    The silence was rest enough, and it says nothing about the session: so it goes on at once, and its row of restarts
    is not made longer. Who may not go on elsewhere is left where it is.
    """
    if record.state not in PLACED or record.device_id != event.device_id:
        return record
    if record.requeue:
        return given_up(record, now)
    if record.stop_requested or not record.restart.counts("AGENT_LOST"):
        return record
    silence_s = event.silence.total_seconds()
    message = f"Cannot reach the agent of {event.device_id}: it has been silent for {silence_s:.0f} s."
    return moved(record, Failure(reason="AGENT_LOST", message=message), now)
