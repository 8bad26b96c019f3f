"""Who is asked to settle what an attempt left open, and how often."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from agents.sessions.attempt import AttemptKey
from agents.sessions.settling import Settling

KEY = AttemptKey(session="s1", attempt=2)


class OneRunner:
    """Settles when the test says so."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.gate = asyncio.Event()
        self.count = 0
        self._fault = fault

    async def settle(self) -> None:
        self.count += 1
        await self.gate.wait()
        if self._fault is not None:
            raise self._fault


async def test_an_attempt_is_settled_once_at_a_time_and_all_who_asked_wait() -> None:
    settling, runner = Settling(), OneRunner()
    asked = [asyncio.ensure_future(settling.settle(KEY, _as_runner(runner))) for _ in range(3)]
    done, _ = await asyncio.wait(asked, timeout=timedelta(milliseconds=50).total_seconds())
    assert (done, runner.count) == (set(), 1)
    runner.gate.set()
    await asyncio.gather(*asked)
    assert runner.count == 1
    await settling.settle(KEY, _as_runner(runner))
    assert runner.count == 2, "it may be repeated later"


async def test_what_cannot_be_settled_is_logged_and_does_not_keep_the_session_from_ending(
    caplog: pytest.LogCaptureFixture,
) -> None:
    settling, runner = Settling(), OneRunner(OSError(5, "Input/output error"))
    runner.gate.set()
    await settling.settle(KEY, _as_runner(runner))
    assert "Cannot complete what attempt 2 of sessions/s1 left open; it stays in parts" in caplog.text
    assert "Input/output error" in caplog.text
    await settling.settle(KEY, _as_runner(runner))
    assert runner.count == 2


def _as_runner(runner: OneRunner) -> Any:
    return runner
