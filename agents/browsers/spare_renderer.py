"""Has a browser keep a renderer process ready for the page that is to come.

Chromium begins a process for the page of each site, which takes it some hundredths of a second, and keeps a spare one
ready once it has shown the page of a site; a blank page is of none. So it is shown one of a host that cannot be. We
answer for that, nothing is asked of the network, and the browser forgets it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.async_api import CDPSession, Page, Route

_NOWHERE = "http://nowhere.invalid/"
"""By RFC 6761 there is no such host."""


async def keep_renderer_ready(page: Page, session: CDPSession) -> None:
    """Leaves a blank page, without a history, in a browser that has a spare renderer process.

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


async def _answer(route: Route) -> None:
    await route.fulfill(content_type="text/html", body="")
