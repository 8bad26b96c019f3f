"""The connection of `AsyncClient`: grpc.aio on the running event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import grpc

from gpu_balancer.client.connection import CHANNEL_OPTIONS
from gpu_balancer.client.failures import failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from datetime import timedelta

    from gpu_balancer.client.methods import Method, RequestT, ResponseT

T = TypeVar("T")


class AsyncConnection:
    """One channel of grpc.aio, made at the first call, because a channel belongs to the loop that runs then."""

    def __init__(self, address: str) -> None:
        """Remembers the address; may be called where no event loop runs."""
        self._address = address
        self._channel: grpc.aio.Channel | None = None

    @property
    def address(self) -> str:
        """Where the daemon is."""
        return self._address

    def _opened(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=CHANNEL_OPTIONS)
        return self._channel

    async def call(self, method: Method[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Asks once and gives the answer."""
        ask = self._opened().unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            return await ask(request, timeout=_seconds(method.timeout))
        except grpc.RpcError as error:
            raise failure_of(error, address=self._address, timeout=method.timeout) from error

    async def stream(self, method: Method[RequestT, ResponseT], request: RequestT) -> AsyncGenerator[ResponseT, None]:
        """Asks once and gives the answers as they come."""
        ask = self._opened().unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        answers = ask(request, timeout=_seconds(method.timeout))
        try:
            async for answer in answers:
                yield answer
        except grpc.RpcError as error:
            raise failure_of(error, address=self._address, timeout=method.timeout) from error
        finally:
            answers.cancel()

    async def send(self, method: Method[RequestT, ResponseT], requests: Iterator[RequestT]) -> ResponseT:
        """Sends requests, each taken on a worker thread, and gives the one answer."""
        ask = self._opened().stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            return await ask(_taken_aside(requests), timeout=_seconds(method.timeout))
        except grpc.RpcError as error:
            raise failure_of(error, address=self._address, timeout=method.timeout) from error

    async def pause(self, delay: timedelta) -> None:
        """Sleeps without holding the loop."""
        await asyncio.sleep(delay.total_seconds())

    async def work(self, function: Callable[[], T]) -> T:
        """Runs the function on a worker thread, so that a slow disk does not hold the loop."""
        return await asyncio.to_thread(function)

    async def close(self) -> None:
        """Ends every call and the channel."""
        if self._channel is not None:
            await self._channel.close()


async def _taken_aside(requests: Iterator[RequestT]) -> AsyncGenerator[RequestT, None]:
    """Takes each request on a worker thread, because making one reads from disk."""
    while (request := await asyncio.to_thread(next, requests, None)) is not None:
        yield request


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()
