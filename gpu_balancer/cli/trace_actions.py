"""What the command about traces does."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import Misuse, spelled
from gpu_balancer.client.session_requests import session_filter
from gpu_balancer.client.spelling import parse_label
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gpu_balancer.cli.invocation import Invocation

_AGO = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(s|m|h|d|w)")
_UNITS = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
    "w": timedelta(weeks=1),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which sessions, as it was typed."""

    since: str | None
    until: str | None
    states: Sequence[str]
    device: str | None
    labels: Sequence[str]


def export_trace(invocation: Invocation, wanted: Wanted, *, output: str | None, overwrite: bool) -> None:
    """Writes a trace to a file, which is whole when it is there, or to standard output."""
    screen = invocation.screen()
    now = SystemClock().now()
    with spelled("--since"):
        start = None if wanted.since is None else parse_instant(wanted.since, now)
    with spelled("--until"):
        end = None if wanted.until is None else parse_instant(wanted.until, now)
    with spelled("--label"):
        labels = dict(parse_label(label) for label in wanted.labels)
    states = [session_pb2.SessionState.Value(f"SESSION_STATE_{state.upper()}") for state in wanted.states]
    path = None if output is None else Path(output).expanduser()
    if path is not None and path.exists() and not overwrite:
        raise Misuse(f"Cannot write {path}: it exists. Try another name, or -y to replace it.")
    with invocation.client() as client:
        lines = client.export_trace(session_filter(states, wanted.device, labels), start=start, end=end)
        if path is None:
            for line in lines:
                screen.line(line)
            return
        count = _write(path, lines)
    screen.note(f"Wrote {path}: {count:,} session{'' if count == 1 else 's'}.")


def parse_instant(text: str, now: datetime) -> datetime:
    """Reads a time that has passed: "2h" or "7d" ago, or a date with or without a time of day, which is UTC.

    Raises:
        ValueError: When it is neither.
    """
    ago = _AGO.fullmatch(text.strip())
    try:
        if ago is not None:
            return now - float(ago[1]) * _UNITS[ago[2]]
        found = datetime.fromisoformat(text.strip())
        return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time that has passed. Try 2h, 7d, or 2030-01-31T18:00") from None


def _write(path: Path, lines: Iterable[str]) -> int:
    """Writes lines beside the place and moves them there once all have come; gives the number of sessions."""
    count = -1
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for line in lines:
                file.write(f"{line}\n")
                count += 1
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return max(0, count)
