"""Ages of files by the kernel's stamps: believed within a bound, whatever the clock was set to since."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from agents.sessions.file_ages import written_ago_s

YEAR_S = timedelta(days=365).total_seconds()


@pytest.mark.parametrize(("ago_s", "told_s"), [(0.0, 0.0), (1.0, 1.0), (YEAR_S, 5.0), (-YEAR_S, 0.0)])
def test_an_age_is_believed_up_to_a_bound(ago_s: float, told_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.0)
    assert written_ago_s(2_000_000_000.0 - ago_s, most_s=5.0) == told_s
