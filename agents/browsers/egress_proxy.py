"""A small HTTP proxy through which a display's browser reaches the internet, and nothing but the internet.

It looks every name up itself, refuses when any of its addresses is not public or is this machine's own, and connects to
exactly an address that it has checked: a name that changes its mind between check and use gains nothing. It serves the
browser's user alone: whose a connection is the kernel says, so no password can leak or be guessed.

A process of its own, `python -m agents.browsers.egress_proxy PORT_FILE RUN_AS SERVED…`, because it must outlive the
agent as the browser does. It is started as the agent's user, since a display's user need not be able to read this file,
and becomes the display's as soon as it is loaded. It imports nothing but the standard library and pure modules, so that
one per display costs little. It must never connect to anything that was not checked, and never answer a stranger.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - asyncio would load it when it is too late: see `become`
import encodings.idna  # noqa: F401 - likewise
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from agents.browsers.kernel_tables import connection_owner, is_own
from agents.public_addresses import Address, is_public
from agents.user_rights import become

REFUSAL_HEADER = "Gpu-Balancer-Refusal"
"""Header of the proxy's own answers; its value is a `Refusal`."""

_HEAD_BYTES = 64 * 1024
_CHUNK_BYTES = 64 * 1024
_HEAD_TIMEOUT_S = 30.0
_LOOK_UP_TIMEOUT_S = 15.0
_CONNECT_TIMEOUT_S = 15.0
_IDLE_TIMEOUT_S = 15 * 60.0
_MOST_CONNECTIONS = 512  # Chromium keeps 32 to a proxy, and 255 WebSockets

_BLANK_PAGE = b"<!doctype html>"
"""For what is refused inside a page. Of an empty answer the browser would make an error page."""

_HOP_HEADER = re.compile(rb"\r\n(?:proxy-[a-z-]+|connection|keep-alive)[ \t]*:[^\r\n]*", re.IGNORECASE)
_INTERIM_STATUS = re.compile(rb"HTTP/1\.[01] 1\d\d ")
_CONNECT_TARGET = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+)):(\d{1,5})")


class Refusal(StrEnum):
    """Why the proxy does not connect."""

    PRIVATE = "private"
    """An address of the host is not public."""
    UNRESOLVED = "unresolved"
    """The host has no address."""
    UNREACHABLE = "unreachable"
    """Nothing there accepts the connection."""
    MALFORMED = "malformed"
    """It is no request to a proxy."""
    BUSY = "busy"
    """There are too many connections."""


_STATUS = {
    Refusal.PRIVATE: "403 Forbidden",
    Refusal.UNRESOLVED: "502 Bad Gateway",
    Refusal.UNREACHABLE: "504 Gateway Timeout",
    Refusal.MALFORMED: "400 Bad Request",
    Refusal.BUSY: "503 Service Unavailable",
}


class Refused(Exception):
    """The proxy does not connect."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


async def look_up(host: str, port: int) -> list[Address]:
    """Looks up every address of a host, as the C library does."""
    answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers))


def may_reach(address: Address, port: int) -> bool:
    """Tells whether an address is public and not this machine's own. The port does not matter."""
    del port
    return is_public(address) and not is_own(address)


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """Who is served, and where connections may lead. Tests bring their own names."""

    user_ids: frozenset[int]
    """Users whose connections are served."""
    look_up: Callable[[str, int], Awaitable[list[Address]]] = look_up
    """Finds the addresses of a host and port."""
    may_reach: Callable[[Address, int], bool] = may_reach
    """Judges an address and port."""


class EgressProxy:
    """Serves connections; as many at once as there is room for."""

    def __init__(self, rules: EgressRules) -> None:
        """Makes a proxy that listens nowhere yet."""
        self._rules = rules
        self._connections = 0

    async def listen(self) -> asyncio.Server:
        """Opens a port of the kernel's choice on IPv4 loopback."""
        return await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client, server = writer.get_extra_info("peername"), writer.get_extra_info("sockname")
        self._connections += 1
        try:
            if connection_owner(client, server) in self._rules.user_ids:
                await self._answer(reader, writer)
        except (OSError, EOFError, TimeoutError, ValueError, asyncio.LimitOverrunError):
            pass  # The other end went away, or talks no HTTP: there is nobody to tell.
        finally:
            self._connections -= 1
            await _close(writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        try:
            if self._connections > _MOST_CONNECTIONS:
                raise Refused(Refusal.BUSY)
            method, target = _request_line(head)
            host, port = _destination(method, target)
            there, to_there = await self._connect(host, port)
        except Refused as refused:
            writer.write(_refusal_answer(refused.refusal))
            await writer.drain()
            return
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                to_there.write(_origin_head(head, method, target))
                await _pass_head(there, writer)
            await _splice((reader, to_there), (there, writer))
        finally:
            to_there.transport.abort()

    async def _connect(self, host: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects to an address of a host after all of them were checked.

        Raises:
            Refused: PRIVATE, UNRESOLVED or UNREACHABLE.
        """
        try:
            async with asyncio.timeout(_LOOK_UP_TIMEOUT_S):
                addresses = await self._rules.look_up(host, port)
        except (OSError, UnicodeError, ValueError):
            raise Refused(Refusal.UNRESOLVED) from None
        if not addresses:
            raise Refused(Refusal.UNRESOLVED)
        # All, not the first that may: a name that points both ways is meant to get somebody inside.
        if not all(self._rules.may_reach(address, port) for address in addresses):
            raise Refused(Refusal.PRIVATE)
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                for address in addresses:
                    with suppress(ConnectionError, OSError):
                        return await asyncio.open_connection(str(address), port, limit=_HEAD_BYTES)
        except TimeoutError:
            pass
        raise Refused(Refusal.UNREACHABLE)


def _request_line(head: bytes) -> tuple[str, str]:
    line, _, _ = head.partition(b"\r\n")
    try:
        method, target, version = line.decode("ascii").split(" ")
    except ValueError:
        raise Refused(Refusal.MALFORMED) from None
    if not version.startswith("HTTP/1.") or not method.isalpha():
        raise Refused(Refusal.MALFORMED)
    return method, target


def _destination(method: str, target: str) -> tuple[str, int]:
    """Tells host and port of a request to a proxy: "host:port" for CONNECT, else an http:// URL."""
    if method == "CONNECT":
        match = _CONNECT_TARGET.fullmatch(target)
        if match is None or not 0 < int(match[3]) < 65536:
            raise Refused(Refusal.MALFORMED)
        return match[1] or match[2], int(match[3])
    try:
        parts = urlsplit(target)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        raise Refused(Refusal.MALFORMED) from None
    if parts.scheme != "http" or not host:
        raise Refused(Refusal.MALFORMED)
    return host, port


def _origin_head(head: bytes, method: str, target: str) -> bytes:
    """Rewrites a request's head as its own server wants it, one request to a connection."""
    rest = target.split("/", 3)
    path = "/" + rest[3] if len(rest) > 3 else "/"
    _, _, headers = head.partition(b"\r\n")
    headers = _HOP_HEADER.sub(b"", b"\r\n" + headers)
    return f"{method} {path} HTTP/1.1".encode("ascii") + headers[: -len(b"\r\n")] + b"Connection: close\r\n\r\n"


async def _pass_head(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes the head of an answer on, so changed that the browser uses the connection for nothing else."""
    while True:
        async with asyncio.timeout(_IDLE_TIMEOUT_S):
            head = await there.readuntil(b"\r\n\r\n")
        writer.write(_HOP_HEADER.sub(b"", head)[: -len(b"\r\n")] + b"Connection: close\r\n\r\n")
        if not _INTERIM_STATUS.match(head):
            return


def _refusal_answer(refusal: Refusal) -> bytes:
    head = f"HTTP/1.1 {_STATUS[refusal]}\r\n{REFUSAL_HEADER}: {refusal}\r\nCache-Control: no-store\r\n"
    head += f"Content-Type: text/html\r\nContent-Length: {len(_BLANK_PAGE)}\r\nConnection: close\r\n\r\n"
    return head.encode("ascii") + _BLANK_PAGE


_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _splice(one: _End, other: _End) -> None:
    """Copies both ways until both have ended, one has failed, or nothing has come for long."""
    loop = asyncio.get_running_loop()
    last_time = loop.time()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal last_time
        while True:
            try:
                async with asyncio.timeout_at(last_time + _IDLE_TIMEOUT_S):
                    chunk = await reader.read(_CHUNK_BYTES)
            except TimeoutError:
                if loop.time() < last_time + _IDLE_TIMEOUT_S:
                    continue  # The other direction moved meanwhile.
                raise
            if not chunk:
                writer.write_eof()
                return
            writer.write(chunk)
            await writer.drain()
            last_time = loop.time()

    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(copy(*one))
            both.create_task(copy(*other))
    except* (OSError, TimeoutError):
        pass


async def _close(writer: asyncio.StreamWriter) -> None:
    """Closes a connection when what is written has been read, or is not wanted."""
    writer.close()
    try:
        async with asyncio.timeout(_HEAD_TIMEOUT_S):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()


async def run(port_file: Path, rules: EgressRules) -> None:
    """Serves for ever, having written the port into a file that appears complete."""
    server = await EgressProxy(rules).listen()
    port = server.sockets[0].getsockname()[1]
    temporary = port_file.with_suffix(".new")
    temporary.write_text(f"{port}\n")
    temporary.rename(port_file)
    await server.serve_forever()


def main(arguments: list[str]) -> None:
    """Runs the proxy.

    Args:
        arguments: File to write the port to; user to become, empty for none; users that are served.
    """
    port_file, run_as, *served = arguments
    if run_as:
        become(int(run_as))
    asyncio.run(run(Path(port_file), EgressRules(user_ids=frozenset(map(int, served)))))


if __name__ == "__main__":
    main(sys.argv[1:])
