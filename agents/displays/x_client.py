"""Asks an X server as its client: whether it answers, how large its screen is, which windows are to be seen.

A server is ready when a client of ours got its answer; lock files and sockets are there earlier, and stay when it is
gone. Calls of xcb block without a bound on a server that hangs or was stopped. So each conversation has a thread of
its own, in which its connection begins and ends, and one that takes too long has its socket shut down under it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from agents.displays.x_authority import AuthorityUnreadableError, cookie_of
from agents.displays.x_sockets import socket_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta
    from pathlib import Path

    from agents.displays.x_screen import XScreen

_Answer = TypeVar("_Answer")
_CREDENTIALS = struct.Struct("3i")


class XUnreachableError(Exception):
    """An X server does not answer, or refuses, or what was awaited did not happen. The message says why."""


def find_client_fault() -> str | None:
    """Tells why this agent can be no X client. None: it can."""
    if importlib.util.find_spec("xcffib") is None:
        return (
            "Cannot speak to displays: the Python package xcffib is missing. "
            "Try pip install 'gpu-balancer[server,recording]'."
        )
    return None


async def ask(
    name: str,
    authority: Path,
    question: Callable[[XScreen], _Answer],
    *,
    within: timedelta,
    server: int | None = None,
) -> _Answer:
    """Connects to a display and asks something.

    Args:
        name: The display, ":1007".
        authority: Its authority file.
        question: Runs in a thread, and may wait there, for `XScreen.await_change`.
        within: For everything.
        server: Process id that the server must have. None: whoever knows the cookie.

    Returns:
        What the question gave.

    Raises:
        XUnreachableError: The server is not there, refuses, ends meanwhile, or does not answer in time.
    """
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(within.total_seconds())
    executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"x-client {name}")
    answer = asyncio.get_running_loop().run_in_executor(executor, _converse, name, authority, client, question, server)
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await asyncio.shield(answer)
    except TimeoutError as error:
        raise XUnreachableError(
            f"Cannot use the display {name}: there was no answer within {within.total_seconds():g} s."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)
        try:
            if not answer.done():
                # Its thread is told by the socket, and so ends now.
                await asyncio.wait([answer])
                answer.exception()
        finally:  # Whoever gave up may be hurried meanwhile.
            executor.shutdown(wait=False)
            client.close()


def _converse(
    name: str,
    authority: Path,
    client: socket.socket,
    question: Callable[[XScreen], _Answer],
    server: int | None,
) -> _Answer:
    import xcffib

    from agents.displays.x_screen import XScreen

    try:
        client.connect(str(socket_of(name)))
        if server not in (None, listener_of(client)):
            raise XUnreachableError(f"Cannot use the display {name}: it is somebody else's.")
        with XScreen(client, cookie_of(authority.read_bytes())) as screen:
            return question(screen)
    except (OSError, AuthorityUnreadableError, xcffib.XcffibException) as error:
        raise XUnreachableError(f"Cannot use the display {name}: {str(error) or type(error).__name__}.") from error


def listener_of(client: socket.socket) -> int:
    """Tells the process that listens at the other end, unix(7)."""
    credentials = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(credentials)[0]
    return pid
