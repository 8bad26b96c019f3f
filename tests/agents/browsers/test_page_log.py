"""The console log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.browsers.page_log import PageLog
from gpu_balancer.runtime.clock import SystemClock

if TYPE_CHECKING:
    from pathlib import Path


def log_at(path: Path, *secrets: str) -> PageLog:
    return PageLog(path, secrets=secrets, clock=SystemClock())


def test_a_message_is_one_line_without_secrets(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log", "my-own-secret")
    log.write("console log", "two\nlines of my-own-secret from http://me:password@x/")
    log.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.endswith("Z console log: two\\nlines of *** from http://***@x/")


def test_a_flood_is_bounded_and_what_is_left_out_is_counted(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log")
    for _ in range(1000):
        log.write("console log", "x" * 100_000)
    assert log.is_full
    log.close()
    text = (tmp_path / "log").read_text()
    assert len(text) < 1_100_000
    assert text.splitlines()[-1].endswith("further messages were left out")


def test_a_later_agent_writes_on(tmp_path: Path) -> None:
    for text in ("first", "second"):
        log = log_at(tmp_path / "log")
        log.write("page", text)
        log.close()
    assert [line.split(": ")[1] for line in (tmp_path / "log").read_text().splitlines()] == ["first", "second"]


def test_text_that_is_no_unicode_does_no_harm(tmp_path: Path) -> None:
    log = log_at(tmp_path / "log")
    log.write("console log", "\ud800")
    log.close()
    assert (tmp_path / "log").read_bytes().endswith(b"?\n")
