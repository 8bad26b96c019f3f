"""A page that is to be recorded, as whoever directs the recording sees it.

`PageDriver` is implemented over CDP with Playwright. A driver can be made anew for a page that is open already, by a
later agent, and then knows what the page said meanwhile: the page itself remembers its signals.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path


class PageEnd(StrEnum):
    """Why a page is done."""

    SIGNAL = "signal"
    """It wrote its end signal to the console."""
    CLOSED = "closed"
    """It closed itself."""
    CRASHED = "crashed"
    """Its renderer crashed, or was killed."""
    BROWSER_GONE = "browser_gone"
    """The browser ended, or was killed."""


class PageFault(Exception):
    """A page cannot be opened, or did not pass its gate."""

    def __init__(self, reason: str, message: str) -> None:
        """Makes the exception.

        Args:
            reason: Stable name: "PAGE_NOT_ALLOWED", "PAGE_UNREACHABLE", "PAGE_HTTP_ERROR", "PAGE_CERTIFICATE",
                "PAGE_CRASHED", "PAGE_CLOSED", "PAGE_SETTING_REFUSED", "GATE_TIMEOUT" or "BROWSER_FAILED".
            message: "Cannot X: Y. Try Z." Without secrets.
        """
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFigures:
    """What is known of a page."""

    renderer: str | None = None
    """What renders WebGL, as the page is told. None: not known."""
    dismissed_dialogs: int = 0
    closed_popups: int = 0
    cancelled_downloads: int = 0


class PageDriver(Protocol):
    """Drives one page.

    MUST write every console message, dialog, failed request, popup and download to the console log, bounded. MUST keep
    going, and tell it by `ended`, whatever the page does. MUST NOT end the browser: the display's end does that.
    """

    @property
    def is_over(self) -> bool:
        """Whether it has given its end signal: there is nothing more to record."""
        ...

    async def open(self) -> timedelta:
        """Sets the page up as asked and navigates.

        Returns:
            How long it took until the server's answer was there.

        Raises:
            PageFault: When it may not, or cannot, be opened.
        """
        ...

    async def pass_gate(self) -> timedelta:
        """Awaits the start gate; `open` was called before.

        Returns:
            How long it took from the opening on.

        Raises:
            PageFault: GATE_TIMEOUT; the page crashed or closed itself meanwhile.
        """
        ...

    async def ended(self) -> PageEnd:
        """Awaits that the page is done. May be called again and gives the same."""
        ...

    async def save_screenshot(self, path: Path) -> None:
        """Writes a PNG of the page as it is, if it still can; a page that cannot be seen leaves no file."""
        ...

    def figures(self) -> PageFigures:
        """Tells what is known of the page now."""
        ...

    async def close(self) -> None:
        """Lets go of the page, which stays as it is."""
        ...
