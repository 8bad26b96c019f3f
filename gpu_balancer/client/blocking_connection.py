"""The connection of `Client`: grpc on the caller's own thread. Its coroutines never suspend."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import grpc

from gpu_balancer.client.connection import CHANNEL_OPTIONS
from gpu_balancer.client.failures import failure_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from datetime import timedelta

    from gpu_balancer.client.methods import Method, RequestT, ResponseT

T = TypeVar("T")

_CLOSE_TIMEOUT_S = 1.0
"""A channel in good order closes within milliseconds."""


class BlockingConnection:
    """One channel of grpc. It may be shared by threads.

    A signal that raises in the midst of gRPC's own Python code, as Ctrl-C does, may leave a channel on which no later
    call is ever answered and which never closes (seen with grpcio 1.85 in one Ctrl-C of ten). So a channel on which a
    call was interrupted is put aside, and a new one takes its place.
    """

    def __init__(self, address: str) -> None:
        """Prepares the channel; nothing is connected before the first call."""
        self._address = address
        self._channel = grpc.insecure_channel(address, options=CHANNEL_OPTIONS)
        self._put_aside: list[grpc.Channel] = []

    @property
    def address(self) -> str:
        """Where the daemon is."""
        return self._address

    @contextmanager
    def _replaced_when_interrupted(self) -> Iterator[None]:
        """Puts the channel aside when a signal interrupts what is done with it; other threads' calls on it go on."""
        channel = self._channel
        try:
            yield
        except KeyboardInterrupt:
            if self._channel is channel:
                self._put_aside.append(channel)
                self._channel = grpc.insecure_channel(self._address, options=CHANNEL_OPTIONS)
            raise

    async def call(self, method: Method[RequestT, ResponseT], request: RequestT) -> ResponseT:
        """Asks once and gives the answer."""
        ask = self._channel.unary_unary(
            method.path,
            request_serializer=method.request.SerializeToString,
            response_deserializer=method.response.FromString,
        )
        try:
            with self._replaced_when_interrupted():
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
        with self._replaced_when_interrupted():
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
        with self._replaced_when_interrupted():
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
        """Ends every call and the channel. One that was interrupted may never close: it is not awaited for long."""
        for channel in (*self._put_aside, self._channel):
            closing = threading.Thread(target=channel.close, name="grpc-close", daemon=True)
            closing.start()
            closing.join(_CLOSE_TIMEOUT_S)
        self._put_aside.clear()


def _seconds(timeout: timedelta | None) -> float | None:
    return None if timeout is None else timeout.total_seconds()
