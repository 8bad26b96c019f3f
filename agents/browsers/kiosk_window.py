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
manager while that is still taking the window over."""

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
    telling = _Telling(session)
    for look in range(_POLLS):
        answer = await session.send("Runtime.evaluate", ask)
        width, height = (round(pixels) for pixels in answer["result"]["value"])
        if abs(width - display.width) <= scale and abs(height - display.height) <= scale:
            return
        await telling.look(look)
        await asyncio.sleep(_POLL_S)
    raise PageFault(
        "BROWSER_FAILED",
        f"Cannot open the page: it is {width}x{height} on a display of {display.width}x{display.height}, and its "
        f"window takes itself for {telling.window_state}. Try again.",
    )


class _Telling:
    """Tells a window to fill its screen, ever less often: on a busy machine it may be about to do as it was told."""

    def __init__(self, session: CDPSession) -> None:
        self._session = session
        self._told = 0
        self._patience = _PATIENCE
        self.window_state = "unknown"
        """As the browser told it last."""

    async def look(self, look: int) -> None:
        """Tells it when that is due.

        Args:
            look: Number of the look, from 0, at which the page did not fill the screen.
        """
        if look - self._told < self._patience:
            return
        self._told, self._patience = look, 2 * self._patience
        window_id = await self._look_at_window()
        if self.window_state == "fullscreen":
            # It takes itself for filling the screen already, and would not hear it before it is small.
            await self._tell(window_id, "normal")
            for _ in range(_PATIENCE):
                await self._look_at_window()
                if self.window_state != "fullscreen":
                    break
                await asyncio.sleep(_POLL_S)
        await self._tell(window_id, "fullscreen")

    async def _look_at_window(self) -> int:
        window = await self._session.send("Browser.getWindowForTarget")
        self.window_state = window["bounds"].get("windowState", "normal")
        return int(window["windowId"])

    async def _tell(self, window_id: int, state: str) -> None:
        bounds = {"windowId": window_id, "bounds": {"windowState": state}}
        await self._session.send("Browser.setWindowBounds", bounds)
