"""The one place where failures become gRPC errors, and where what nobody foresaw is caught.

A `RequestFailure` from any layer below becomes its rich status. Any other exception is logged whole, with a reference,
and the caller learns the reference only: a traceback, a path or a query in an error message is a leak.

A body that is no message of its method fails in gRPC, before any handler, which logs a traceback for whatever a caller
sends. So a request that cannot be read travels as a failure in the request's place, up to the handler's door.
"""

from __future__ import annotations

import inspect
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.ids import random_id
from gpu_balancer.runtime.rich_status import status_from_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

_LOG = logging.getLogger(__name__)

_Handler = Any
"""A `grpc.RpcMethodHandler`: its messages are of any type."""


class ErrorBoundary(grpc.aio.ServerInterceptor):
    """Wraps every handler of a server, unary and streaming."""

    def __init__(self) -> None:
        # A server asks at every call, always with the same handler for the same method.
        self._wrapped: dict[str, _Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """Gives the method's handler, wrapped; None, as the server has it, for a method that nobody serves."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = _wrap(handler, method)
        return wrapped


def _wrap(handler: _Handler, method: str) -> _Handler:
    kind = ("stream" if handler.request_streaming else "unary") + "_"
    kind += "stream" if handler.response_streaming else "unary"
    behaviour = getattr(handler, kind)
    readable = _ReadableRequests if handler.request_streaming else _readable
    if inspect.isasyncgenfunction(behaviour):
        guarded: Any = _guarded_stream(behaviour, readable, method)
    elif inspect.iscoroutinefunction(behaviour):
        guarded = _guarded_call(behaviour, readable, method)
    else:
        # A handler that would run in a thread: nothing of ours, and its errors cannot be caught from here.
        raise TypeError(f"Cannot serve {method}: its handler is no coroutine. Try async def.")
    return getattr(grpc, f"{kind}_rpc_method_handler")(
        guarded,
        request_deserializer=_guarded_reading(handler.request_deserializer),
        response_serializer=handler.response_serializer,
    )


def _guarded_reading(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserializer is None:
        return None

    def guarded(body: bytes) -> Any:
        try:
            return deserializer(body)
        except DecodeError:
            told = "its body is no message of this method. Try a client made from the same version of the contract."
            return RequestFailure(reason=Reason.INVALID_REQUEST, message=f"Cannot read the request: {told}")

    return guarded


def _readable(request: Any) -> Any:
    """Gives a request back.

    Raises:
        RequestFailure: When the request is one: it could not be read.
    """
    if isinstance(request, RequestFailure):
        raise request
    return request


class _ReadableRequests:
    """The requests of a stream; the first that cannot be read is raised."""

    def __init__(self, requests: Any) -> None:
        self._requests = aiter(requests)

    def __aiter__(self) -> _ReadableRequests:
        return self

    async def __anext__(self) -> Any:
        return _readable(await anext(self._requests))


def _guarded_call(behaviour: Any, readable: Callable[[Any], Any], method: str) -> Any:
    async def guarded(request: Any, context: Any) -> Any:
        try:
            return await behaviour(readable(request), context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: what nobody foresaw must not reach the caller
            return await _abort(context, error, method)

    return guarded


def _guarded_stream(behaviour: Any, readable: Callable[[Any], Any], method: str) -> Any:
    async def guarded(request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            # Closed here, not when it is collected: a caller that hangs up must free what the handler holds at once.
            async with aclosing(behaviour(readable(request), context)) as responses:
                async for response in responses:
                    yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the boundary: what nobody foresaw must not reach the caller
            await _abort(context, error, method)

    return guarded


async def _abort(context: Any, error: Exception, method: str) -> None:
    """Ends the call with the error's status; raises grpc's own AbortError to do so."""
    if isinstance(error, RequestFailure):
        _LOG.debug("Refused %s: %s: %s", method, error.reason.name, error.message)
        failure = error
    else:
        reference = random_id(length=10)
        _LOG.error("Failed to answer %s (reference %s)", method, reference, exc_info=error)
        failure = RequestFailure(
            reason=Reason.INTERNAL,
            message=f"Cannot answer: an internal fault, reference {reference}. "
            "Try the logs of the daemon and its agents: one of them has it.",
            metadata={"reference": reference},
        )
    await context.abort_with_status(rpc_status.to_status(status_from_failure(failure)))
