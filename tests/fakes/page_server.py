"""A web server on loopback, with TLS if wanted, whose answers tests make; it remembers who asked for what."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from typing import TYPE_CHECKING, Self

from fakes.stream_connections import StreamConnections

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from types import TracebackType

Answer = bytes | None


class PageServer:
    """Serves `answers` by path: a whole answer, or None for silence. A context manager."""

    def __init__(self, *, certificate: Path | None = None) -> None:
        self.port = 0
        self.answers: dict[str, Answer] = {}
        self.streams: dict[str, Callable[[], AsyncIterator[bytes]]] = {}
        """Path -> what is sent piece by piece, after the head too."""
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Path and headers, names in lower case."""
        self._certificate = certificate
        self._server: asyncio.Server | None = None
        self._connections = StreamConnections(self._serve)
        self.held: dict[str, asyncio.Event] = {}
        """Path -> what its answer waits for."""

    @property
    def paths(self) -> list[str]:
        """Paths asked for, in order."""
        return [path for path, _ in self.requests]

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        """The URL of a path."""
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://{host}:{self.port}{path}"

    def page(self, path: str, html: str, *, status: str = "200 OK", headers: str = "") -> None:
        """Serves a page."""
        body = html.encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\n{headers}"
        self.answers[path] = f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body

    def redirect(self, path: str, location: str) -> None:
        """Serves a redirect."""
        self.page(path, "", status="302 Found", headers=f"Location: {location}\r\n")

    def headers_of(self, path: str) -> dict[str, str]:
        """The headers of the last request for a path."""
        return [headers for asked, headers in self.requests if asked == path][-1]

    async def __aenter__(self) -> Self:
        context = None
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
        self._server = await asyncio.start_server(self._connections.accept, "127.0.0.1", 0, ssl=context)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._server is not None
        await self._connections.end(self._server)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *fields = head.splitlines()
            path = line.split(" ")[1]
            headers = dict(field.split(": ", 1) for field in fields if ": " in field)
            self.requests.append((path, {name.lower(): value for name, value in headers.items()}))
            if path in self.held:
                await self.held[path].wait()
            if path in self.streams:
                async for piece in self.streams[path]():
                    writer.write(piece)
                    await writer.drain()
            answer = self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            if answer is not None:
                writer.write(answer if path not in self.streams else b"")
                await writer.drain()
                writer.close()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            writer.close()


def self_signed_certificate(folder: Path) -> Path:
    """Makes a certificate for "localhost", with its key, that nobody trusts."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    making = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    making += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run(making, check=True, capture_output=True)
    certificate.write_text(certificate.read_text() + key.read_text())
    return certificate
