"""Failures as `google.rpc.Status`, and back: what a server says about an error and what a client reads from it.

A status travels in the trailing metadata, which clients bound: 8 KiB by default in the libraries built on gRPC's core,
beyond which they report a broken stream instead of the error. So it is kept within a budget: extra details are left
out first, then violations, never the reason. Clients install this module, so it imports grpc and protobuf only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from google.protobuf import any_pb2, descriptor_pool, duration_pb2, message_factory
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from gpu_balancer.runtime.failures import Reason, RequestFailure, StatusCode, Violation

if TYPE_CHECKING:
    import grpc
    from google.protobuf.message import Message

DOMAIN = "gpu-balancer"
"""`ErrorInfo.domain` of every failure of ours."""

METADATA_BUDGET_BYTES = 7_168
"""Bytes for a status and its message, which is sent a second time on its own, percent-encoded. The default limit of
clients is 8,192 with everything else that goes with them."""
MESSAGE_BUDGET_BYTES = 1_024
"""Bytes of a message, before encoding."""

_PERCENT_UNENCODED = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_STAND_INS = {
    StatusCode.INVALID_ARGUMENT: Reason.INVALID_REQUEST,
    StatusCode.NOT_FOUND: Reason.SESSION_NOT_FOUND,
    StatusCode.ALREADY_EXISTS: Reason.REQUEST_ID_REUSED,
    StatusCode.PERMISSION_DENIED: Reason.INPUT_NOT_ALLOWED,
    StatusCode.RESOURCE_EXHAUSTED: Reason.NO_CAPACITY,
    StatusCode.FAILED_PRECONDITION: Reason.NO_CAPABLE_DEVICE,
    StatusCode.OUT_OF_RANGE: Reason.RANGE_INVALID,
    StatusCode.UNAVAILABLE: Reason.NO_DEVICE_READY,
}


def status_from_failure(failure: RequestFailure) -> status_pb2.Status:
    """Turns a failure into the status that is sent for it.

    Returns:
        The code, the message, then as details: ErrorInfo; BadRequest, if a field is to blame; RetryInfo, if another try
        may help; the failure's own details in their order. At most METADATA_BUDGET_BYTES with its message.
    """
    message = _shortened(failure.message)
    metadata = dict(failure.metadata)
    info = error_details_pb2.ErrorInfo(reason=failure.reason.name, domain=DOMAIN, metadata=metadata)
    status = status_pb2.Status(code=failure.reason.code.value, message=message)
    status.details.append(_packed(info))
    if failure.retry_after is not None:
        delay = duration_pb2.Duration()
        delay.FromTimedelta(failure.retry_after)
        status.details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    budget = METADATA_BUDGET_BYTES - len(quote(message, safe=_PERCENT_UNENCODED))
    _add_violations(status, failure.violations, budget)
    for detail in failure.details:
        packed = _packed(detail)
        if status.ByteSize() + packed.ByteSize() + 4 <= budget:
            status.details.append(packed)
    return status


def failure_from_status(status: status_pb2.Status) -> RequestFailure | None:
    """Reads a failure of ours from a status.

    Returns:
        The failure; its details are those whose message types this program has loaded. A reason that this version does
        not know becomes one with the same code, its name in `metadata["reason"]`. None when the status has no ErrorInfo
        of our domain.
    """
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    ours = False
    has_retry = False
    details: list[Message] = []
    for packed in status.details:
        if packed.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            ours = packed.Unpack(info) and info.domain == DOMAIN
        elif packed.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            packed.Unpack(bad_request)
        elif packed.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            has_retry = packed.Unpack(retry)
        else:
            detail = _unpacked(packed)
            details += [] if detail is None else [detail]
    if not ours:
        return None
    reason, metadata = _reason(info, status.code)
    return RequestFailure(
        reason=reason,
        message=status.message,
        violations=tuple(
            Violation(field=violation.field, description=violation.description)
            for violation in bad_request.field_violations
        ),
        retry_after=retry.retry_delay.ToTimedelta() if has_retry else None,
        metadata=metadata,
        details=tuple(details),
    )


def failure_from_rpc_error(error: grpc.RpcError) -> RequestFailure | None:
    """Reads a failure of ours from what a call raised, of grpc and grpc.aio alike.

    Returns:
        The failure, or None when the other side did not send one: it was not reached, the deadline passed, or something
        between the two answered. `error.code()` and `error.details()` then tell more.
    """
    try:
        status = rpc_status.from_call(error)
    except (ValueError, DecodeError, AttributeError):
        # The status contradicts the call's own code or message, is damaged, or the error is of no call at all.
        return None
    return None if status is None else failure_from_status(status)


def _add_violations(status: status_pb2.Status, violations: tuple[Violation, ...], budget: int) -> None:
    """Adds as many violations as fit; BadRequest stands right after ErrorInfo."""
    bad_request = error_details_pb2.BadRequest()
    room = budget - status.ByteSize() - len("type.googleapis.com/google.rpc.BadRequest") - 16
    for violation in violations:
        bad_request.field_violations.add(field=violation.field, description=_shortened(violation.description))
        if bad_request.ByteSize() > room:
            del bad_request.field_violations[-1]
            break
    if bad_request.field_violations:
        status.details.insert(1, _packed(bad_request))


def _shortened(text: str) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= MESSAGE_BUDGET_BYTES:
        return encoded.decode()
    mark = " …"
    return encoded[: MESSAGE_BUDGET_BYTES - len(mark.encode())].decode(errors="ignore") + mark


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def _unpacked(packed: any_pb2.Any) -> Message | None:
    try:
        descriptor = descriptor_pool.Default().FindMessageTypeByName(packed.TypeName())
    except KeyError:
        return None
    message = message_factory.GetMessageClass(descriptor)()
    try:
        message.ParseFromString(packed.value)
    except DecodeError:
        return None
    return message


def _reason(info: error_details_pb2.ErrorInfo, code: int) -> tuple[Reason, dict[str, str]]:
    metadata = dict(info.metadata)
    if info.reason in Reason.__members__:
        return Reason[info.reason], metadata
    known = {member.value for member in StatusCode}
    stand_in = _STAND_INS.get(StatusCode(code), Reason.INTERNAL) if code in known else Reason.INTERNAL
    return stand_in, metadata | {"reason": info.reason}
