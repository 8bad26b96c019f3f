"""Looks at the screen of a display that was made: whether it answers, another size, the windows on it."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.displays.x_client import XUnreachableError, ask

if TYPE_CHECKING:
    from agents.displays.display import Display
    from agents.displays.x_screen import XScreen, XWindow

AUTHORITY = "authority"
"""Name of an authority file."""
_FOLLOW_WITHIN = timedelta(milliseconds=500)


def own_authority(display_folder: Path) -> Path:
    """Gives the agent's own copy of a display's authority file.

    The other one belongs to the display's user, who could put a pipe in its place that never ends.
    """
    return display_folder / AUTHORITY


async def screen_size(display: Display, *, within: timedelta) -> tuple[int, int]:
    """Asks for width and height in pixels, and so whether the display answers.

    Raises:
        XUnreachableError: It does not in time.
    """
    return await ask(display.name, _authority(display), lambda screen: screen.size(), within=within)


async def resize_screen(display: Display, width: int, height: int, *, within: timedelta) -> None:
    """Gives the screen another size, and awaits that the windows which filled it fill it again.

    A program that does not follow is not waited for beyond half a second.

    Args:
        display: Which.
        width: Pixels, 1 up to those with which its server was started.
        height: Likewise.
        within: For the server's answers.

    Raises:
        XUnreachableError: The server does not answer in time, or refuses the size.
    """
    authority = _authority(display)
    filling = await ask(display.name, authority, lambda screen: _resize(screen, width, height), within=within)
    if filling:
        with contextlib.suppress(XUnreachableError):
            await ask(
                display.name,
                authority,
                lambda screen: screen.await_change(lambda screen: _all_fill(screen, filling) or None),
                within=_FOLLOW_WITHIN,
            )


async def await_window(display: Display, *, within: timedelta) -> tuple[XWindow, ...]:
    """Awaits that a window is to be seen.

    Returns:
        The windows to be seen then, at least one, the topmost last.

    Raises:
        XUnreachableError: None was in time, or the display ended.
    """
    return await ask(display.name, _authority(display), _await_window, within=within)


async def list_windows(display: Display, *, within: timedelta) -> tuple[XWindow, ...]:
    """Lists the windows that are to be seen, the topmost last.

    Raises:
        XUnreachableError: The display does not answer in time.
    """
    return await ask(display.name, _authority(display), lambda screen: screen.windows(), within=within)


def _authority(display: Display) -> Path:
    return own_authority(Path(display.lock).parent)


def _resize(screen: XScreen, width: int, height: int) -> frozenset[int]:
    filling = frozenset(window.id for window in screen.windows() if _fills(window, screen.size()))
    screen.resize(width, height)
    return filling


def _all_fill(screen: XScreen, windows: frozenset[int]) -> bool:
    size = screen.size()
    return all(_fills(window, size) for window in screen.windows() if window.id in windows)


def _fills(window: XWindow, size: tuple[int, int]) -> bool:
    return (window.x, window.y, window.width, window.height) == (0, 0, *size)


def _await_window(screen: XScreen) -> tuple[XWindow, ...]:
    return screen.await_change(lambda screen: screen.windows() or None)
