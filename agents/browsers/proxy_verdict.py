"""Asks a display's egress proxy why it does not connect: the browser tells no more than that it does not."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.browsers.egress_proxy import REFUSAL_HEADER
from agents.browsers.page_url import origin_of
from agents.browsers.port_file import PROXY_PORT_FILE, read_port

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = timedelta(seconds=20)


async def proxy_verdict(work: Path, url: str) -> str | None:
    """Asks about the host of a URL.

    Args:
        work: The display's work folder.
        url: What was to be opened.

    Returns:
        A `Refusal`. None: it connects, or cannot be asked.
    """
    port = read_port(work / PROXY_PORT_FILE)
    origin = origin_of(url)
    if port is None or origin is None:
        return None
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    try:
        async with asyncio.timeout(_TIMEOUT.total_seconds()):
            head = await _ask(port, f"CONNECT {host}:{origin.port} HTTP/1.1\r\n\r\n")
    except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
        return None
    for line in head.decode("latin-1").splitlines():
        name, _, value = line.partition(":")
        if name.lower() == REFUSAL_HEADER.lower():
            return value.strip()
    return None


async def _ask(port: int, request: str) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request.encode("ascii"))
        await writer.drain()
        return await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
