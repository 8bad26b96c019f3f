"""What is on a display's screen, as X itself tells."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import xcffib
import xcffib.xproto

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.displays.display import Display


class Picture:
    """The pixels of a screen of depth 24."""

    def __init__(self, width: int, height: int, data: bytes) -> None:
        self.width, self.height, self._data = width, height, data

    def pixel(self, x: int, y: int) -> tuple[int, int, int]:
        """Red, green and blue at a place; from the right and from below when negative."""
        place = 4 * ((y % self.height) * self.width + x % self.width)
        blue, green, red = self._data[place : place + 3]
        return red, green, blue

    def colours(self) -> set[tuple[int, int, int]]:
        """Every colour there is."""
        return {self.pixel(x, y) for y in range(self.height) for x in range(self.width)}


def picture(display: Display) -> Picture:
    """Takes a picture of a display's screen."""
    with _connected(display) as connection:
        root = connection.get_setup().roots[0]
        size = (0, 0, display.width, display.height)
        asked = connection.core.GetImage(xcffib.xproto.ImageFormat.ZPixmap, root.root, *size, 0xFFFFFFFF)
        return Picture(display.width, display.height, bytes(asked.reply().data))


@contextmanager
def _connected(display: Display) -> Iterator[xcffib.Connection]:
    os.environ["XAUTHORITY"] = display.authority
    connection = xcffib.connect(display=display.name)
    try:
        yield connection
    finally:
        connection.disconnect()
        del os.environ["XAUTHORITY"]
