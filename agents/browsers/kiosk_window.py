"""Has the kiosk's window fill its display, which may have got its size just before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from agents.browsers.flags import USE_UP_PROGRAM
from agents.browsers.page import PageFault

if TYPE_CHECKING:
    from playwright.async_api import CDPSession

    from agents.displays.display import Display

NARROWEST_WINDOW = 500
"""Pixels. Chromium's windows are never narrower; a page that is to be is drawn at the left of one."""
_POLLS = 1000
_POLL_S = 0.01

_SIZE = "[innerWidth * devicePixelRatio, innerHeight * devicePixelRatio]"


async def fill_display(session: CDPSession, display: Display, *, scale: float = 1.0) -> None:
    """Awaits that the page fills the display, and has a start page do what it may do then.

    Args:
        session: Of the page.
        display: Where it is.
        scale: Device pixels per pixel of the page, by which sizes may be off.

    Raises:
        PageFault: BROWSER_FAILED, when it does not.
    """
    ask: dict[str, Any] = {"expression": _SIZE, "returnByValue": True}
    width = height = 0
    for _ in range(_POLLS):
        answer = await session.send("Runtime.evaluate", ask)
        width, height = (round(pixels) for pixels in answer["result"]["value"])
        if abs(width - display.width) <= scale and abs(height - display.height) <= scale:
            await session.send("Runtime.evaluate", {"expression": USE_UP_PROGRAM})
            return
        await asyncio.sleep(_POLL_S)
    raise PageFault(
        "BROWSER_FAILED",
        f"Cannot open the page: it is {width}x{height} on a display of {display.width}x{display.height}. Try again.",
    )
