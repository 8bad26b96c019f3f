"""Readies the blank page of a browser that waits for the page to come.

Chromium begins a process for the page of each site, which takes it some hundredths of a second, and keeps a spare one
ready once it has shown the page of a site; a blank page is of none. So it is shown one of a host that cannot be. We
answer for that, nothing is asked of the network, and the browser forgets it again.

The blank page gets a colour that nobody tells from white: so it is seen on the screen when another page has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, Page, Route

    from agents.browsers.screen_probe import Colour

BLANK: Colour = (254, 255, 254)
"""Colour of a blank page that was readied."""
_NOWHERE = "http://nowhere.invalid/"
"""By RFC 6761 there is no such host."""
_COLOUR = f"document.documentElement.style.background = 'rgb{BLANK}'"


async def ready_blank_page(page: Page, session: CDPSession) -> None:
    """Leaves a blank page of the colour `BLANK`, without a history, in a browser that has a spare renderer process.

    Args:
        page: Blank.
        session: Of the page.

    Raises:
        Error: When the browser does not do as it is told.
    """
    await page.route(_NOWHERE, _answer)
    await page.goto(_NOWHERE)
    await page.unroute(_NOWHERE)
    await page.goto("about:blank")
    await session.send("Page.resetNavigationHistory")
    await session.send("Runtime.evaluate", {"expression": _COLOUR})


async def _answer(route: Route) -> None:
    await route.fulfill(content_type="text/html", body="")
