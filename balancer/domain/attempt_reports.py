"""What an agent's report of an attempt adds to a session's record, whatever state the session is in.

Reports come late, twice and in any order: within an attempt nothing that is known ever goes back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from balancer.domain.rebooking import differs, rebooked
from balancer.domain.session import Condition, MeasuredUse, Progress, SessionRecord
from balancer.domain.session_events import AttemptReported

LASTING_CONDITIONS = frozenset({"IN_PARTS", "PARTS_MISSING", "UNFINISHED_FILES", "OUTPUTS_DISCARDED", "PLAYLISTS_OPEN"})
"""Types of the conditions by which agents tell how outputs differ from what was asked for."""


def with_report(record: SessionRecord, event: AttemptReported, own_conditions: Collection[str]) -> SessionRecord:
    """Takes what is told of an attempt that lives.

    Args:
        record: The session, on this attempt.
        event: The report.
        own_conditions: Types of the balancer's own conditions, which agents never report.
    """
    changed = replace(
        with_end(record, event),
        conditions=_told_conditions(record, event.conditions, own_conditions),
        ingest_url=event.ingest_url or record.ingest_url,
    )
    return changed if event.measured_use is None else _measured(changed, event.measured_use)


def with_end(record: SessionRecord, event: AttemptReported) -> SessionRecord:
    """Takes what stays of an attempt that may have ended."""
    progress = _further(record.progress, event.progress)
    old = event.progress is not None and progress is not event.progress
    report = record.recording_report if old or event.recording_report is None else event.recording_report
    changed = replace(record, progress=progress, recording_report=report, folder=event.folder or record.folder)
    if lasting := lasting_conditions(event.conditions):
        kept = tuple(condition for condition in record.conditions if condition.type not in LASTING_CONDITIONS)
        return replace(changed, conditions=(*kept, *lasting))
    return changed


def lasting_conditions(conditions: Collection[Condition]) -> tuple[Condition, ...]:
    """Gives those that are true of a session's outputs for good, also once it has ended."""
    return tuple(condition for condition in conditions if condition.type in LASTING_CONDITIONS)


def _measured(record: SessionRecord, told: MeasuredUse) -> SessionRecord:
    """Books what a session was seen to take, unless nearly the same was told before."""
    known = record.measured_use
    if known is not None and not differs(known.cores, told.cores) and not differs(known.memory_mib, told.memory_mib):
        return record
    booked = None if record.reservation is None else rebooked(record.reservation, told)
    return replace(record, measured_use=told, reservation=booked)


def _further(known: Progress | None, told: Progress | None) -> Progress | None:
    """Gives the progress that is further on: within an attempt it never goes back, whatever comes late."""
    if told is None or (known is not None and (told.frames, told.out_time) < (known.frames, known.out_time)):
        return known
    return told


def _told_conditions(
    record: SessionRecord, told: tuple[Condition, ...], own_conditions: Collection[str]
) -> tuple[Condition, ...]:
    """Puts the agent's conditions beside the balancer's own; one that goes on being true keeps its time."""
    since = {condition.type: condition.since_time for condition in record.conditions}
    own = tuple(condition for condition in record.conditions if condition.type in own_conditions)
    return own + tuple(
        replace(condition, since_time=since.get(condition.type, condition.since_time))
        for condition in told
        if condition.type not in own_conditions
    )
