"""Asks a browser's DevTools port over HTTP: which browser it is, and so whether it is there at all."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from datetime import timedelta

_ANSWER_BYTES = 64 * 1024


class NoBrowserError(Exception):
    """No browser answers at an endpoint."""


class SilentBrowserError(NoBrowserError):
    """A browser does not answer, and may again: it hangs, or its machine does."""


async def browser_name(url: str, timeout: timedelta) -> str:
    """Asks what a browser is.

    Args:
        url: Of its DevTools port, "http://127.0.0.1:40123".
        timeout: After this it counts as not there.

    Returns:
        Name and version, "Chromium 156.0.8078.108".

    Raises:
        SilentBrowserError: When one is there and does not answer.
        NoBrowserError: When there is none.
    """
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            answer = await _get(parts.hostname or "", parts.port or 0, "/json/version")
        product = json.loads(answer)["Browser"]
    except TimeoutError as error:
        raise SilentBrowserError(f"the browser at {url} does not answer") from error
    except (OSError, EOFError, ValueError, KeyError, TypeError, asyncio.LimitOverrunError) as error:
        raise NoBrowserError(f"no browser answers at {url}: {error or type(error).__name__}") from error
    name, _, version = str(product).partition("/")
    return f"{'Chromium' if name == 'Chrome' else name} {version}"


async def _get(host: str, port: int, path: str) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, limit=_ANSWER_BYTES)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode("ascii"))
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(line.split(b":", 1) for line in head.lower().splitlines()[1:] if b":" in line)
        return await reader.readexactly(min(int(fields[b"content-length"]), _ANSWER_BYTES))
    finally:
        writer.close()
