"""Drives the page of a display's browser, over CDP with Playwright, on the kiosk window that is there already.

What a page may do, and what becomes of it:

| the page, or its server | outcome |
|---|---|
| URL of another scheme, malformed, too long | PAGE_NOT_ALLOWED before anything is asked |
| redirects or leads to another scheme | PAGE_NOT_ALLOWED; later in its life the navigation just does not happen |
| host with an address that is not public | PAGE_NOT_ALLOWED, unless the operator allows; a subresource just fails |
| host not found, connection refused or broken off, no answer within the gate's timeout | PAGE_UNREACHABLE |
| redirects in a circle; a download, or nothing, instead of a page | PAGE_UNREACHABLE |
| status of 400 or above | PAGE_HTTP_ERROR, unless accepted |
| locale, time zone or cookie that it does not take; an init script that does not compile | PAGE_SETTING_REFUSED |
| certificate not valid | PAGE_CERTIFICATE, unless ignored |
| never finishes loading, 50 MB of it | recorded: the gate decides, not the load |
| gate not passed in time; a selector that is no CSS | GATE_TIMEOUT |
| renderer crashes or is killed | PAGE_CRASHED; while it is recorded `ended` gives CRASHED |
| closes itself | PAGE_CLOSED; `ended` gives CLOSED; it stays on the screen |
| browser ends or is killed, or answers nothing for 30 s | BROWSER_FAILED; `ended` gives BROWSER_GONE |
| WebGL context lost, GPU process crashes | the page goes on |
| alert, confirm, prompt | never shown; alert accepted, others dismissed, at once; counted and logged |
| beforeunload | accepted: the page may leave |
| leads to mailto: or another program's scheme | the navigation does not happen; logged |
| opens a window | blocked by the browser, or closed; counted and logged |
| download | cancelled; counted and logged |
| asks for a permission, a password, a security key, a translation, to print | refused without a word |
| console message that is the end signal | `ended` gives SIGNAL; also one from before a new agent came |

The page's own messages are read in a DevTools session, not by a script inside it: Chromium keeps the last thousand and
tells them to whoever connects, so that an end signal which came while no agent was there is not lost.
"""

from __future__ import annotations

import asyncio
from base64 import b64decode
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.async_api import Error

from agents.browsers import page_script
from agents.browsers.devtools import NoBrowserError, SilentBrowserError, browser_name
from agents.browsers.egress_proxy import REFUSAL_HEADER
from agents.browsers.page import PageEnd, PageFault, PageFigures
from agents.browsers.page_attachment import Attachment, attach_to_page
from agents.browsers.page_errors import fault, navigation_fault, net_error, refusal_fault
from agents.browsers.page_events import PageEvents
from agents.browsers.page_log import PageLog
from agents.browsers.page_url import guard_page_url, page_secrets, plain_url, shown_url
from agents.browsers.proxy_verdict import proxy_verdict
from agents.browsers.screen_probe import ScreenProbeError
from agents.pipelines.recording import GateKind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agents.browsers.connection import Connection
    from agents.displays.display import BrowserEndpoint, Display
    from agents.pipelines.recording import PageSource, StartGate, StopRules
    from gpu_balancer.runtime.clock import Clock

_HEARTBEAT_S = 2.0
_ANSWER_TIMEOUT = timedelta(seconds=5)
_SILENT_FOR_S = 30.0
"""A browser that answers nothing for so long will not come back; one that hung for less is recorded on."""
_ATTACH_TIMEOUT = timedelta(seconds=20)
_SILENT = "what drives browsers does not answer"
_HTTP_ERROR = 400

_REFUSED_SETTINGS = {
    "Emulation.setTimezoneOverride": "time zone",
    "Emulation.setLocaleOverride": "locale",
    "Network.setCookies": "cookies",
}
"""Methods whose refusal is the client's mistake: no other device would take it either."""
_FAULTS = {
    PageEnd.CRASHED: ("PAGE_CRASHED", "it crashed"),
    PageEnd.CLOSED: ("PAGE_CLOSED", "it closed itself"),
    PageEnd.BROWSER_GONE: ("BROWSER_FAILED", "the browser ended"),
}


class ChromiumPage:
    """A `PageDriver`. Made by `BrowserHub.page`, which attaches it."""

    def __init__(
        self,
        display: Display,
        source: PageSource,
        gate: StartGate,
        rules: StopRules,
        *,
        log: Path,
        connect: Callable[[BrowserEndpoint], Awaitable[Connection]],
        schemes: tuple[str, ...],
        clock: Clock,
    ) -> None:
        """Knows what it is to do, and is attached to nothing."""
        self._display = display
        self._source = source
        self._gate = gate
        self._connect = connect
        self._schemes = schemes
        self._clock = clock
        self._log = PageLog(log, secrets=page_secrets(source), clock=clock)
        self._events = PageEvents(self._log, end_signal=rules.end_signal, start_signal=gate.signal)
        self._attachment: Attachment | None = None
        self._opening_s = 0.0
        self._shown = shown_url(source.url)

    async def attach(self, *, opened: bool) -> None:
        """Connects to the browser, listens to its page, and tells it its settings.

        Args:
            opened: Whether the page is open already.

        Raises:
            PageFault: BROWSER_FAILED; for a page that is not open PAGE_NOT_ALLOWED too.
        """
        if not opened:
            guard_page_url(self._source.url, self._schemes)
        endpoint = self._display.browser
        if endpoint is None:
            raise PageFault("BROWSER_FAILED", f"Cannot open {self._shown}: its display has no browser. Try again.")
        connection, attached = await self._connect(endpoint), None
        try:
            gate = None if opened else self._gate
            async with asyncio.timeout(_ATTACH_TIMEOUT.total_seconds()):
                self._attachment = attached = await attach_to_page(
                    connection, self._display, self._source, gate, events=self._events, log=self._log
                )
        except TimeoutError:
            raise PageFault("BROWSER_FAILED", f"Cannot drive {endpoint.name}: {_SILENT}. Try again.") from None
        except (Error, IndexError) as error:
            problem = str(error).partition("\n")[0] or "it has no page"
            wished = next((wish for method, wish in _REFUSED_SETTINGS.items() if method in problem), None)
            if wished is not None:
                told = f"Cannot open {self._shown}: the browser refuses its {wished}. Try others."
                raise PageFault("PAGE_SETTING_REFUSED", told) from error
            raise PageFault("BROWSER_FAILED", f"Cannot drive {endpoint.name}: {problem}. Try again.") from error
        finally:
            if attached is None:
                await connection.close()

    async def attach_again(self) -> None:
        """Connects to a page that is open. When that fails, as while the page goes elsewhere, `ended` tries again."""
        self._events.stop()
        try:
            await self.attach(opened=True)
        except PageFault as error:
            self._log.write("page", str(error))
            self._events.lose()

    async def open(self) -> timedelta:
        """Navigates; everything else was set up when it was attached. See `PageDriver`."""
        page = self._attached().page
        self._events.forget()
        self._opening_s = self._clock.monotonic_s()
        try:
            async with asyncio.timeout((self._gate.timeout + _ANSWER_TIMEOUT).total_seconds()):
                response = await page.goto(
                    plain_url(self._source.url), wait_until="commit", timeout=self._gate.timeout.total_seconds() * 1000
                )
        except TimeoutError:
            raise fault("BROWSER_FAILED", self._shown, _SILENT) from None
        except Error as error:
            # That of an answer without a body, for which the browser shows a page of its own.
            if net_error(str(error)) != "ERR_HTTP_RESPONSE_CODE_FAILURE":
                raise await self._opening_fault(error) from error
            self._require_success(self._events.status or _HTTP_ERROR)
        else:
            if response is not None:
                refused = refusal_fault(self._shown, response.headers.get(REFUSAL_HEADER.lower(), ""))
                if refused is not None:
                    raise refused
                self._require_success(response.status)
        return self._since_opening()

    async def pass_gate(self) -> timedelta:
        """Awaits the start gate. See `PageDriver`."""
        if self._gate.kind is GateKind.IMMEDIATELY:
            return self._since_opening()
        try:
            async with asyncio.timeout((self._gate.timeout - self._since_opening()).total_seconds()):
                while not self._gate_is_open():
                    if self._events.lost:
                        await self._settle()
                    self._require_living()
                    await self._events.news()
                await self._attached().shown(self._display, painted=page_script.PAINTED in self._events.told)
        except TimeoutError:
            raise self._gate_fault(f"was not passed within {self._gate.timeout.total_seconds():g} s") from None
        except (Error, ScreenProbeError) as error:
            await self._settle()
            self._require_living()
            raise fault("BROWSER_FAILED", self._shown, f"it cannot be seen whether it is shown: {error}") from error
        return self._since_opening()

    @property
    def is_over(self) -> bool:
        """Whether it has given its end signal. See `PageDriver`."""
        return self._events.end is PageEnd.SIGNAL

    async def ended(self) -> PageEnd:
        """Awaits that the page is done. See `PageDriver`."""
        while self._events.end is None:
            if self._events.lost:
                await self._settle()
            try:
                async with asyncio.timeout(_HEARTBEAT_S):
                    await self._events.news()
            except TimeoutError:
                await self._ask_whether_connected()
        return self._events.end

    async def save_screenshot(self, path: Path) -> None:
        """Writes a PNG of the page as it is. See `PageDriver`."""
        if self._attachment is None:
            return
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(_ANSWER_TIMEOUT.total_seconds()):
                # Not by Playwright's own command, which lays styles over the page while it is recorded.
                answer = await self._attachment.session.send("Page.captureScreenshot", {"format": "png"})
            await asyncio.to_thread(path.write_bytes, b64decode(answer["data"]))

    def figures(self) -> PageFigures:
        """Tells what is known of the page now. See `PageDriver`."""
        return self._events.figures()

    async def close(self) -> None:
        """Lets go of the page, which stays as it is. See `PageDriver`."""
        attachment, self._attachment = self._attachment, None
        self._events.stop()
        if attachment is not None:
            await attachment.connection.close()
        self._log.close()

    def _attached(self) -> Attachment:
        if self._attachment is None:
            raise PageFault("BROWSER_FAILED", f"Cannot open {self._shown}: its browser was let go. Try again.")
        return self._attachment

    def _since_opening(self) -> timedelta:
        return timedelta(seconds=self._clock.monotonic_s() - self._opening_s)

    def _require_success(self, status: int) -> None:
        if status >= _HTTP_ERROR and not self._source.accept_http_errors:
            raise fault("PAGE_HTTP_ERROR", self._shown, f"its server answers {status}")

    def _gate_is_open(self) -> bool:
        told = self._events.told
        if page_script.BAD_SELECTOR in told:
            raise self._gate_fault(f"can never be passed: {self._gate.selector!r} is no CSS selector")
        if self.is_over:
            # What there was to record is over, whatever the gate waits for.
            return True
        match self._gate.kind:
            case GateKind.FIRST_CONTENTFUL_PAINT:
                return page_script.PAINTED in told
            case GateKind.SELECTOR:
                return page_script.SELECTED in told
            case GateKind.NETWORK_IDLE:
                return self._events.idle
            case GateKind.CONSOLE_SIGNAL:
                return self._events.signalled
            case GateKind.IMMEDIATELY | GateKind.FIRST_WINDOW:
                return True

    def _require_living(self) -> None:
        """Makes sure that there is a page. One that has given its end signal is there all the same."""
        fault_ = self._end_fault()
        if fault_ is not None:
            raise fault_

    def _end_fault(self) -> PageFault | None:
        if self._events.end not in _FAULTS:
            return None
        reason, problem = _FAULTS[self._events.end]
        return fault(reason, self._shown, problem)

    def _gate_fault(self, problem: str) -> PageFault:
        gate = self._gate.kind.replace("_", " ")
        message = f"Cannot begin to record {self._shown}: its start gate ({gate}) {problem}."
        return PageFault("GATE_TIMEOUT", f"{message} Try another gate, or a longer timeout.")

    async def _opening_fault(self, error: Error) -> PageFault:
        """Says why the page could not be opened."""
        if self._events.lost:
            await self._settle()
        ended = self._end_fault()
        if ended is not None:
            return ended
        message = str(error)
        name = net_error(message)
        if name == "ERR_TUNNEL_CONNECTION_FAILED":
            # The browser keeps to itself what the proxy has answered.
            refusal = await proxy_verdict(Path(self._display.work), self._events.asked_url or self._source.url)
            refused = refusal_fault(self._shown, refusal or "")
            if refused is not None:
                return refused
        led_to = (self._events.asked_url or "").partition(":")[0]
        if led_to and led_to not in self._schemes:
            problem = f"it redirects to the scheme {led_to!r}, which is not recorded"
            return fault("PAGE_NOT_ALLOWED", self._shown, problem)
        if name is None and "Timeout" in message:
            # While it is still being asked the page answers to nothing, not even to a request for its picture.
            with suppress(Error):
                await self._attached().session.send("Page.stopLoading")
            problem = f"its server has not answered within {self._gate.timeout.total_seconds():g} s"
            return fault("PAGE_UNREACHABLE", self._shown, problem)
        return navigation_fault(self._shown, message)

    async def _ask_whether_connected(self) -> None:
        """Notices a driver that has crashed, which tells nobody."""
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT.total_seconds()):
                await self._attached().connection.control.send("Browser.getVersion")
        except (Error, TimeoutError):
            self._events.lose()

    async def _settle(self) -> None:
        """Finds out what has gone: the page, the browser, or only our connection, which is then made anew."""
        try:
            await self._await_browser()
        except NoBrowserError:
            self._events.finish(PageEnd.CLOSED if self._events.closed else PageEnd.BROWSER_GONE)
            return
        if self._events.closed:
            self._events.finish(PageEnd.CLOSED)
            return
        if self._attachment is not None:
            await self._attachment.connection.close()
        await self.attach_again()

    async def _await_browser(self) -> None:
        """Awaits an answer of a browser that may hang for a while.

        Raises:
            NoBrowserError: There is none, or it hung for too long.
        """
        endpoint, since_s = self._display.browser, self._clock.monotonic_s()
        if endpoint is None:
            raise NoBrowserError("there is none")
        while True:
            try:
                await browser_name(endpoint.url, _ANSWER_TIMEOUT)
                return
            except SilentBrowserError:
                if self._clock.monotonic_s() - since_s >= _SILENT_FOR_S:
                    raise
