"""Pages that outlive agents and drivers, and browsers that do not outlive a kill."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agents.browsers import chromium_page
from agents.browsers.page import PageEnd, PageFault
from agents.browsers.playwright_pages import BrowserHub
from agents.pipelines.recording import ColorScheme, GateKind, PageSource, StartGate
from fakes.shown_pages import shown_pages

if TYPE_CHECKING:
    from fakes.shown_pages import ShownPages

pytestmark = pytest.mark.process

GREEN = "<body style='background:#00ff00'><h1>page</h1>"


async def test_a_later_agent_finds_the_page_and_what_it_has_said_meanwhile(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        pages.server.page("/", f"{GREEN}<script>fetch('/told').then(() => console.log('END_RECORDING'))</script>")
        told = asyncio.Event()
        pages.server.held["/told"] = told
        source = PageSource(url=pages.server.url(), color_scheme=ColorScheme.DARK)
        async with pages.shown(source):
            pass
        await pages.hub.close()
        told.set()
        async with pages.page(source, opened=True) as driver:
            assert await driver.ended() is PageEnd.SIGNAL
            assert pages.pixel() == (0, 255, 0)
        # Once more: the page has said it for good, and nobody loaded it anew.
        async with pages.page(source, opened=True) as driver:
            assert await driver.ended() is PageEnd.SIGNAL
        assert pages.server.paths.count("/") == 1


async def test_a_fault_over_one_browser_is_not_raised_to_whoever_asks_for_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with shown_pages(tmp_path) as pages:
        pages.server.page("/", GREEN)
        async with pages.shown("/"):
            assert pages.display.browser is not None
            connection = await pages.hub.connect(pages.display.browser)
            page = connection.browser.contexts[0].pages[0]
            told = asyncio.Event()

            def fail(_: object) -> None:
                told.set()
                raise KeyError("unforeseen")

            page.on("console", fail)
            await page.evaluate("setTimeout(() => console.log('now'), 0)")
            await told.wait()
            assert await connection.answers(timedelta(seconds=20))
            assert await page.title() == ""
            await connection.close()
    assert "made a mistake" in caplog.text


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["crashed", "hung"])
async def test_a_lost_driver_is_started_again_and_its_pages_are_taken_up(tmp_path: Path, fault: int) -> None:
    async with shown_pages(tmp_path) as pages:
        pages.server.page("/", f"{GREEN}<script>fetch('/told').then(() => console.log('END_RECORDING'))</script>")
        told = asyncio.Event()
        pages.server.held["/told"] = told
        async with pages.shown("/") as driver:
            waiting = asyncio.ensure_future(driver.ended())
            (node,) = _drivers()
            os.kill(node, fault)
            told.set()
            assert await waiting is PageEnd.SIGNAL


async def test_a_killed_browser_is_gone_and_not_a_page_that_closed(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        pages.server.page("/", GREEN)
        async with pages.shown("/") as driver:
            os.kill(pages.browser_pid(), signal.SIGKILL)
            assert await driver.ended() is PageEnd.BROWSER_GONE
        async with pages.page("/", opened=True) as driver:
            assert await driver.ended() is PageEnd.BROWSER_GONE
        with pytest.raises(PageFault) as caught:
            async with pages.page("/"):
                pass
        assert caught.value.reason == "BROWSER_FAILED"


async def test_a_browser_that_hung_for_a_while_goes_on_and_one_that_hangs_for_long_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chromium_page, "_ANSWER_TIMEOUT", timedelta(seconds=0.5))
    async with shown_pages(tmp_path) as pages:
        pages.server.page("/", f"{GREEN}<script>fetch('/told').then(() => console.log('END_RECORDING'))</script>")
        told = asyncio.Event()
        pages.server.held["/told"] = told
        async with pages.shown("/") as driver:
            waiting = asyncio.ensure_future(driver.ended())
            os.kill(pages.browser_pid(), signal.SIGSTOP)
            await asyncio.sleep(5)  # two seconds until it is asked, half a second twice for its answer
            assert not waiting.done()
            os.kill(pages.browser_pid(), signal.SIGCONT)
            told.set()
            assert await waiting is PageEnd.SIGNAL
        monkeypatch.setattr(chromium_page, "_SILENT_FOR_S", 1.0)
        pages.server.page("/still", GREEN)
        async with pages.shown("/still") as driver:
            os.kill(pages.browser_pid(), signal.SIGSTOP)
            assert await driver.ended() is PageEnd.BROWSER_GONE
            os.kill(pages.browser_pid(), signal.SIGCONT)


async def test_a_browser_that_is_killed_before_the_gate_fails_it(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        pages.server.page("/", GREEN)
        gate = StartGate(kind=GateKind.CONSOLE_SIGNAL, timeout=timedelta(seconds=60))
        async with pages.page("/", gate) as driver:
            await driver.open()
            os.kill(pages.browser_pid(), signal.SIGKILL)
            with pytest.raises(PageFault) as caught:
                await driver.pass_gate()
        assert caught.value.reason == "BROWSER_FAILED"


async def test_the_renderer_is_told_on_the_blank_page(tmp_path: Path) -> None:
    async with shown_pages(tmp_path) as pages:
        renderer = await pages.hub.rendering(pages.display)
        assert renderer is not None
        assert "SwiftShader" in renderer
        assert await pages.hub.rendering(pages.bare.display) is None
        await _use_after(pages)


async def _use_after(pages: ShownPages) -> None:
    pages.server.page("/", GREEN)
    async with pages.shown("/"):
        assert pages.pixel() == (0, 255, 0)


async def test_a_hub_that_was_never_used_closes() -> None:
    await BrowserHub().close()


def _drivers() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdecimal() and f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text():
                found += [int(entry.name)] if b"/playwright/driver/" in (entry / "cmdline").read_bytes() else []
    return found
