"""docs/reconciliation.md says in its tables what the code does, cell by cell."""

from __future__ import annotations

import re
from enum import StrEnum
from itertools import product
from pathlib import Path

import pytest
from house_sources import text_of

from agents.sessions.folder_reconciliation import (
    ExitSays,
    LaunchSays,
    ProcessesSay,
    StatusSays,
    reconcile_folder,
)
from agents.sessions.folder_reconciliation import Outcome as FolderOutcome
from balancer.domain.reconciliation import AgentSays, Fit, Outcome, StoreSays, reconcile

TEXT = text_of(Path("docs/reconciliation.md"))
SPELLED = {
    "starting (launch not answered)": StoreSays.STARTING_UNANSWERED.value,
    "starting (launch answered)": StoreSays.STARTING_ANSWERED.value,
}
"""A comma parts the words of a cell, so a word with a comma is written otherwise."""


def cells(heading: str, axes: tuple[type[StrEnum], ...]) -> dict[tuple[StrEnum, ...], str]:
    """Gives the outcome of every cell of the table below a heading; fails where rows overlap."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert section
    found: dict[tuple[StrEnum, ...], str] = {}
    for line in [line for line in section[1].splitlines() if line.startswith("|")][2:]:
        *conditions, outcome = [cell.strip() for cell in line.strip("|").split("|")]
        for cell in product(*(_meant(axis, text) for axis, text in zip(axes, conditions, strict=True))):
            assert cell not in found, f"two rows tell of {cell}"
            found[cell] = outcome
    return found


def _meant(axis: type[StrEnum], text: str) -> list[StrEnum]:
    if text == "any":
        return list(axis)
    return [axis(SPELLED.get(word, word)) for word in text.split(", ")]


def test_the_balancers_table_is_that_of_the_code() -> None:
    code = {cell: reconcile(*cell).value for cell in product(StoreSays, Fit, AgentSays)}
    assert cells("The balancer and an agent", (StoreSays, Fit, AgentSays)) == code
    assert set(code.values()) == {outcome.value for outcome in Outcome}, "no outcome is without a cell"


def test_the_agents_table_is_that_of_the_code() -> None:
    axes = (LaunchSays, StatusSays, ProcessesSay, ExitSays)
    code = {
        (launch, status, processes, exit_file): reconcile_folder(
            launch=launch, status=status, processes=processes, exit_file=exit_file
        ).value
        for launch, status, processes, exit_file in product(*axes)
    }
    assert cells("An agent and its folders", axes) == code
    assert set(code.values()) == {outcome.value for outcome in FolderOutcome}, "no outcome is without a cell"


@pytest.mark.parametrize("outcome", [*Outcome, *FolderOutcome])
def test_every_outcome_that_is_more_than_its_name_is_told_of(outcome: StrEnum) -> None:
    plain = {Outcome.GO_ON, Outcome.TAKE_END, Outcome.AWAIT, FolderOutcome.KEEP, FolderOutcome.KEEP_AND_END}
    assert outcome in plain or f"**{outcome.value}**" in TEXT
