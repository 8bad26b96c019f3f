"""Takes hold of the kiosk's page: connects to it, listens to it, and tells it its settings."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from playwright.async_api import CDPSession, Error, Page

from agents.browsers import page_script
from agents.browsers.blank_page import BLANK
from agents.browsers.kiosk_window import fill_display
from agents.browsers.own_origin import OwnOriginHeaders
from agents.browsers.page import PageFault
from agents.browsers.page_settings import Command, cookie_command, emulation_commands
from agents.browsers.screen_probe import ScreenProbe, ScreenProbeError, open_probe
from agents.pipelines.recording import ColorScheme, GateKind

if TYPE_CHECKING:
    from agents.browsers.connection import Connection
    from agents.browsers.page_events import PageEvents
    from agents.browsers.page_log import PageLog
    from agents.displays.display import Display
    from agents.pipelines.recording import PageSource, StartGate

_MARK_PIXELS = 4
_BLANK_GOES_WITHIN_S = 0.2
"""A page may well have the blank page's colour in its corner; then it is looked for otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A connection to a page."""

    connection: Connection
    """To its browser."""
    page: Page
    """The one that is recorded."""
    session: CDPSession
    """Of the page."""
    in_place_of_blank: bool = False
    """Whether the screen showed, before the page was opened, a blank page that can be told from it."""

    async def shown(self, display: Display, *, painted: bool) -> None:
        """Awaits that what is in the page now is on the screen.

        Args:
            display: Where it is.
            painted: Whether the browser has told that it was painted. That was true of the page, but not of the screen,
                which may show the blank page still; when that has gone, it is true of both.

        Raises:
            ScreenProbeError: When the screen cannot be read.
            Error: When the browser cannot lay a mark.
        """
        if painted and self.in_place_of_blank and await _blank_goes(display):
            return
        async with await open_probe(display) as screen:
            await self._see_mark(screen)

    async def _see_mark(self, screen: ScreenProbe) -> None:
        """Lays a mark over a corner of the page, as DevTools marks elements, sees it on the screen, and takes it off.

        What was in the page before the mark is seen with it.
        """
        mark = (secrets.randbelow(256), secrets.randbelow(256), secrets.randbelow(256))
        colour = dict(zip("rgb", mark, strict=True))
        rectangle = {"x": 0, "y": 0, "width": _MARK_PIXELS, "height": _MARK_PIXELS, "color": {**colour, "a": 1}}
        await asyncio.gather(
            self.session.send("DOM.enable"),
            self.session.send("Overlay.enable"),
            self.session.send("Overlay.highlightRect", rectangle),
        )
        try:
            await screen.until(mark, there=True)
        finally:
            await self.session.send("Overlay.hideHighlight")
        await screen.until(mark, there=False)
        await asyncio.gather(self.session.send("Overlay.disable"), self.session.send("DOM.disable"))


async def attach_to_page(
    connection: Connection,
    display: Display,
    source: PageSource,
    gate: StartGate | None,
    *,
    events: PageEvents,
    log: PageLog,
) -> Attachment:
    """Attaches to the page of a connected browser, and closes every other.

    Args:
        connection: To the browser.
        display: Where it is shown.
        source: What it is told of its viewer.
        gate: What its script looks for. None: the page is open already, and is only told again what it knows.
        events: What happens in it from now on, and which console messages there were.
        log: For requests that fail.

    Raises:
        PageFault: BROWSER_FAILED, when it does not fill the display; PAGE_SETTING_REFUSED for its init script.
        Error: When the browser does not do as it is told.
        IndexError: When there is no page.
    """
    page = connection.browser.contexts[0].pages[0]
    session = await page.context.new_cdp_session(page)
    attachment = Attachment(connection=connection, page=page, session=session)
    events.listen(connection, page, session)
    if gate is None:
        await _clear_away(attachment)
    commands = [*_listening(gate), *emulation_commands(source, display, connection.user_agent)]
    if gate is not None and source.cookies:
        commands.append(cookie_command(source))
    # Side by side, in this order: each would take a round trip.
    await asyncio.gather(
        connection.control.send("Browser.setDownloadBehavior", {"behavior": "deny", "eventsEnabled": True}),
        *(session.send(method, parameters) for method, parameters in commands),
        page.add_init_script(page_script.quiet_script(events.signals)),
        *([] if source.show_scrollbars else [page.add_init_script(page_script.SCROLLBAR_SCRIPT)]),
    )
    if source.init_script is not None:
        if gate is not None:
            await _require_compiling(session, source.init_script)
        await page.add_init_script(source.init_script)
    if source.color_scheme is ColorScheme.DARK:
        await page.emulate_media(color_scheme="dark")
    await OwnOriginHeaders(source, session, log).start()
    if gate is not None:
        await fill_display(session, display, scale=source.device_scale_factor)
        if gate.kind is GateKind.FIRST_CONTENTFUL_PAINT:
            return replace(attachment, in_place_of_blank=await _shows_blank(display))
    return attachment


async def _require_compiling(session: CDPSession, script: str) -> None:
    """Makes sure that a script is one. The browser would leave out another without a word, at each page.

    What is wrong with it is not repeated: it may have secrets.
    """
    # The same function as Playwright makes of it, so that what may stand in it is the same.
    tried = {"expression": f"(() => {{\n{script}\n}})();", "sourceURL": "", "persistScript": False}
    mistake = (await session.send("Runtime.compileScript", tried)).get("exceptionDetails")
    if mistake is not None:
        # Lines count from 0, and the first is the function's.
        problem = f"its init_script has a syntax error in line {mistake['lineNumber']}"
        raise PageFault("PAGE_SETTING_REFUSED", f"Cannot open the page: {problem}. Try it in a browser's console.")


async def _blank_goes(display: Display) -> bool:
    """Tells whether the blank page goes from the screen in a moment. What was cut off is asked nothing more."""
    async with await open_probe(display) as screen:
        with suppress(TimeoutError):
            async with asyncio.timeout(_BLANK_GOES_WITHIN_S):
                await screen.until(BLANK, there=False)
                return True
    return False


async def _shows_blank(display: Display) -> bool:
    with suppress(ScreenProbeError):
        async with await open_probe(display) as screen:
            return await screen.pixel(0, 0) == BLANK
    return False


async def _clear_away(attachment: Attachment) -> None:
    """Removes what came up while nobody was there: a dialog, windows."""
    with suppress(Error):  # There is none, as nearly always.
        await attachment.session.send("Page.handleJavaScriptDialog", {"accept": True})
    for other in attachment.page.context.pages[1:]:
        await other.close()


def _listening(gate: StartGate | None) -> list[Command]:
    commands: list[Command] = [
        ("Page.enable", {}),
        ("Page.setLifecycleEventsEnabled", {"enabled": True}),
        ("Network.enable", {}),
        ("Runtime.enable", {}),
        # Questions for a security key go to a device that there is not, and never come up.
        ("WebAuthn.enable", {"enableUI": False}),
        ("Runtime.addBinding", {"name": page_script.QUIET_BINDING}),
    ]
    script = None if gate is None else page_script.gate_script(gate)
    if script is not None:
        binding = {"name": page_script.BINDING, "executionContextName": page_script.WORLD}
        adding = {"source": script, "worldName": page_script.WORLD}
        commands += [("Runtime.addBinding", binding), ("Page.addScriptToEvaluateOnNewDocument", adding)]
    return commands
