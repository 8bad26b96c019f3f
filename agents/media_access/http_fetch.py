"""One HTTP request to an address that was checked: the head of the answer and the beginning of its body.

ffmpeg and every common client resolve a name again and follow redirects by themselves, and both are ways around a
check. So this connects to the checked address, asks once, follows nothing and stops early. It understands as much HTTP
as a redirect or a playlist needs.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from agents.media_access.guard import GuardedHost

_HEAD_LIMIT_BYTES = 64 * 1024
_PLAYLIST_MARK = b"#EXTM3U"


class FetchError(Exception):
    """The server did not answer, or not as HTTP. The text says how, without secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """What a server answered."""

    status: int
    reason: str
    """The words beside the status."""
    headers: Mapping[str, str]
    """By lower-case name; of repeated ones the last, but every content-encoding."""
    playlist: str | None
    """The body when it is an HLS playlist, else None."""


async def fetch_beginning(url: str, guarded: GuardedHost, *, playlist_limit_bytes: int) -> HttpAnswer:
    """Asks for a URL at the first of its checked addresses that answers.

    Args:
        url: An http or https URL; credentials in it are sent as Basic authentication.
        guarded: Its host, as `guard_url` gave it.
        playlist_limit_bytes: How much of a playlist is read. The body of anything else is not.

    Returns:
        The answer. Callers bound the time.

    Raises:
        FetchError: When no address answers with HTTP, or the playlist is longer.
    """
    parts = urlsplit(url)
    reader, writer = await _connect(parts, guarded)
    try:
        writer.write(_request(parts))
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status, reason, headers = _parse_head(head)
        playlist = await _playlist(reader, headers, playlist_limit_bytes) if _has_body(status) else None
        return HttpAnswer(status=status, reason=reason, headers=headers, playlist=playlist)
    except (OSError, EOFError, asyncio.LimitOverrunError, ValueError) as error:
        raise FetchError(_told(error)) from error
    finally:
        writer.transport.abort()


async def _connect(parts: SplitResult, guarded: GuardedHost) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context() if parts.scheme == "https" else None
    last: OSError | None = None
    for address in guarded.addresses:
        try:
            return await asyncio.open_connection(
                str(address),
                guarded.port,
                ssl=context,
                server_hostname=guarded.host if context else None,
                limit=_HEAD_LIMIT_BYTES,
            )
        except OSError as error:
            last = error
    raise FetchError(_told(last) if last else "it has no address") from last


def _request(parts: SplitResult) -> bytes:
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"GET {target} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "User-Agent: gpu-balancer",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(credentials.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


def _has_body(status: int) -> bool:
    # ffmpeg reads what comes with any success, not with 200 alone.
    return 200 <= status < 300 and status not in (204, 205)


def _parse_head(head: bytes) -> tuple[int, str, dict[str, str]]:
    status_line, *lines = head.decode("latin-1").split("\r\n")
    words = status_line.split(" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ValueError("it does not speak HTTP")
    headers: dict[str, str] = {}
    if any("\r" in line or "\n" in line for line in (status_line, *lines)):
        # Others end a line there too, and would find headers that we do not.
        raise ValueError("it does not speak HTTP: its head has line ends of two kinds")
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            key = name.strip().lower()
            joined = key == "content-encoding" and key in headers
            headers[key] = f"{headers[key]}, {value.strip()}" if joined else value.strip()
    return int(words[1]), words[2] if len(words) > 2 else "", headers


async def _playlist(reader: asyncio.StreamReader, headers: Mapping[str, str], limit_bytes: int) -> str | None:
    """Reads the body when it begins as a playlist does; looks at its first bytes alone otherwise."""
    chunked = headers.get("transfer-encoding", "").lower() == "chunked"
    body = b""
    async for piece in _chunks(reader, limit_bytes) if chunked else _pieces(reader):
        body += piece
        begun = body.lstrip(b"\xef\xbb\xbf \t\r\n")
        if not _PLAYLIST_MARK.startswith(begun[: len(_PLAYLIST_MARK)]):
            return None
        if len(body) > limit_bytes:
            raise ValueError(f"its playlist is longer than {limit_bytes} bytes")
    return body.decode(errors="replace") if body else None


async def _pieces(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while piece := await reader.read(_HEAD_LIMIT_BYTES):
        yield piece


async def _chunks(reader: asyncio.StreamReader, limit_bytes: int) -> AsyncIterator[bytes]:
    while size := int((await reader.readline()).partition(b";")[0] or b"0", 16):
        if not 0 <= size <= limit_bytes:
            # Read as much as shows what it is; the caller sees that it goes beyond the limit.
            yield await reader.read(_HEAD_LIMIT_BYTES)
            raise ValueError(f"its playlist is longer than {limit_bytes} bytes")
        yield await reader.readexactly(size)
        await reader.readline()


def _told(error: Exception) -> str:
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not trusted: {error.verify_message}"
        case ssl.SSLError():
            return "it does not speak TLS"
        case asyncio.IncompleteReadError():
            return "it ended the connection without an answer"
        case asyncio.LimitOverrunError():
            return "its answer has no end"
        case OSError():
            return error.strerror or str(error) or "it does not answer"
        case _:
            return str(error) or "it does not speak HTTP"
