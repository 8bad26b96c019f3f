"""One call or stream, tried again where that is safe: what every request of a client is made of."""

from __future__ import annotations

import random
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

from gpu_balancer.client.failures import BalancerUnreachable, absent_socket
from gpu_balancer.client.retries import STREAM_POLICY, Retries, RetryPolicy
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.runtime.ids import random_id

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from gpu_balancer.client.connection import Connection
    from gpu_balancer.client.methods import Method, RequestT, ResponseT
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.failures import Reason

_ONCE = RetryPolicy(patience=timedelta(0))


class Requests:
    """Asks through a connection. It keeps nothing but whether there ever was a daemon."""

    def __init__(
        self,
        connection: Connection,
        *,
        retry_policy: RetryPolicy | None = None,
        stream_policy: RetryPolicy | None = None,
        clock: Clock | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Begins on a connection that has asked nothing yet.

        Args:
            connection: The way to the daemon.
            retry_policy: For single calls. None: 5 s of patience.
            stream_policy: For streams and transfers. None: 60 s of patience.
            clock: Measures patience. None: the machine's.
            jitter: Gives numbers from 0 to 1 for the delays.
        """
        self._connection = connection
        self._retry_policy = retry_policy if retry_policy is not None else RetryPolicy()
        self._stream_policy = stream_policy if stream_policy is not None else STREAM_POLICY
        self._clock: Clock = clock if clock is not None else SystemClock()
        self._jitter = jitter
        self._was_there = False

    @property
    def address(self) -> str:
        """Where the daemon is, as gRPC takes it."""
        return self._connection.address

    async def close(self) -> None:
        """Ends every call and the connection. Idempotent."""
        await self._connection.close()

    def _retries(self, policy: RetryPolicy) -> Retries:
        return Retries(policy, clock=self._clock, jitter=self._jitter)

    async def _wait_or_raise(self, failure: RequestFailure, retries: Retries) -> None:
        """Waits before the next try, or gives up by raising the failure."""
        delay = retries.delay_after(failure)
        absent = self._absent(failure)
        if absent is not None:
            raise absent from failure
        if delay is None:
            raise failure
        await self._connection.pause(delay)

    def _absent(self, failure: RequestFailure) -> RequestFailure | None:
        """Tells when waiting is in vain: nobody ever answered and there was never a socket to answer on.

        A daemon that is being restarted has none for a moment: then there was one at the failure before.
        """
        if not isinstance(failure, BalancerUnreachable):
            self._was_there = True
        if self._was_there:
            return None
        absent = absent_socket(self.address)
        self._was_there = absent is None
        return absent

    async def _call(
        self, method: Method[RequestT, ResponseT], request: RequestT, *, gone: Reason | None = None
    ) -> ResponseT:
        """Asks until there is an answer, when the call is repeatable; else once.

        Args:
            method: The call.
            request: Its request.
            gone: The refusal which means, from the second try on, that the first one did arrive.
        """
        retries = self._retries(self._retry_policy if method.repeatable else _ONCE)
        tried = False
        while True:
            try:
                answer = await self._connection.call(method, request)
            except RequestFailure as failure:
                if tried and failure.reason is gone:
                    return method.response()
                await self._wait_or_raise(failure, retries)
                tried = True
            else:
                self._was_there = True
                return answer

    async def _resumed(
        self, method: Method[RequestT, ResponseT], following: Callable[[], RequestT]
    ) -> AsyncGenerator[ResponseT, None]:
        """Gives a stream's answers, and after a cut those of a new stream.

        Args:
            method: The stream.
            following: Makes the request that goes on after the answers given so far.
        """
        retries = self._retries(self._stream_policy)
        while True:
            try:
                async with aclosing(self._connection.stream(method, following())) as answers:
                    async for answer in answers:
                        self._was_there = True
                        retries.reset()
                        yield answer
            except RequestFailure as failure:
                await self._wait_or_raise(failure, retries)
            else:
                return


def new_request_id() -> str:
    """Makes the id by which the daemon knows a repeated request; 130 random bits."""
    return random_id("r-", length=26)
