"""`AsyncClient`: the daemon for programs with an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from gpu_balancer.client.addresses import find_address
from gpu_balancer.client.async_connection import AsyncConnection
from gpu_balancer.client.steps import Steps

if TYPE_CHECKING:
    from types import TracebackType

    from gpu_balancer.client.retries import RetryPolicy


class AsyncClient(Steps):
    """A client of the daemon. Use it as an asynchronous context manager, within one event loop.

    Calls that fail because the daemon cannot answer are repeated where that does no harm; streams and transfers go on
    where they were cut. Whatever fails is a `RequestFailure`.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        retry_policy: RetryPolicy | None = None,
        stream_policy: RetryPolicy | None = None,
    ) -> None:
        """Prepares a client; nothing is connected before the first call.

        Args:
            address: `unix:/path`, an absolute path of a socket, or `host:port`. None: from GPU_BALANCER_ADDRESS, else
                the default Unix socket.
            retry_policy: For single calls. None: 5 s of patience.
            stream_policy: For streams and transfers. None: 60 s of patience.

        Raises:
            ValueError: When the address has none of these forms.
        """
        super().__init__(AsyncConnection(find_address(address)), retry_policy=retry_policy, stream_policy=stream_policy)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
