"""A connection to a browser, over which its pages are driven."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from playwright.async_api import Error

if TYPE_CHECKING:
    from playwright.async_api import Browser, CDPSession

_CLOSE_TIMEOUT = timedelta(seconds=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """A connection to a browser."""

    browser: Browser
    """The connection itself."""
    control: CDPSession
    """Of the browser."""
    user_agent: str
    """What it tells servers that it is, unless it is told otherwise."""

    @classmethod
    async def over(cls, browser: Browser) -> Self:
        """Makes sure that a browser to which Playwright has connected answers.

        Raises:
            Error: When it does not.
        """
        control = await browser.new_browser_cdp_session()
        version = await control.send("Browser.getVersion")
        return cls(browser=browser, control=control, user_agent=version["userAgent"])

    async def answers(self, within: timedelta) -> bool:
        """Tells whether its browser answers now."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                await self.control.send("Browser.getVersion")
        except (Error, TimeoutError):
            return False
        return True

    async def end_browser(self) -> None:
        """Ends the browser. One that does not end goes with its display."""
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT.total_seconds()):
                await self.control.send("Browser.close")

    async def close(self) -> None:
        """Lets go of the browser, which runs on."""
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT.total_seconds()):
                await self.browser.close()
