"""A display with a browser, a hub and a server, on which tests open pages one after the other."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from agents.browsers.chromium import find_chromium
from agents.browsers.playwright_pages import BrowserHub
from agents.browsers.starting import BrowserOptions, start_browser
from agents.pipelines.recording import GateKind, PageSource, StartGate, StopRules
from fakes.bare_display import BareDisplay, bare_display
from fakes.page_server import PageServer
from fakes.x_picture import Picture, picture

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agents.browsers.page import PageDriver
    from agents.displays.display import Display

FIRST_PAINT = StartGate(kind=GateKind.FIRST_CONTENTFUL_PAINT, timeout=timedelta(seconds=20))


class ShownPages:
    """Where pages are shown."""

    def __init__(self, bare: BareDisplay, display: Display, hub: BrowserHub, server: PageServer, folder: Path) -> None:
        self.bare = bare
        self.display = display
        self.hub = hub
        self.server = server
        self.log = folder / "console.log"

    @asynccontextmanager
    async def page(
        self, source: PageSource | str, gate: StartGate = FIRST_PAINT, *, opened: bool = False
    ) -> AsyncIterator[PageDriver]:
        """Takes hold of the page, for a source or a path of the server, and lets it go."""
        if isinstance(source, str):
            source = PageSource(url=self.server.url(source))
        driver = await self.hub.page(self.display, source, gate, StopRules(), log=self.log, opened=opened)
        try:
            yield driver
        finally:
            await driver.close()

    @asynccontextmanager
    async def shown(self, source: PageSource | str, gate: StartGate = FIRST_PAINT) -> AsyncIterator[PageDriver]:
        """Opens a page and passes its gate."""
        async with self.page(source, gate) as driver:
            await driver.open()
            await driver.pass_gate()
            yield driver

    def pixel(self, x: int = -10, y: int = -10) -> tuple[int, int, int]:
        """What is on the screen at a place; from the right and from below when negative."""
        return self.picture().pixel(x, y)

    def picture(self) -> Picture:
        """What is on the screen."""
        return picture(self.display)

    def browser_pid(self) -> int:
        """The browser's main process."""
        return self.bare.processes["browser"][-1].pid


@asynccontextmanager
async def shown_pages(folder: Path, *, proxy_port: int | None = None, **options: Any) -> AsyncIterator[ShownPages]:
    """Makes a place for pages, which may reach loopback unless there is a proxy."""
    chromium = await find_chromium(["chromium"])
    wished = BrowserOptions(**options)
    with bare_display() as bare:
        endpoint = await start_browser(bare.display, bare.spawn, chromium, wished, proxy_port=proxy_port)
        hub = BrowserHub()
        async with PageServer() as server:
            try:
                yield ShownPages(bare, replace(bare.display, browser=endpoint), hub, server, folder)
            finally:
                await hub.close()
