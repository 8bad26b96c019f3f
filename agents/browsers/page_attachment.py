"""Takes hold of the kiosk's page: connects to it, listens to it, and tells it its settings."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from playwright.async_api import Browser, CDPSession, Error, Page

from agents.browsers import page_script
from agents.browsers.own_origin import OwnOriginHeaders
from agents.browsers.page import PageFault
from agents.browsers.page_settings import Command, cookie_command, emulation_commands
from agents.pipelines.recording import ColorScheme

if TYPE_CHECKING:
    from agents.browsers.page_events import PageEvents
    from agents.browsers.page_log import PageLog
    from agents.displays.display import Display
    from agents.pipelines.recording import PageSource, StartGate

_SIZE_POLLS = 300
_SIZE_POLL_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Attachment:
    """A connection to a page."""

    browser: Browser
    """The connection itself."""
    page: Page
    """The one that is recorded."""
    session: CDPSession
    """Of the page."""
    control: CDPSession
    """Of the browser."""

    async def presented(self) -> None:
        """Awaits that what is in the page now is on the screen."""
        tree = await self.session.send("Page.getFrameTree")
        world = {"frameId": tree["frameTree"]["frame"]["id"], "worldName": page_script.WORLD}
        context = await self.session.send("Page.createIsolatedWorld", world)
        waiting = {"expression": page_script.PRESENTED, "contextId": context["executionContextId"]}
        await self.session.send("Runtime.evaluate", {**waiting, "awaitPromise": True})


async def attach_to_page(
    browser: Browser,
    display: Display,
    source: PageSource,
    gate: StartGate | None,
    *,
    events: PageEvents,
    log: PageLog,
) -> Attachment:
    """Attaches to the page of a connected browser, and closes every other.

    Args:
        browser: Connected.
        display: Where it is shown.
        source: What it is told of its viewer.
        gate: What its script looks for. None: the page is open already, and is only told again what it knows.
        events: What happens in it from now on, and which console messages there were.
        log: For requests that fail.

    Raises:
        PageFault: BROWSER_FAILED, when it does not fill the display.
        Error: When the browser does not do as it is told.
        IndexError: When there is no page.
    """
    page = browser.contexts[0].pages[0]
    session = await page.context.new_cdp_session(page)
    control = await browser.new_browser_cdp_session()
    attachment = Attachment(browser=browser, page=page, session=session, control=control)
    events.listen(browser, page, session, control)
    if gate is None:
        await _clear_away(attachment)
    version = await control.send("Browser.getVersion")
    commands = [*_listening(gate), *emulation_commands(source, display, version["userAgent"])]
    if gate is not None and source.cookies:
        commands.append(cookie_command(source))
    # Side by side, in this order: each would take a round trip.
    await asyncio.gather(
        control.send("Browser.setDownloadBehavior", {"behavior": "deny", "eventsEnabled": True}),
        *(session.send(method, parameters) for method, parameters in commands),
        page.add_init_script(page_script.QUIET_SCRIPT),
    )
    if source.init_script is not None:
        await page.add_init_script(source.init_script)
    if source.color_scheme is ColorScheme.DARK:
        await page.emulate_media(color_scheme="dark")
    await OwnOriginHeaders(source, session, log).start()
    if gate is not None:
        await _fill_display(session, display, source)
    return attachment


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


async def _fill_display(session: CDPSession, display: Display, source: PageSource) -> None:
    """Awaits that the page fills the display, which may have got its size just before."""
    expression = "[innerWidth * devicePixelRatio, innerHeight * devicePixelRatio]"
    ask: dict[str, Any] = {"expression": expression, "returnByValue": True}
    width = height = 0
    for _ in range(_SIZE_POLLS):
        answer = await session.send("Runtime.evaluate", ask)
        width, height = (round(pixels) for pixels in answer["result"]["value"])
        slack = source.device_scale_factor  # Of a pixel of the page.
        if abs(width - display.width) <= slack and abs(height - display.height) <= slack:
            return
        await asyncio.sleep(_SIZE_POLL_S)
    problem = f"its page is {width}x{height} on a display of {display.width}x{display.height}"
    raise PageFault("BROWSER_FAILED", f"Cannot open the page: {problem}. Try again.")
