"""The connection of `Client`: grpc on the caller's own thread. Its coroutines never suspend."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

import grpc

from gpu_balancer.client.connection import CHANNEL_OPTIONS
from gpu_balancer.client.failures import failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from datetime import timedelta

    from gpu_balancer.client.methods import Method, RequestT, ResponseT

T = TypeVar("T")

_CLOSE_TIMEOUT_S = 2.0
"""A channel in good order closes within milliseconds."""


class BlockingConnection:
    """One channel of grpc. It may be shared by threads."""

    def __init__(self, address: str) -> None:
        """Prepares the channel; nothing is connected before the first call."""
        self._address = address
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)

    @property
    def address(self) -> str:
        """Where the daemon is."""
        return self._address

    async def call(self, method: Method[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Asks once and gives the answer."""
        ask = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            return ask(request, timeout=_seconds(method.timeout))
        except grpc.RpcError as error:
            raise failure_of(error, address=self._address, timeout=method.timeout) from error

    async def stream(self, method: Method[RequestT, ResponseT], request: RequestT) -> AsyncGenerator[ResponseT, None]:
        """Asks once and gives the answers as they come."""
        ask = self._channel.unary_stream(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        answers = ask(request, timeout=_seconds(method.timeout))
        try:
            for answer in answers:
                yield answer
        except grpc.RpcError as error:
            raise failure_of(error, address=self._address, timeout=method.timeout) from error
        finally:
            answers.cancel()

    async def send(self, method: Method[RequestT, ResponseT], requests: Iterator[RequestT]) -> ResponseT:
        """Sends requests, taken on grpc's own thread, and gives the one answer."""
        ask = self._channel.stream_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        answer = ask.future(requests, timeout=_seconds(method.timeout))
        try:
            return answer.result()
        except grpc.RpcError as error:
            raise failure_of(error, address=self._address, timeout=method.timeout) from error
        finally:
            answer.cancel()

    async def pause(self, delay: timedelta) -> None:
        """Sleeps on this thread."""
        time.sleep(delay.total_seconds())  # noqa: ASYNC251 - no event loop runs this coroutine

    async def work(self, function: Callable[[], T]) -> T:
        """Runs the function here and now."""
        return function()

    async def close(self) -> None:
        """Ends every call and the channel.

        A signal that interrupts a stream in the midst of gRPC's own work leaves a call of which gRPC awaits news for
        ever (seen with grpcio 1.85 in one Ctrl-C of twenty). So it is awaited aside, and not for long.
        """
        closing = threading.Thread(target=self._channel.close, name="grpc-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_TIMEOUT_S)


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()
