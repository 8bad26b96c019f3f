"""A browser that waits for a page is ready for it: it is connected to, and has a renderer process for it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from agents.browsers import playwright_pages
from agents.browsers.blank_page import BLANK
from agents.browsers.page import PageEnd, PageFault
from fakes.shown_pages import ShownPages, shown_pages

pytestmark = pytest.mark.process
GREEN = "<body style='background: lime'>page</body>"


async def test_the_page_that_comes_is_drawn_by_a_renderer_that_was_there(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        assert await pages.hub.make_ready(pages.display) is not None
        there = _renderers(pages)
        pages.server.page("/", "<h1>page</h1>")
        async with pages.shown("/") as driver:
            _kill(there)
            assert await driver.ended() is PageEnd.CRASHED


async def test_the_page_that_comes_finds_no_history_and_no_pages_of_the_browsers_own(tmp_path: Path) -> None:
    """Lists below the address bar are pages, made at the start, which take as much work as all else."""
    async with shown_pages(tmp_path) as pages:
        await pages.hub.make_ready(pages.display)
        assert not [one for one in _children(pages) if "--top-chrome-webui" in _line(one)]
        pages.server.page("/", "<h1>page</h1><script>console.log(`before me: ${history.length - 1}`)</script>")
        async with pages.shown("/"):
            pass
    assert "before me: 1" in pages.log.read_text()


async def test_the_page_that_comes_is_on_the_screen_when_its_gate_is_passed(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        await pages.hub.make_ready(pages.display)
        async with asyncio.timeout(10):
            while pages.pixel() != BLANK:  # noqa: ASYNC110 - X tells nobody of a changed pixel
                await asyncio.sleep(0.02)
        await _sees_the_next_page(pages)


async def test_a_page_with_the_colour_of_the_blank_one_is_seen_all_the_same(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        await pages.hub.make_ready(pages.display)
        pages.server.page("/", f"<style>body {{ background: rgb{BLANK} }}</style><h1>page</h1>")
        async with pages.shown("/"):
            seen = pages.picture()
            assert len({seen.pixel(x, y) for x in range(10, 100) for y in range(10, 60)}) > 1, "no words are seen"


@pytest.mark.parametrize("harm", [signal.SIGKILL, signal.SIGSTOP])
async def test_what_drives_browsers_may_be_lost_while_one_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: signal.Signals
) -> None:
    monkeypatch.setattr(playwright_pages, "_PING_TIMEOUT", timedelta(seconds=0.5))
    async with shown_pages(tmp_path) as pages:
        await pages.hub.make_ready(pages.display)
        (driver,) = (child for child in psutil.Process().children() if "run-driver" in _line(child))
        driver.send_signal(harm)
        await _sees_the_next_page(pages)


async def test_a_browser_that_is_lost_while_it_waits_is_told_to_who_wants_it(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        await pages.hub.make_ready(pages.display)
        os.kill(pages.browser_pid(), signal.SIGKILL)
        with pytest.raises(PageFault) as caught:
            async with pages.page("/"):
                pass
        assert caught.value.reason == "BROWSER_FAILED"


async def test_a_browser_whose_page_crashes_while_it_waits_is_ended_so_that_its_display_is_seen_to_be_dead(
    tmp_path: Path,
) -> None:
    async with shown_pages(tmp_path) as pages:
        await pages.hub.make_ready(pages.display)
        browser = pages.bare.processes["browser"][-1]
        _kill(_renderers(pages))
        await asyncio.to_thread(browser.wait, 20)


async def _sees_the_next_page(pages: ShownPages) -> None:
    pages.server.page("/", GREEN)
    async with pages.shown("/"):
        assert pages.pixel() == (0, 255, 0)


def _kill(process_ids: list[int]) -> None:
    for process_id in process_ids:
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)


def _renderers(pages: ShownPages) -> list[int]:
    """Gives the process ids of a browser's renderers."""
    return [one.pid for one in _children(pages) if "--type=renderer" in _line(one)]


def _children(pages: ShownPages) -> list[psutil.Process]:
    return psutil.Process(pages.browser_pid()).children(recursive=True)


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
