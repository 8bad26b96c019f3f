"""A browser that waits for a page has a renderer process ready for it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from agents.browsers.page import PageEnd
from fakes.shown_pages import ShownPages, shown_pages

pytestmark = pytest.mark.process


async def test_the_page_that_comes_is_drawn_by_a_renderer_that_was_there(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        assert await pages.hub.rendering(pages.display, at_leisure=True) is not None
        there = _renderers(pages)
        pages.server.page("/", "<h1>page</h1>")
        async with pages.shown("/") as driver:
            for renderer in there:
                with suppress(ProcessLookupError):
                    os.kill(renderer, signal.SIGKILL)
            assert await driver.ended() is PageEnd.CRASHED


async def test_the_page_that_comes_finds_no_history(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        await pages.hub.rendering(pages.display, at_leisure=True)
        pages.server.page("/", "<h1>page</h1><script>console.log(`before me: ${history.length - 1}`)</script>")
        async with pages.shown("/"):
            pass
    assert "before me: 1" in pages.log.read_text()


def _renderers(pages: ShownPages) -> list[int]:
    """Gives the process ids of a browser's renderers."""
    found = psutil.Process(pages.browser_pid()).children(recursive=True)
    return [one.pid for one in found if "--type=renderer" in _line(one)]


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
