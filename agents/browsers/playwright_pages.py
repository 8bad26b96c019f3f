"""The browsers' hub: one Playwright for all pages of an agent, started at the first need, and again when it crashed.

Playwright's driver is a Node.js process. It reads from a pipe of ours, so it ends when we do, however we end. When it
crashes or hangs, its pages go on unharmed: `ChromiumPage` sees that its browser still answers and comes here for a new
one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import psutil
from playwright.async_api import Error, Playwright, async_playwright

from agents.browsers.blank_page import ready_blank_page
from agents.browsers.chromium_page import ChromiumPage
from agents.browsers.connection import Connection
from agents.browsers.kiosk_window import fill_display
from agents.browsers.page import PageFault
from gpu_balancer.runtime.clock import Clock, SystemClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
    from pathlib import Path

    from playwright.async_api import Page

    from agents.browsers.page import PageDriver
    from agents.displays.display import BrowserEndpoint, Display
    from agents.pipelines.recording import PageSource, StartGate, StopRules

_LOG = logging.getLogger(__name__)
_START_TIMEOUT = timedelta(seconds=30)
"""For what drives browsers, which is begun once: on a machine whose cores are all busy it takes its time."""
_CONNECT_TIMEOUT = timedelta(seconds=10)
_PING_TIMEOUT = timedelta(seconds=3)
_STOP_TIMEOUT = timedelta(seconds=5)
_DRIVER_ARGUMENT = "run-driver"

_RENDERER = """(() => {
  const gl = document.createElement("canvas").getContext("webgl");
  if (!gl) return null;
  const names = gl.getExtension("WEBGL_debug_renderer_info");
  const renderer = gl.getParameter(names ? names.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return renderer;
})()"""


class BrowserHub:
    """Drives browsers on displays. To be closed at the end."""

    def __init__(self, *, url_schemes: Iterable[str] = ("http", "https"), clock: Clock | None = None) -> None:
        """Starts nothing yet.

        Args:
            url_schemes: Schemes of pages that may be opened.
            clock: For logs and durations. None: the machine's.
        """
        self._url_schemes = tuple(url_schemes)
        self._clock = clock or SystemClock()
        self._playwright: Playwright | None = None
        self._driver: psutil.Process | None = None
        self._starting = asyncio.Lock()
        self._ready: dict[str, Connection] = {}
        """Connections to browsers that wait for a page, by their address."""
        self._endings: set[asyncio.Task[None]] = set()

    async def page(
        self, display: Display, source: PageSource, gate: StartGate, rules: StopRules, *, log: Path, opened: bool
    ) -> PageDriver:
        """Takes hold of a display's page.

        Args:
            display: It has a browser.
            source: What the page is to be.
            gate: When the recording begins.
            rules: Has the page's end signal.
            log: File for its console log, to which is appended; its folder exists.
            opened: Whether an earlier agent has opened it: then it is told its settings again and watched, and neither
                `open` nor `pass_gate` may be called. That its browser is gone then, `ended` tells.

        Raises:
            PageFault: For a page that is not open: PAGE_NOT_ALLOWED by its URL; BROWSER_FAILED.
        """
        page = ChromiumPage(
            display, source, gate, rules, log=log, connect=self.connect, schemes=self._url_schemes, clock=self._clock
        )
        try:
            if opened:
                await page.attach_again()
            else:
                await page.attach(opened=False)
        except BaseException:
            await page.close()
            raise
        return page

    async def rendering(self, display: Display) -> str | None:
        """Asks what renders WebGL, on the blank page of a display, which comes to fill the display.

        Args:
            display: It has a browser.

        Returns:
            What a page would be told: "ANGLE (NVIDIA, …)". None: there is no WebGL, or it cannot be asked.
        """
        return await self._ask_blank_page(display, ready=False)

    async def make_ready(self, display: Display) -> str | None:
        """Does for a display that waits for work what a recording would have to wait for.

        Its browser is connected to and has a process for the page that is to come. Nobody may wait for it, or have its
        page, which is led elsewhere for a moment.

        Args:
            display: It has a browser.

        Returns:
            What renders WebGL; see `rendering`.
        """
        return await self._ask_blank_page(display, ready=True)

    async def _ask_blank_page(self, display: Display, *, ready: bool) -> str | None:
        endpoint = display.browser
        if endpoint is None:
            return None
        try:
            connection = await self.connect(endpoint)
        except PageFault:
            return None
        kept = False
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT.total_seconds()):
                page = connection.browser.contexts[0].pages[0]
                session = await page.context.new_cdp_session(page)
                await fill_display(session, display)
                # Not `page.evaluate`, which would count as a user's gesture.
                answer = await session.send("Runtime.evaluate", {"expression": _RENDERER, "returnByValue": True})
                if ready:
                    await ready_blank_page(page, session)
                    await session.detach()
                    self._keep(endpoint, page, connection)
                    kept = True
            value = answer["result"].get("value")
            return value if isinstance(value, str) else None
        except (Error, TimeoutError, IndexError, PageFault):
            return None
        finally:
            if not kept:
                await connection.close()

    def _keep(self, endpoint: BrowserEndpoint, page: Page, connection: Connection) -> None:
        """Keeps a connection for the page that is to come, as long as its browser lives.

        A browser whose blank page crashes is ended: it would show no other, and nobody would see that.
        """

        def lost() -> None:
            if self._ready.get(endpoint.url) is connection:
                del self._ready[endpoint.url]
                ending = asyncio.get_running_loop().create_task(connection.end_browser())
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)

        self._ready[endpoint.url] = connection
        connection.browser.once("disconnected", lambda _: lost())
        page.once("crash", lambda _: lost())

    @asynccontextmanager
    async def own_page(self, display: Display) -> AsyncIterator[Callable[[str], Awaitable[None]]]:
        """Lends the page of a display for what is the agent's own: gives what shows an HTML document in it.

        Raises:
            PageFault: BROWSER_FAILED, also while it is lent.
        """
        assert display.browser is not None
        connection = await self.connect(display.browser)

        async def show(document: str) -> None:
            page = connection.browser.contexts[0].pages[0]
            await page.goto("about:blank")
            await page.set_content(document)

        try:
            yield show
        except (Error, IndexError) as error:
            told = str(error).partition("\n")[0]
            raise PageFault("BROWSER_FAILED", f"Cannot drive {display.browser.name}: {told}. Try again.") from error
        finally:
            await connection.close()

    async def end(self, endpoint: BrowserEndpoint) -> None:
        """Ends a browser. One that does not end goes with its display."""
        with suppress(PageFault):
            await (await self.connect(endpoint)).end_browser()

    async def connect(self, endpoint: BrowserEndpoint) -> Connection:
        """Connects to a browser, or gives the connection that was kept for that.

        Raises:
            PageFault: BROWSER_FAILED.
        """
        ready = self._ready.pop(endpoint.url, None)
        if ready is not None:
            if await ready.answers(_PING_TIMEOUT):
                return ready
            if not await self._drop_if_dead():
                await ready.close()
        problem = ""
        for _ in range(2):
            try:
                async with asyncio.timeout(_START_TIMEOUT.total_seconds()):
                    playwright = await self._running()
                # Ours besides its own: a driver that hangs keeps no time.
                async with asyncio.timeout((_CONNECT_TIMEOUT + _PING_TIMEOUT).total_seconds()):
                    browser = await playwright.chromium.connect_over_cdp(
                        endpoint.url,
                        no_defaults=True,
                        is_local=True,
                        timeout=_CONNECT_TIMEOUT.total_seconds() * 1000,
                    )
                    return await Connection.over(browser)
            except (Error, OSError, TimeoutError) as error:
                problem = str(error).partition("\n")[0] or "what drives browsers does not answer"
                if not await self._drop_if_dead():
                    break
        raise PageFault(
            "BROWSER_FAILED", f"Cannot drive {endpoint.name}: {problem}. Try again; the display's log may say more."
        )

    async def close(self) -> None:
        """Ends the driver. Pages stay as they are."""
        async with self._starting:
            playwright, self._playwright = self._playwright, None
            if playwright is not None:
                await _stop(playwright)

    async def _running(self) -> Playwright:
        async with self._starting:
            if self._playwright is None:
                self._playwright = await async_playwright().start()
                _keep_faults_apart(self._playwright)
                self._driver = await asyncio.to_thread(_find_driver)
            return self._playwright

    async def _drop_if_dead(self) -> bool:
        """Forgets the driver when it does not answer, so that the next need starts another."""
        async with self._starting:
            if self._playwright is None:
                return True
            if await _answers(self._playwright):
                return False
            playwright, self._playwright = self._playwright, None
            if self._driver is not None:
                with suppress(psutil.Error):
                    self._driver.kill()
            await _stop(playwright)
            return True


def _keep_faults_apart(playwright: Playwright) -> None:
    """Has only told what goes wrong in a listener, Playwright's own ones included.

    It raises that in whatever call comes next, so one browser's trouble would be another's: when connecting to one is
    called off at the wrong moment, its end is such a fault. Playwright has no setting for that, so if its inside is
    different one day, what it raises is raised.
    """
    connection = getattr(getattr(playwright, "_impl_obj", None), "_connection", None)
    if connection is not None:
        connection._on_event_listener_error = _tell_fault


def _tell_fault(error: BaseException) -> None:
    _LOG.warning("What drives browsers has made a mistake", exc_info=error)


def _find_driver() -> psutil.Process | None:
    """Finds the driver's process among our children: Playwright does not tell it."""
    for child in reversed(psutil.Process().children()):
        with suppress(psutil.Error):
            if _DRIVER_ARGUMENT in child.cmdline():
                return child
    return None


async def _answers(playwright: Playwright) -> bool:
    try:
        async with asyncio.timeout(_PING_TIMEOUT.total_seconds()):
            context = await playwright.request.new_context()
            await context.dispose()
    except (Error, OSError, TimeoutError):
        return False
    return True


async def _stop(playwright: Playwright) -> None:
    with suppress(Error, OSError, TimeoutError):
        async with asyncio.timeout(_STOP_TIMEOUT.total_seconds()):
            await playwright.stop()
