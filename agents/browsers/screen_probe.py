"""Reads single pixels of a display's screen, so that "it is on the screen" is seen and not believed.

What a browser reports as presented is so in its own books: after a page has gone to another process its window may show
the page before for some tenths of a second. Two requests of the X protocol are all that is needed, and they are spoken
here without a library, because a library's calls would hold the agent up whenever the X server does.

The protocol: https://www.x.org/releases/current/doc/xproto/x11protocol.html, encoding in its appendix B.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

    from agents.displays.display import Display

_COOKIE_METHOD = b"MIT-MAGIC-COOKIE-1"
_SETUP_REQUEST = struct.Struct("<BxHHHH2x")
_SETUP_PREFIX = struct.Struct("<BBHHH")
_SETUP_VENDOR = 16  # offset of the vendor's length, with the prefix taken off; that of the formats' count is 5 further
_SETUP_FIXED = 32
_FORMAT_BYTES = 8
_GET_IMAGE = struct.Struct("<BBHIhhHHI")
_GET_IMAGE_CODE, _Z_PIXMAP = 73, 2
_REPLY_HEAD = struct.Struct("<BBHI")
_REPLY_BYTES = 32
_LARGEST_COOKIE_FILE = 4096
_LOOK_S = 0.003

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


class ScreenProbeError(Exception):
    """A screen cannot be read."""


@dataclass(slots=True)
class ScreenProbe:
    """A connection to an X server. Made by `open_probe`; a context manager that closes it."""

    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _root: int

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._writer.transport.abort()

    async def until(self, colour: Colour, *, there: bool) -> None:
        """Awaits that the pixel in the upper left corner has, or has no longer, a colour.

        Raises:
            ScreenProbeError: When the server does not tell.
        """
        while (await self.pixel(0, 0) == colour) is not there:  # noqa: ASYNC110 - X tells nobody of a changed pixel
            await asyncio.sleep(_LOOK_S)

    async def pixel(self, x: int, y: int) -> Colour:
        """Reads a pixel of a screen of depth 24.

        Raises:
            ScreenProbeError: When the server does not give it.
        """
        words = _GET_IMAGE.size // 4
        self._writer.write(_GET_IMAGE.pack(_GET_IMAGE_CODE, _Z_PIXMAP, words, self._root, x, y, 1, 1, 0xFFFFFFFF))
        try:
            reply = await self._reader.readexactly(_REPLY_BYTES)
            success, _, _, extra = _REPLY_HEAD.unpack_from(reply)
            data = await self._reader.readexactly(extra * 4) if success == 1 else b""
        except (OSError, EOFError) as error:
            raise ScreenProbeError("the X server has gone") from error
        if len(data) < 4:
            raise ScreenProbeError("the X server refuses a picture of its screen")
        return data[2], data[1], data[0]


async def open_probe(display: Display) -> ScreenProbe:
    """Connects to a display's X server.

    Raises:
        ScreenProbeError: When it cannot be reached, or refuses.
    """
    try:
        cookie = read_cookie(Path(display.authority))
        number = display.name.removeprefix(":").partition(".")[0]
        reader, writer = await asyncio.open_unix_connection(f"/tmp/.X11-unix/X{number}")  # noqa: S108 - X's own place
    except (OSError, ValueError, struct.error) as error:
        raise ScreenProbeError(f"display {display.name} cannot be reached: {error}") from error
    try:
        root = await _set_up(reader, writer, cookie)
    except (OSError, EOFError, struct.error) as error:
        writer.transport.abort()
        raise ScreenProbeError(f"display {display.name} does not answer: {error}") from error
    except BaseException:
        writer.transport.abort()
        raise
    return ScreenProbe(reader, writer, root)


def read_cookie(authority: Path) -> bytes:
    """Reads the cookie of an authority file with one entry.

    Raises:
        OSError: When it cannot be read.
        ValueError: When there is none in it.
    """
    with authority.open("rb") as file:
        rest = file.read(_LARGEST_COOKIE_FILE)[2:]  # without the address' family
    fields: list[bytes] = []
    while rest and len(fields) < 4:
        (length,) = struct.unpack_from(">H", rest)
        fields.append(rest[2 : 2 + length])
        rest = rest[2 + length :]
    if len(fields) < 4 or fields[2] != _COOKIE_METHOD:
        raise ValueError(f"{authority} has no cookie")
    return fields[3]


async def _set_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cookie: bytes) -> int:
    """Begins the conversation. Returns the root window's id."""
    request = _SETUP_REQUEST.pack(ord("l"), 11, 0, len(_COOKIE_METHOD), len(cookie))
    writer.write(request + _padded(_COOKIE_METHOD) + _padded(cookie))
    success, _, _, _, words = _SETUP_PREFIX.unpack(await reader.readexactly(_SETUP_PREFIX.size))
    body = await reader.readexactly(words * 4)
    if success != 1:
        raise ScreenProbeError(f"the X server refuses: {body.decode('latin-1').rstrip(chr(0))}")
    (vendor_bytes,) = struct.unpack_from("<H", body, _SETUP_VENDOR)
    formats = body[_SETUP_VENDOR + 5]
    (root,) = struct.unpack_from("<I", body, _SETUP_FIXED + (vendor_bytes + 3) // 4 * 4 + formats * _FORMAT_BYTES)
    return int(root)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
