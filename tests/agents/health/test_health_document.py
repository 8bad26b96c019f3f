"""docs/health.md names every reason that can be given, with the health that follows, and no other."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

from agents.health.driver_words import container_fault, error_fault, recovery_fault, silent_fault
from agents.health.reading import Reading, seen_slow, told_at_once
from agents.health.record import HealthRecord, Moment, after_reading, after_xid, health_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "health.md"
EVERYTHING = Reading(
    uncorrected_errors=1,
    repair_pending=True,
    repair_failed=True,
    clock_reasons=0xFF,
    temperature_celsius=99,
    slowdown_celsius=90,
)
NOW = Moment(time=datetime(2030, 1, 1, tzinfo=UTC), monotonic_s=0)


def documented() -> set[tuple[str, str]]:
    """Gives reasons and healths of the document."""
    section = DOCUMENT.read_text().split("## What is looked at", 1)[1].split("\n### ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z, ]+) \|", section, re.MULTILINE)
    return {(reason, health) for reason, healths in rows for health in healths.split(", ")}


def given() -> set[tuple[str, str]]:
    """Gives what the rules give."""
    faults = [error_fault(code, "") for code in range(1000)]
    faults += [fault for action in range(20) if (fault := recovery_fault(action)) is not None]
    faults += [container_fault(), silent_fault(5), *told_at_once(EVERYTHING)]
    faults += [fault for fault in seen_slow(EVERYTHING).values() if fault is not None]
    found = {(fault.reason, fault.state.name) for fault in faults}
    worse = after_reading(after_reading(HealthRecord(), Reading(uncorrected_errors=1), NOW), EVERYTHING, NOW)
    assert worse.kept is None
    rising = after_reading(worse, Reading(uncorrected_errors=2), NOW)
    healths = [health_of(rising)]
    for xid in (47, 68):
        healths.append(health_of(after_xid(after_xid(HealthRecord(), xid, NOW), xid, NOW)))
    return found | {(health.reason, health.state.name) for health in healths}


def test_the_document_names_every_reason_and_no_other() -> None:
    assert documented() == given()
