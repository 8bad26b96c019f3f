"""The port between the clients' steps and gRPC.

Every step of a client is written once, as a coroutine over this port. With `AsyncConnection` an event loop runs it.
With `BlockingConnection` the coroutine never suspends, because each of its methods has finished when it returns; so
`complete` runs it on the caller's own thread without any event loop. A second copy of the logic, or an event loop in
a hidden thread, would be the alternatives; the first drifts apart and the second swallows Ctrl-C.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
    from datetime import timedelta

    from gpu_balancer.client.methods import Method, RequestT, ResponseT

T = TypeVar("T")

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # The default first reconnect comes after 1 s and later ones after up to 2 min: our own retries would only ever
    # see the outcome of an old try.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # A page of 1,000 sessions with the logs of their failures is larger than the default of 4 MiB.
    ("grpc.max_receive_message_length", 64 * 1024 * 1024),
    # The daemon is on this machine: a proxy of the environment could not reach it.
    ("grpc.enable_http_proxy", 0),
)


class Connection(Protocol):
    """A way to the daemon.

    MUST raise `RequestFailure` for whatever goes wrong on the way, and nothing of grpc's own.
    MUST end a call whose caller leaves early, by an exception or by closing the stream.
    """

    @property
    def address(self) -> str:
        """Where the daemon is."""
        ...

    async def call(self, method: Method[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Asks once and gives the answer."""
        ...

    def stream(self, method: Method[RequestT, ResponseT], request: RequestT) -> AsyncGenerator[ResponseT, None]:
        """Asks once and gives the answers as they come."""
        ...

    async def send(self, method: Method[RequestT, ResponseT], requests: Iterator[RequestT]) -> ResponseT:
        """Sends requests and gives the one answer. The iterator may read from disk and runs on another thread."""
        ...

    async def pause(self, delay: timedelta) -> None:
        """Waits."""
        ...

    async def work(self, function: Callable[[], T]) -> T:
        """Runs a function that waits for the disk."""
        ...

    async def close(self) -> None:
        """Ends every call and the connection. Idempotent."""
        ...


def complete(steps: Coroutine[object, object, T]) -> T:
    """Runs a coroutine over a `BlockingConnection` to its end, on this thread.

    Raises:
        RuntimeError: When the coroutine waits for an event loop, which is a mistake in its code.
    """
    try:
        steps.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    steps.close()
    raise RuntimeError("Cannot run the step: it waits for an event loop.")


def iterate(source: AsyncGenerator[T, None]) -> Generator[T, None, None]:
    """Runs an asynchronous generator over a `BlockingConnection`, item by item, on this thread."""
    ended = object()

    async def following() -> T | object:
        return await anext(source, ended)

    try:
        while (item := complete(following())) is not ended:
            yield item  # type: ignore[misc]  # it is no `ended`, so it is a T
    finally:
        complete(source.aclose())
