"""`gpu-balancer trace`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from gpu_balancer.cli.trace_actions import parse_instant
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command

    from fakes.balancer_server import FakeBalancer

LINES = ["the header", "a session", "another"]
NOW = datetime(2030, 5, 17, 12, tzinfo=UTC)


def test_a_trace_is_written_to_standard_output(run: Command, fake: FakeBalancer) -> None:
    fake.trace_lines = LINES
    assert run("trace").out.splitlines() == LINES


def test_a_trace_is_written_to_a_file_which_is_not_replaced_unasked(
    run: Command, fake: FakeBalancer, tmp_path: Path
) -> None:
    fake.trace_lines = LINES
    path = tmp_path / "friday.jsonl"
    ran = run(
        "trace", "-o", str(path), "--since", "7d", "--until", "2030-05-17", "--state", "running", "--label", "a=b"
    )
    assert ran.err == f"Wrote {path}: 2 sessions.\n"
    assert path.read_text().splitlines() == LINES
    request = fake.trace_requests[-1]
    assert list(request.filter.labels.items()) == [("a", "b")]
    assert request.HasField("start_time")
    assert request.end_time.ToDatetime(tzinfo=UTC) == datetime(2030, 5, 17, tzinfo=UTC)
    refused = run("trace", "-o", str(path))
    assert refused.code == 2
    assert "-y to replace it" in refused.err
    assert run("trace", "-o", str(path), "-y").code == 0


def test_a_trace_that_breaks_off_leaves_no_file(run: Command, fake: FakeBalancer, tmp_path: Path) -> None:
    fake.trace_lines = LINES
    fake.refuse("ExportTrace", RequestFailure(reason=Reason.INTERNAL, message="Cannot export: a fault."))
    assert run("trace", "-o", str(tmp_path / "friday.jsonl")).code == 70
    assert list(tmp_path.glob("*friday*")) == []


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("2h", NOW - timedelta(hours=2)),
        ("1.5d", NOW - timedelta(hours=36)),
        ("2w", NOW - timedelta(days=14)),
        ("2030-01-31", datetime(2030, 1, 31, tzinfo=UTC)),
        ("2030-01-31T18:00+02:00", datetime(2030, 1, 31, 16, tzinfo=UTC)),
        ("2030-01-31T18:00Z", datetime(2030, 1, 31, 18, tzinfo=UTC)),
    ],
)
def test_times_that_have_passed_are_read(text: str, instant: datetime) -> None:
    assert parse_instant(text, NOW) == instant


@pytest.mark.parametrize("text", ["", "soon", "2", "-2h", "999999w", "31.1.2030"])
def test_what_is_no_time_is_refused(run: Command, text: str) -> None:
    ran = run("trace", f"--since={text}")
    assert ran.code == 2
    assert "Cannot use --since" in ran.err
