"""What happens in a page: told by Playwright and DevTools, kept as facts that may be awaited, logged, and answered."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from playwright.async_api import Browser, CDPSession, ConsoleMessage, Dialog, Error, Page, Request

from agents.browsers import page_script
from agents.browsers.page import PageEnd, PageFigures

if TYPE_CHECKING:
    from agents.browsers.page_log import PageLog

_DIALOGS = ("alert", "confirm", "prompt")
_ACCEPTED_DIALOGS = ("alert", "beforeunload")


class PageEvents:
    """The facts about one page. They only ever become true, whoever tells of them how often."""

    def __init__(self, log: PageLog, *, end_signal: str, start_signal: str) -> None:
        """Knows nothing yet.

        Args:
            log: Where everything is written.
            end_signal: Console message that ends the page.
            start_signal: Console message that opens the gate.
        """
        self.end: PageEnd | None = None
        """Why the page is done. None: it is not."""
        self.lost = False
        """Whether the connection, or the page, has gone, and it is to be found out which."""
        self.closed = False
        """Whether the browser has told that the page is closed."""
        self.told: set[str] = set()
        """What the page's script has told."""
        self.idle = False
        """Whether nothing was under way on the network for half a second."""
        self.signalled = False
        """Whether the start signal was given."""
        self.asked_url: str | None = None
        """What was asked for last in place of the page: where its redirects have led. None: nothing yet."""
        self.status: int | None = None
        """HTTP status of the last answer in place of the page. None: there is none yet."""
        self._log = log
        self._end_signal = end_signal
        self._start_signal = start_signal
        self._news = asyncio.Event()
        self._page: Page | None = None
        self._dialogs = self._popups = self._downloads = 0

    def listen(self, browser: Browser, page: Page, session: CDPSession, control: CDPSession) -> None:
        """Listens to a page from now on, and to no other any more.

        Args:
            browser: Connected.
            page: The one that is recorded.
            session: Of the page, before its domains are enabled.
            control: Of the browser.
        """
        self._page = page
        self.lost = self.closed = False
        browser.on("disconnected", lambda _: self._lose(page))
        page.on("close", lambda _: self._lose(page))
        page.on("crash", lambda _: self._crash(page))
        page.on("console", self._console)
        page.on("pageerror", lambda error: self._log.write("uncaught error", str(error)))
        page.on("requestfailed", self._failed_request)
        page.on("dialog", self._dialog)
        page.context.on("page", self._popup)
        session.on("Inspector.detached", self._detached)
        session.on("Page.windowOpen", self._window_opened)
        session.on("Network.requestWillBeSent", self._asked)
        session.on("Network.responseReceived", self._answered)
        session.on("Page.lifecycleEvent", self._lifecycle)
        session.on("Runtime.consoleAPICalled", self._signal)
        session.on("Runtime.bindingCalled", self._told)
        control.on("Browser.downloadWillBegin", self._download)

    def forget(self) -> None:
        """Forgets what was heard: it was another document's that says it again to whoever connects."""
        if self.end in (PageEnd.SIGNAL, PageEnd.CLOSED):
            self.end = None
        self.told.clear()
        self.idle = self.signalled = False
        self.asked_url = self.status = None

    def stop(self) -> None:
        """Hears nothing any more: what comes now is of our own doing."""
        self._page = None

    async def news(self) -> None:
        """Awaits that anything is new."""
        await self._news.wait()
        self._news.clear()

    def finish(self, end: PageEnd) -> None:
        """Notes why the page is done; the first reason stays."""
        if self.end is None:
            self.end = end
            self._log.write("page", f"ended: {end}")
        self._news.set()

    def lose(self) -> None:
        """Notes that the connection does not answer any more."""
        self.lost = True
        self._news.set()

    def figures(self) -> PageFigures:
        """Tells what was counted."""
        return PageFigures(
            dismissed_dialogs=self._dialogs, closed_popups=self._popups, cancelled_downloads=self._downloads
        )

    def _lose(self, page: Page) -> None:
        if page is self._page:
            self.lose()

    def _crash(self, page: Page) -> None:
        if page is self._page:
            self.finish(PageEnd.CRASHED)

    def _detached(self, event: dict[str, Any]) -> None:
        # When a browser is killed it comes to no such farewell.
        self._log.write("page", f"closed: {event.get('reason')}")
        self.closed = True

    def _console(self, message: ConsoleMessage) -> None:
        place = message.location
        self._log.write(f"console {message.type}", f"{message.text} ({place['url']}:{place['lineNumber'] + 1})")
        if self._log.is_full and self._page is not None:
            # A page that writes without end is not to keep the agent busy with it.
            self._page.remove_listener("console", self._console)

    def _signal(self, event: dict[str, Any]) -> None:
        arguments = event.get("args", [])
        word = arguments[0].get("value") if len(arguments) == 1 else None
        if word == self._start_signal:
            self.signalled = True
            self._news.set()
        if word == self._end_signal:
            self.finish(PageEnd.SIGNAL)
        elif word == page_script.CLOSED:
            self.finish(PageEnd.CLOSED)

    def _told(self, event: dict[str, Any]) -> None:
        if event["name"] == page_script.BINDING:
            self.told.add(event["payload"])
            self._news.set()
        elif event["name"] == page_script.QUIET_BINDING:
            self._quieted(event["payload"])

    def _quieted(self, payload: str) -> None:
        """Hears of something that the quiet script has kept from the screen. The page may have made it up."""
        try:
            kind, text = json.loads(payload)
        except (ValueError, TypeError):
            return
        if kind in _DIALOGS:
            self._dialogs += 1
        self._log.write("dialog" if kind in _DIALOGS else "blocked", f"{kind}: {text}")

    def _lifecycle(self, event: dict[str, Any]) -> None:
        if event["name"] == "init":
            self.idle = False
        elif event["name"] == "networkIdle":
            self.idle = True
            self._news.set()

    def _asked(self, event: dict[str, Any]) -> None:
        if event.get("type") == "Document" and event["requestId"] == event.get("loaderId"):
            self.asked_url = event["request"]["url"]

    def _answered(self, event: dict[str, Any]) -> None:
        if event.get("type") == "Document" and event["requestId"] == event.get("loaderId"):
            self.status = event["response"]["status"]

    def _failed_request(self, request: Request) -> None:
        self._log.write("request failed", f"{request.method} {request.url}: {request.failure}")

    async def _dialog(self, dialog: Dialog) -> None:
        self._dialogs += 1
        self._log.write("dialog", f"{dialog.type}: {dialog.message}")
        with suppress(Error):  # It, or its page, has gone meanwhile.
            await (dialog.accept() if dialog.type in _ACCEPTED_DIALOGS else dialog.dismiss())

    def _window_opened(self, event: dict[str, Any]) -> None:
        self._popups += 1
        self._log.write("popup", str(event["url"]))

    async def _popup(self, popup: Page) -> None:
        with suppress(Error):  # It has closed itself.
            await popup.close()

    def _download(self, event: dict[str, Any]) -> None:
        self._downloads += 1
        self._log.write("download", f"{event['suggestedFilename']} from {event['url']}")
