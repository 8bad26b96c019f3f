"""The gRPC server of both daemons: addresses that only this machine's user reaches, limits, health, reflection, errors.

It binds when it starts and not before, and it is NOT_SERVING until told otherwise, so that nobody is sent to a daemon
that is still finding its devices.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gpu_balancer.runtime.error_boundary import ErrorBoundary
from gpu_balancer.runtime.listen_address import TcpAddress, UnixAddress, parse_listen_address
from gpu_balancer.runtime.listening import (
    ListenFault,
    prepare_socket,
    private_socket,
    refuse_other_hosts,
    why_not_bound,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

_LOG = logging.getLogger(__name__)
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedService:
    """One service of the contract and who answers for it."""

    name: str
    """Full name, as `session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name` has it."""
    add: Callable[[Any, grpc.aio.Server], None]
    """The generated `add_…Servicer_to_server`."""
    servicer: object


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What a server bears from one caller."""

    max_receive_bytes: int = MIB
    """Of a request, unpacked; more is RESOURCE_EXHAUSTED."""
    max_concurrent_streams: int = 64
    """Open calls per connection; further ones wait. Bounds what one caller takes without starving others."""
    keepalive: timedelta = timedelta(seconds=60)
    """Silence after which a connection is asked whether it lives."""
    keepalive_timeout: timedelta = timedelta(seconds=20)
    """Time for its answer, after which its calls end."""


class _ByService:
    """What generated code adds a service's handlers to, in the place of the server.

    It would also register every single method, and grpc.aio looks at all registered methods again at each call of any:
    with the thirty of the contract that is a tenth of what a call costs.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, _service: str, _handlers: Mapping[str, object]) -> None:
        """Registers nothing: the service's own handler finds its methods."""


class GrpcServer:
    """A server, not listening yet. `async with` starts it and stops it at once; `stop` before gives calls time."""

    def __init__(self, *, addresses: Sequence[str], services: Sequence[ServedService], limits: ServerLimits) -> None:
        """Makes a server; see `build_server`."""
        self._wanted = tuple(_parsed(address) for address in addresses)
        self._services = tuple(services)
        self._limits = limits
        self._health = health.aio.HealthServicer()
        self._server: grpc.aio.Server | None = None
        self._sockets: list[Path] = []
        self._bound: list[str] = []

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses it listens on, in the order asked for; port 0 is replaced by the one taken."""
        return tuple(self._bound)

    async def start(self) -> None:
        """Binds every address and begins to answer, NOT_SERVING.

        Raises:
            ListenFault: When an address cannot be bound; none is then.
        """
        server = self._server = grpc.aio.server(interceptors=(ErrorBoundary(),), options=_options(self._limits))
        try:
            by_service = cast("grpc.aio.Server", _ByService(server))
            for service in self._services:
                service.add(service.servicer, by_service)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, by_service)
            names = (*(service.name for service in self._services), health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
            await self.set_serving(serving=False)
            for address in self._wanted:
                self._bound.append(self._bind(server, address))
            await server.start()
        except BaseException:
            await self.stop()
            raise

    async def set_serving(self, *, serving: bool) -> None:
        """Tells health checks whether the daemon as a whole, and each of its services, takes requests."""
        known = health_pb2.HealthCheckResponse
        status = known.SERVING if serving else known.NOT_SERVING
        for name in ("", *(service.name for service in self._services)):
            await self._health.set(name, status)

    async def stop(self, grace: timedelta = timedelta(0)) -> None:
        """Takes no more calls and ends the open ones after a grace; may be called again.

        Args:
            grace: How long open calls may go on. 0: not at all.
        """
        server, self._server = self._server, None
        if server is None:
            return
        await self._health.enter_graceful_shutdown()
        await server.stop(grace.total_seconds())
        # gRPC removes the sockets of a server that had started only.
        for path in self._sockets:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                _LOG.warning("Cannot remove the socket %s: %s. The next start does", path, error.strerror)
        self._sockets.clear()
        self._bound.clear()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def _bind(self, server: grpc.aio.Server, address: UnixAddress | TcpAddress) -> str:
        if isinstance(address, UnixAddress):
            prepare_socket(address)
            try:
                with private_socket():
                    server.add_insecure_port(str(address))
            except RuntimeError as error:
                raise ListenFault(f"Cannot listen on {address}: {error}. Try another state folder.") from error
            self._sockets.append(address.path)
            return str(address)
        refuse_other_hosts(address)
        try:
            port = server.add_insecure_port(str(address))
        except RuntimeError as error:
            raise why_not_bound(address) from error
        return str(TcpAddress(host=address.host, port=port))


def build_server(
    *, addresses: Sequence[str], services: Sequence[ServedService], limits: ServerLimits | None = None
) -> GrpcServer:
    """Makes the server of a daemon: error boundary, health and reflection included.

    Args:
        addresses: "unix:/absolute/path" in a folder of ours, made when missing (0700), or a loopback "HOST:PORT";
            port 0 takes a free one.
        services: What it serves.
        limits: What it bears. None: the defaults.

    Returns:
        The server, which listens once started.

    Raises:
        ListenFault: When other machines could reach an address, or it is none.
    """
    return GrpcServer(addresses=addresses, services=services, limits=limits or ServerLimits())


def _parsed(text: str) -> UnixAddress | TcpAddress:
    try:
        return parse_listen_address(text)
    except ValueError as error:
        raise ListenFault(f"Cannot listen on {text}: it {error}.") from error


def _options(limits: ServerLimits) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", limits.max_receive_bytes),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        # Otherwise calls beyond the limit are refused at once (UNAVAILABLE, REFUSED_STREAM) instead of waiting in the
        # client for their turn: a burst of creates met an agent that was well and seemed to be gone.
        ("grpc.http.overload_protection", 0),
        ("grpc.keepalive_time_ms", _milliseconds(limits.keepalive)),
        ("grpc.keepalive_timeout_ms", _milliseconds(limits.keepalive_timeout)),
        # Clients may ask back every 10 s, also between calls: a watcher wants to know that its stream is dead.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Without this a second daemon would share the port in silence and take every other connection.
        ("grpc.so_reuseport", 0),
    )


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)
