"""What a failed call becomes: always a `RequestFailure`, whether the daemon refused or never answered."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc

from gpu_balancer.client.addresses import socket_of
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.rich_status import failure_from_rpc_error

if TYPE_CHECKING:
    from datetime import timedelta

_WRAPPING = re.compile(r"^failed to connect to all addresses; last error: (?:[A-Z_]+: )?")
"""What gRPC puts around the words of the system, such as "connect: Connection refused (111)"."""
_CUT_WHILE_SENDING = "Internal error from Core"
"""What grpc.aio says, with INTERNAL for a code, when the other end goes just as it sends a message."""


@dataclass(slots=True, kw_only=True, eq=False)
class BalancerUnreachable(RequestFailure):
    """Nobody answered: the daemon is not there, or went away during the call. It may come back."""

    reason: Reason = field(default=Reason.BALANCER_UNREACHABLE)
    address: str = ""
    """The address that was tried."""


@dataclass(slots=True, kw_only=True, eq=False)
class CallFailed(RequestFailure):
    """The call failed in a way that a new try will not change, without a word from the daemon itself."""

    reason: Reason = field(default=Reason.INTERNAL)


def absent_socket(address: str) -> BalancerUnreachable | None:
    """Tells at once that there is no daemon where its socket is missing, which gRPC would tell after retries only."""
    socket = socket_of(address)
    try:
        if socket is None or socket.exists():
            return None
    except OSError:
        # A folder that may not be looked into: connecting tells more.
        return None
    return BalancerUnreachable(
        address=address,
        message=f"Cannot reach the daemon: there is no socket {socket}. {_what_to_try(address)}",
    )


def failure_of(error: grpc.RpcError, *, address: str, timeout: timedelta | None) -> RequestFailure:
    """Makes a failure of gRPC's error.

    Args:
        error: What a call, synchronous or not, raised.
        address: Where the call went.
        timeout: The call's bound. None: it had none.

    Returns:
        What the daemon said, when it said why; otherwise `BalancerUnreachable` or `CallFailed` in plain words.
    """
    refusal = failure_from_rpc_error(error)
    if refusal is not None:
        return refusal
    code, told = _code_of(error), _words_of(error)
    cut = code is grpc.StatusCode.INTERNAL and told == _CUT_WHILE_SENDING
    if cut or code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        told = "the connection broke" if cut else told
        message = f"Cannot reach the daemon at {address}: {told}. {_what_to_try(address)}"
        return BalancerUnreachable(address=address, message=message)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        bound = f"within {timeout.total_seconds():g} s" if timeout is not None else "in time"
        message = f"Cannot wait longer: the daemon at {address} did not answer {bound}. Try again later."
        return CallFailed(reason=Reason.BALANCER_UNREACHABLE, message=message)
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CallFailed(
            message=f"Cannot make this call: what answers at {address} does not know it ({told}). "
            "Try a daemon of the same version as this client."
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return CallFailed(
            reason=Reason.INVALID_REQUEST, message=f"Cannot make this call: {told}. Try a smaller request."
        )
    return CallFailed(message=f"Cannot complete the call: the daemon at {address} failed: {code.name}: {told}.")


def _code_of(error: grpc.RpcError) -> grpc.StatusCode:
    """Tells the status code; both kinds of error have one, whatever their shared base class declares."""
    code: object = error.code() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else None
    return code if isinstance(code, grpc.StatusCode) else grpc.StatusCode.UNKNOWN


def _words_of(error: grpc.RpcError) -> str:
    """Tells gRPC's own words without the full stop."""
    told = error.details() if isinstance(error, grpc.Call | grpc.aio.AioRpcError) else str(error)
    return _WRAPPING.sub("", (told or "no reason given").strip()).rstrip(".")


def _what_to_try(address: str) -> str:
    """Says what a person may do about a daemon that does not answer."""
    if socket_of(address) is not None:
        return "Try to start gpu-balancerd as the same user, or name another address with GPU_BALANCER_ADDRESS."
    return "Try to start gpu-balancerd there, or name another address with GPU_BALANCER_ADDRESS."
