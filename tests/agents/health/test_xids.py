"""Every XID has an outcome, and docs/health.md shows each of them."""

from __future__ import annotations

from pathlib import Path

from agents.health.device_health import Engine, HealthState
from agents.health.xids import UNLISTED, XID_TABLE, XidOutcome, faulty_engine, xid_fault, xid_row

DOCUMENT = Path(__file__).parents[3] / "docs" / "health.md"
EXPECTED = {
    XidOutcome.ENCODER_FAULT: (47, 65, 73, 142),
    XidOutcome.DECODER_FAULT: (68, 83, 84, 88, 89, 96, 97, 98),
    XidOutcome.APPLICATION: (13, 31, 43, 45, 69),
    XidOutcome.UNHEALTHY: (46, 48, 62, 64, 95, 109, 110, 119, 120, 140, 143, 158),
    XidOutcome.DEGRADED: (63, 74, 92, 94),
    XidOutcome.LOST: (79,),
}
"""What must hold whatever else the table says: written down apart from it."""
STATES = {
    XidOutcome.IGNORED: None,
    XidOutcome.APPLICATION: None,
    XidOutcome.ENCODER_FAULT: None,
    XidOutcome.DECODER_FAULT: None,
    XidOutcome.DEGRADED: HealthState.DEGRADED,
    XidOutcome.UNHEALTHY: HealthState.UNHEALTHY,
    XidOutcome.LOST: HealthState.LOST,
}


def documented() -> dict[int | None, tuple[str, str]]:
    """Gives outcome and meaning of every XID as the document has them. None: of any other."""
    section = DOCUMENT.read_text().split("## XIDs", 1)[1].split("\n## ", 1)[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")][2:]
    found: dict[int | None, tuple[str, str]] = {}
    for xids, outcome, meaning in rows:
        for part in xids.strip().split(", "):
            first, _, last = part.partition("-")
            numbers = [None] if part == "any other" else range(int(first), int(last or first) + 1)
            for number in numbers:
                assert number not in found, f"{number} stands there twice"
                found[number] = (outcome.strip(), meaning.strip())
    return found


def test_the_document_shows_the_table_row_by_row() -> None:
    table = {xid: (row.outcome.value, row.meaning) for row in XID_TABLE for xid in row.xids}
    assert documented() == {**table, None: (UNLISTED.outcome.value, UNLISTED.meaning)}


def test_no_xid_stands_in_two_rows_and_rows_are_in_order() -> None:
    xids = [xid for row in XID_TABLE for xid in row.xids]
    assert len(xids) == len(set(xids))
    assert [row.xids[0] for row in XID_TABLE] == sorted(row.xids[0] for row in XID_TABLE)


def test_an_xid_has_the_outcome_that_was_agreed() -> None:
    agreed = {xid: outcome for outcome, xids in EXPECTED.items() for xid in xids}
    assert {xid: xid_row(xid).outcome for xid in agreed} == agreed


def test_every_xid_means_one_thing_and_says_what_to_do() -> None:
    engines = {XidOutcome.ENCODER_FAULT: Engine.ENCODE, XidOutcome.DECODER_FAULT: Engine.DECODE}
    for xid in range(260):
        row, fault, engine = xid_row(xid), xid_fault(xid), faulty_engine(xid)
        assert (fault.state if fault else None) is STATES[row.outcome], xid
        assert engine is engines.get(row.outcome), xid
        assert not row.meaning.endswith("."), xid
        if fault is not None:
            assert (fault.reason, fault.xid) == (f"XID_{xid}", xid)
            assert f"XID {xid}" in fault.message
            assert row.advice.endswith("."), xid
            assert fault.message.endswith(row.advice), xid


def test_an_xid_that_nobody_knows_is_shown_and_bars_nothing() -> None:
    assert xid_row(9999) is UNLISTED
    fault = xid_fault(9999)
    assert fault is not None
    assert not fault.state.bars
