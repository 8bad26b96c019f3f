"""What happens in a page: told by Playwright and DevTools, kept as facts that may be awaited, logged, and answered."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from playwright.async_api import CDPSession, Dialog, Error, Page, Request

from agents.browsers import page_script
from agents.browsers.flags import PROGRAM_URL
from agents.browsers.page import PageEnd, PageFigures

if TYPE_CHECKING:
    from agents.browsers.connection import Connection
    from agents.browsers.page_log import PageLog

_DIALOGS = ("alert", "confirm", "prompt")
_ACCEPTED_DIALOGS = ("alert", "beforeunload")
_IDLE_AFTER_S = 0.5


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
        self._since_ms = log.opened_ms
        self._unanswered: set[str] = set()
        self._idle_timer: asyncio.TimerHandle | None = None

    @property
    def signals(self) -> tuple[str, str]:
        """Console messages that mean something."""
        return self._start_signal, self._end_signal

    def listen(self, connection: Connection, page: Page, session: CDPSession) -> None:
        """Listens to a page from now on, and to no other any more.

        Args:
            connection: To the page's browser.
            page: The one that is recorded.
            session: Of the page, before its domains are enabled.
        """
        self._page = page
        self.lost = self.closed = False
        connection.browser.on("disconnected", lambda _: self._lose(page))
        page.on("close", lambda _: self._lose(page))
        page.on("crash", lambda _: self._crash(page))
        page.on("pageerror", lambda error: self._log.write("uncaught error", str(error)))
        page.on("requestfailed", self._failed_request)
        page.on("dialog", self._dialog)
        page.context.on("page", self._popup)
        session.on("Inspector.detached", self._detached)
        session.on("Page.windowOpen", self._window_opened)
        session.on("Network.requestWillBeSent", self._asked)
        session.on("Network.responseReceived", self._answered)
        for event in ("dataReceived", "loadingFinished", "loadingFailed"):
            session.on(f"Network.{event}", self._network_moved)
        session.on("Runtime.consoleAPICalled", self._said)
        session.on("Runtime.bindingCalled", self._told)
        connection.control.on("Browser.downloadWillBegin", self._download)

    def forget(self) -> None:
        """Forgets what was heard: it was another document's that says it again to whoever connects."""
        if self.end in (PageEnd.SIGNAL, PageEnd.CLOSED):
            self.end = None
        self.told.clear()
        self.idle = self.signalled = False
        self._unanswered.clear()
        self._watch_for_idleness()
        self.asked_url = self.status = None

    def stop(self) -> None:
        """Hears nothing any more: what comes now is of our own doing."""
        self._page = None
        if self._idle_timer is not None:
            self._idle_timer.cancel()

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

    def _said(self, event: dict[str, Any]) -> None:
        self._signal(event)
        # What was said before is told again to whoever connects, and stands in the log already.
        if not self._log.is_full and event.get("timestamp", 0.0) >= self._since_ms:
            words = " ".join(_word(argument) for argument in event.get("args", []))
            self._log.write(f"console {event.get('type')}", f"{words} ({_place(event)})")

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

    def _network_moved(self, event: dict[str, Any]) -> None:
        """Hears of anything on the network. Not by Chromium's own word for it being idle.

        To that a request whose body nobody reads, as with beacons, is under way for ever.
        """
        self._unanswered.discard(event["requestId"])
        self._watch_for_idleness()

    def _watch_for_idleness(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        self._idle_timer = asyncio.get_running_loop().call_later(_IDLE_AFTER_S, self._note_idleness)

    def _note_idleness(self) -> None:
        self._idle_timer = None
        if not self._unanswered:
            self.idle = True
            self._news.set()

    def _asked(self, event: dict[str, Any]) -> None:
        self._unanswered.add(event["requestId"])
        self._watch_for_idleness()
        if event.get("type") == "Document" and event["requestId"] == event.get("loaderId"):
            self.asked_url = event["request"]["url"]

    def _answered(self, event: dict[str, Any]) -> None:
        self._network_moved(event)
        if event.get("type") == "Document" and event["requestId"] == event.get("loaderId"):
            self.status = event["response"]["status"]

    def _failed_request(self, request: Request) -> None:
        if request.url != PROGRAM_URL:
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


def _word(argument: dict[str, Any]) -> str:
    """Gives one thing that was said as text."""
    if "value" in argument:
        value = argument["value"]
        return value if isinstance(value, str) else json.dumps(value)
    return str(argument.get("description") or argument.get("unserializableValue") or argument.get("type"))


def _place(event: dict[str, Any]) -> str:
    """Tells where in the page something was said."""
    frames = event.get("stackTrace", {}).get("callFrames", [])
    own = [frame for frame in frames if frame.get("functionName", "").rpartition(".")[2] != page_script.THROTTLE]
    return f"{own[0].get('url')}:{own[0].get('lineNumber', 0) + 1}" if own else "nowhere"
