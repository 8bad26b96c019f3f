"""Has the kiosk's window fill its display, which may have got its size just before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agents.browsers.page import PageFault

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

    from agents.displays.display import Display

NARROWEST_WINDOW = 500
"""Pixels. Chromium's windows are never narrower; a page that is to be is drawn at the left of one."""
_POLLS = 1000
_POLL_S = 0.01
_PATIENCE = 30
"""Looks after which the window is told again. About one start in ten loses the first telling: Chromium asks the window
manager while that is still taking the window over. Then twice as many each time: a busy machine may still be about to
do as it was told, and a new telling makes the window small first."""

_SIZE = "[innerWidth * devicePixelRatio, innerHeight * devicePixelRatio]"


async def fill_display(session: CDPSession, display: Display, *, scale: float = 1.0) -> None:
    """Awaits that the page fills the display.

    Args:
        session: Of the page.
        display: Where it is.
        scale: Device pixels per pixel of the page, by which sizes may be off.

    Raises:
        PageFault: BROWSER_FAILED, when it does not.
    """
    ask: dict[str, Any] = {"expression": _SIZE, "returnByValue": True}
    width = height = 0
    patience, told = _PATIENCE, 0
    for look in range(_POLLS):
        answer = await session.send("Runtime.evaluate", ask)
        width, height = (round(pixels) for pixels in answer["result"]["value"])
        if abs(width - display.width) <= scale and abs(height - display.height) <= scale:
            return
        if look - told == patience:
            await _tell_again(session)
            patience, told = 2 * patience, look
        await asyncio.sleep(_POLL_S)
    problem = f"its page is {width}x{height} on a display of {display.width}x{display.height}"
    raise PageFault("BROWSER_FAILED", f"Cannot open the page: {problem}. Try again.")


async def _tell_again(session: CDPSession) -> None:
    window = await session.send("Browser.getWindowForTarget")
    # Not at once: it takes itself for filling the screen already.
    for state in ("normal", "fullscreen"):
        bounds = {"windowId": window["windowId"], "bounds": {"windowState": state}}
        await session.send("Browser.setWindowBounds", bounds)
