"""The HTTP server: uvicorn inside the daemon's own loop, on loopback, without signals or log settings of its own."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import uvicorn

from balancer.web.prompt_heads import PromptHeadsConfig
from gpu_balancer.runtime.listen_address import TcpAddress, parse_loopback_address
from gpu_balancer.runtime.listening import ListenFault, refuse_other_hosts, why_not_bound
from gpu_balancer.runtime.task_guard import TaskGuard

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from starlette.types import ASGIApp

_BACKLOG = 128
_MAX_CONNECTIONS = 512
_HEAD_TIMEOUT = timedelta(seconds=10)
"""Far more than a program on this machine needs to send a request."""
_MAX_HEADER_BYTES = 32 * 1024


class WebServer:
    """An HTTP server, not listening yet. `async with` starts it, gives its URL, and stops it."""

    def __init__(
        self,
        address: str,
        app: ASGIApp,
        *,
        grace: timedelta = timedelta(seconds=2),
        head_timeout: timedelta = _HEAD_TIMEOUT,
        max_connections: int = _MAX_CONNECTIONS,
    ) -> None:
        """Makes a server.

        Args:
            address: A loopback "HOST:PORT"; port 0 takes a free one.
            app: What it serves.
            grace: How long open requests may go on when it stops.
            head_timeout: How long a request's head may take, from connecting or from the answer before it.
            max_connections: Number of connections with a request that it bears. Those without make room.
        """
        self._wanted = address
        self._grace = grace
        self._config = PromptHeadsConfig(
            app,
            head_timeout=head_timeout,
            max_connections=max_connections,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=_MAX_HEADER_BYTES,
        )
        self._stack = AsyncExitStack()
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> str:
        """Starts it.

        Returns:
            Its URL, "http://127.0.0.1:8080" for instance.

        Raises:
            ListenFault: The address cannot be listened on.
        """
        listener = _bound(self._wanted)
        host, port = listener.getsockname()[:2]
        try:
            tasks = await self._stack.enter_async_context(TaskGuard("web"))
            self._server = _Server(self._config, self._grace)
            self._task = tasks.spawn(self._server.serve(sockets=[listener]), name="http")
            await self._server.ready.wait()
        except BaseException:
            listener.close()
            await self._stack.aclose()
            raise
        return f"http://{TcpAddress(host=host, port=port)}"

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait((self._task,))
        await self._stack.aclose()


class _Server(uvicorn.Server):
    """uvicorn as a guest: signals are the daemon's."""

    def __init__(self, config: uvicorn.Config, grace: timedelta) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self._grace_s = grace.total_seconds()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures none."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begins to listen, and says so."""
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends within the grace. uvicorn's own way leaves handlers running and connections open behind it."""
        for listener in self.servers:
            listener.close()
        for one in sockets or ():
            one.close()
        state = self.server_state
        for connection in tuple(state.connections):
            connection.shutdown()
        if state.tasks:
            await asyncio.wait(tuple(state.tasks), timeout=self._grace_s)
        for connection in tuple(state.connections):
            connection.transport.abort()
        if state.tasks:
            # What streams hears that its reader has gone, and closes what it read from.
            await asyncio.wait(tuple(state.tasks), timeout=self._grace_s)
        for task in tuple(state.tasks):
            task.cancel()
        if state.tasks:
            await asyncio.wait(tuple(state.tasks))


def _bound(text: str) -> socket.socket:
    """Takes an address, so that what is wrong with it is told here and in words."""
    try:
        address = parse_loopback_address(text)
    except ValueError as error:
        raise ListenFault(f"Cannot listen on {text}: it {error}.") from error
    refuse_other_hosts(address)
    family, *_, target = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0]
    try:
        return socket.create_server(target[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise why_not_bound(address) from error
        told = os.strerror(error.errno or 0)
        raise ListenFault(f"Cannot listen on {address}: {told}. Try another address in the settings.") from error
