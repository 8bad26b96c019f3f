"""docs/restarts.md is right about which failures count, for whom, and how often."""

from __future__ import annotations

import re
from pathlib import Path

from house_sources import text_of

from balancer.domain.restart import LOSSES_ONLY, LOST_REASONS, PASSING_REASONS, STEADY, RestartMode

TEXT = text_of(Path("docs/restarts.md"))


def rows(heading: str) -> list[list[str]]:
    """Gives the rows of the table below a heading, without backquotes."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert section, heading
    lines = [line for line in section[1].splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_failures_that_count_are_those_of_the_rule() -> None:
    listed = rows("Which failures count")
    assert [reason for reason, _ in listed] == sorted(PASSING_REASONS)
    assert {reason for reason, loss in listed if loss == "yes"} == LOST_REASONS
    assert {loss for _, loss in listed} == {"yes", ""}


def test_the_modes_are_those_of_the_rule() -> None:
    assert [mode.lower() for mode, _ in rows("The policy")] == [mode.value for mode in RestartMode]


def test_the_figures_are_those_of_a_client_that_says_nothing() -> None:
    assert f"`max_restarts` ({LOSSES_ONLY.max_restarts})" in TEXT
    assert f"`first_backoff` ({LOSSES_ONLY.first_backoff.total_seconds():g} s)" in TEXT
    assert f"`longest_backoff` ({LOSSES_ONLY.longest_backoff.total_seconds():g} s)" in TEXT
    assert f"ran for {STEADY.total_seconds() / 60:g} minutes" in TEXT
