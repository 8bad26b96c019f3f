"""An HTTP server on loopback for tests, whose answers are raw bytes, so that it may be as wrong as servers are."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Self

from fakes.stream_connections import StreamConnections

if TYPE_CHECKING:
    from types import TracebackType


class HttpMediaServer:
    """Serves what `answers` holds by request target; remembers the heads of requests. A context manager."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = 0
        self.answers: dict[str, bytes | None] = {}
        """Target -> everything to send. None: nothing, and the connection stays open."""
        self.requests: list[str] = []
        self._bodies: dict[str, bytes] = {}
        self._server: asyncio.Server | None = None
        self._connections = StreamConnections(self._serve)

    @property
    def url(self) -> str:
        """The server's URL without a slash at its end."""
        return f"http://{self.host}:{self.port}"

    def body(self, target: str, body: bytes, *, headers: str = "") -> None:
        """Answers a target with 200 and a body, or with 206 and what a Range from some byte on asks for."""
        head = f"HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        self.answers[target] = head.encode() + body
        self._bodies[target] = body

    def redirect(self, target: str, location: str, *, status: int = 302) -> None:
        """Answers a target with a redirect."""
        self.answers[target] = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\n\r\n".encode()

    @property
    def targets(self) -> list[str]:
        """The targets that were asked for, in order."""
        return [request.split(" ")[1] for request in self.requests]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connections.accept, self.host, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._connections.end(self._server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.requests.append(head)
            target = head.split(" ")[1]
            answer = self.answers.get(target, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            start = re.search(r"\r\nRange: bytes=([1-9]\d*)-\r\n", head)
            if start and target in self._bodies:
                answer = _part(self._bodies[target], int(start[1]))
            if answer is not None:
                writer.write(answer)
                await writer.drain()
                writer.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


def _part(body: bytes, start: int) -> bytes:
    span = f"Content-Range: bytes {start}-{len(body) - 1}/{len(body)}\r\nContent-Length: {len(body) - start}\r\n"
    return f"HTTP/1.1 206 Partial Content\r\n{span}\r\n".encode() + body[start:]
