"""Connections of a server in a test, which end with it: whatever serves one may be anywhere then, or not have begun."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class StreamConnections:
    """Serves each connection that it is given, as `asyncio.start_server` gives them, until the end."""

    def __init__(self, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> None:
        self._serve = serve
        self._serving: dict[asyncio.StreamWriter, asyncio.Future[None]] = {}
        self._ended = False

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Begins to serve one."""
        if self._ended:  # The kernel had it before.
            writer.transport.abort()
        else:
            self._serving[writer] = asyncio.ensure_future(self._serve(reader, writer))

    async def end(self, server: asyncio.Server) -> None:
        """Closes the server and breaks all connections."""
        self._ended = True
        server.close()
        for writer, serving in self._serving.items():
            serving.cancel()
            if not writer.is_closing():
                writer.transport.abort()
        await asyncio.gather(*self._serving.values(), return_exceptions=True)
        await server.wait_closed()
        await asyncio.sleep(0)  # What was aborted is closed in the loop's next round.
