"""Displays that cannot be made are tried again, ever more seldom, and that is told."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from display_rig import opened_pool

from agents.displays.display import BrowserEndpoint, Display, DisplayUnavailable
from agents.displays.spawning import DisplayProcesses
from fakes.virtual_time import VirtualClock, VirtualTimeLoop


class BrokenBackend:
    """Makes no X server."""

    def __init__(self, limit: int | None = None) -> None:
        self.display_limit = limit
        self.tries_s: list[float] = []
        self.held = asyncio.Event()
        """Cleared: a try does not end."""
        self.held.set()

    @property
    def name(self) -> str:
        return "broken"

    def find_fault(self) -> str | None:
        return None

    def environment(self) -> Mapping[str, str]:
        return {}

    async def start(
        self, processes: DisplayProcesses, authority: Path, *, width: int, height: int, within: timedelta
    ) -> str:
        self.tries_s.append(asyncio.get_running_loop().time())
        await self.held.wait()
        raise DisplayUnavailable("DISPLAY_FAILED", "Cannot start a server: no memory. Try more.")


def test_warm_displays_are_tried_again_ever_more_seldom(
    root: Path, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backend = BrokenBackend()

    async def an_hour() -> None:
        async with opened_pool(
            root, run_dir, backend=backend, clock=VirtualClock(), warm_displays=1, prewarm=True
        ) as rig:
            await asyncio.sleep(600)
            assert rig.pool.ability().fault_message == "Cannot start a server: no memory. Try more."
            assert rig.pool.ability().available

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(an_hour())
    pauses = [round(later - earlier) for earlier, later in zip(backend.tries_s, backend.tries_s[1:], strict=False)]
    assert pauses[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(pauses[7:]) == {60}
    assert "Cannot start a server: no memory. Try more. (DISPLAY_FAILED; warm displays are tried again" in caplog.text


async def test_who_asks_is_told_at_once_and_the_fault_stays_until_one_is_made(root: Path, run_dir: Path) -> None:
    backend = BrokenBackend()
    async with opened_pool(root, run_dir, backend=backend) as rig:
        for _ in range(2):
            with pytest.raises(DisplayUnavailable, match="no memory"):
                await rig.acquire()
        assert len(backend.tries_s) == 2
        assert "no memory" in rig.pool.ability().fault_message
        assert rig.pool.ability().used_display_count == 0


async def test_a_display_that_fails_and_was_begun_for_nobody_is_made_anew_for_who_has_come(
    root: Path, run_dir: Path
) -> None:
    """It may have been late before it was wanted."""
    backend = BrokenBackend()
    backend.held.clear()
    async with opened_pool(root, run_dir, backend=backend, warm_displays=1, prewarm=True) as rig:
        async with asyncio.timeout(10):
            while not backend.tries_s:  # noqa: ASYNC110 - nobody tells that it is tried
                await asyncio.sleep(0.01)
        asked = asyncio.ensure_future(rig.acquire())
        await asyncio.sleep(0.1)
        assert len(backend.tries_s) == 1, "what is being made already is waited for"
        backend.held.set()
        with pytest.raises(DisplayUnavailable, match="no memory"):
            await asked
        assert len(backend.tries_s) == 2


async def test_a_back_end_of_one_display_keeps_none_warm(root: Path, run_dir: Path) -> None:
    backend = BrokenBackend(limit=1)
    async with opened_pool(root, run_dir, backend=backend, warm_displays=1, prewarm=True, displays=4) as rig:
        assert rig.pool.ability().display_count == 1
        assert backend.tries_s == []


@pytest.mark.process
async def test_a_display_that_is_made_takes_the_fault_away(root: Path, run_dir: Path) -> None:
    outcomes = [DisplayUnavailable("BROWSER_FAILED", "Cannot start the browser: it crashed. Try again."), None]

    async def start_browser(display: Display) -> BrowserEndpoint:
        if (failure := outcomes.pop(0)) is not None:
            raise failure
        return BrowserEndpoint(url="http://127.0.0.1:1", name="None 1")

    async with opened_pool(root, run_dir, start_browser=start_browser) as rig:
        with pytest.raises(DisplayUnavailable, match="it crashed"):
            await rig.acquire()
        assert "it crashed" in rig.pool.ability().fault_message
        display = await rig.acquire()
        assert rig.pool.ability().fault_message == ""
        await rig.pool.release(display.id)
