"""The failure catalogue: every reason a request can be refused for, and the status code it travels under.

A failure is raised anywhere below a servicer as `RequestFailure`; only the gRPC boundary (`grpc_server`) turns it into
a `google.rpc.Status`. The catalogue is total: a reason without a code cannot exist, because the code is its value.
It never imports grpc, so that any layer may raise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.message import Message


class StatusCode(Enum):
    """The gRPC status codes in use, by number."""

    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    OUT_OF_RANGE = 11
    INTERNAL = 13
    UNAVAILABLE = 14


class Reason(Enum):
    """Stable names of failures, as `google.rpc.ErrorInfo.reason`. They never change their meaning."""

    # The value is (name, code): Enum would merge members with equal values into aliases.
    INVALID_REQUEST = ("INVALID_REQUEST", StatusCode.INVALID_ARGUMENT)
    PAGE_TOKEN_INVALID = ("PAGE_TOKEN_INVALID", StatusCode.INVALID_ARGUMENT)
    PROFILE_UNKNOWN = ("PROFILE_UNKNOWN", StatusCode.INVALID_ARGUMENT)
    REQUEST_ID_REUSED = ("REQUEST_ID_REUSED", StatusCode.ALREADY_EXISTS)
    INPUT_NOT_FOUND = ("INPUT_NOT_FOUND", StatusCode.NOT_FOUND)
    INPUT_NOT_ALLOWED = ("INPUT_NOT_ALLOWED", StatusCode.PERMISSION_DENIED)
    INPUT_UNREADABLE = ("INPUT_UNREADABLE", StatusCode.INVALID_ARGUMENT)
    INPUT_NO_VIDEO = ("INPUT_NO_VIDEO", StatusCode.INVALID_ARGUMENT)
    INPUT_UNREACHABLE = ("INPUT_UNREACHABLE", StatusCode.FAILED_PRECONDITION)
    OUTPUT_NOT_ALLOWED = ("OUTPUT_NOT_ALLOWED", StatusCode.PERMISSION_DENIED)
    OUTPUT_EXISTS = ("OUTPUT_EXISTS", StatusCode.ALREADY_EXISTS)
    OUTPUT_UNWRITABLE = ("OUTPUT_UNWRITABLE", StatusCode.FAILED_PRECONDITION)
    SESSION_NOT_FOUND = ("SESSION_NOT_FOUND", StatusCode.NOT_FOUND)
    SESSION_NOT_ENDED = ("SESSION_NOT_ENDED", StatusCode.FAILED_PRECONDITION)
    SESSION_NOT_RECORDING = ("SESSION_NOT_RECORDING", StatusCode.FAILED_PRECONDITION)
    DELIVERY_PENDING = ("DELIVERY_PENDING", StatusCode.FAILED_PRECONDITION)
    DEVICE_NOT_FOUND = ("DEVICE_NOT_FOUND", StatusCode.NOT_FOUND)
    DEVICE_BUSY = ("DEVICE_BUSY", StatusCode.FAILED_PRECONDITION)
    DEVICE_UNHEALTHY = ("DEVICE_UNHEALTHY", StatusCode.FAILED_PRECONDITION)
    DEVICE_AMBIGUOUS = ("DEVICE_AMBIGUOUS", StatusCode.INVALID_ARGUMENT)
    ARTIFACT_NOT_FOUND = ("ARTIFACT_NOT_FOUND", StatusCode.NOT_FOUND)
    RANGE_INVALID = ("RANGE_INVALID", StatusCode.OUT_OF_RANGE)
    UPLOAD_NOT_FOUND = ("UPLOAD_NOT_FOUND", StatusCode.NOT_FOUND)
    UPLOAD_INCOMPLETE = ("UPLOAD_INCOMPLETE", StatusCode.FAILED_PRECONDITION)
    UPLOAD_TOO_LARGE = ("UPLOAD_TOO_LARGE", StatusCode.INVALID_ARGUMENT)
    UPLOAD_OFFSET_WRONG = ("UPLOAD_OFFSET_WRONG", StatusCode.OUT_OF_RANGE)
    UPLOAD_IN_USE = ("UPLOAD_IN_USE", StatusCode.FAILED_PRECONDITION)
    UPLOAD_TOO_MANY = ("UPLOAD_TOO_MANY", StatusCode.RESOURCE_EXHAUSTED)
    TOO_MANY_WATCHERS = ("TOO_MANY_WATCHERS", StatusCode.RESOURCE_EXHAUSTED)
    NO_CAPABLE_DEVICE = ("NO_CAPABLE_DEVICE", StatusCode.FAILED_PRECONDITION)
    NO_CAPACITY = ("NO_CAPACITY", StatusCode.RESOURCE_EXHAUSTED)
    QUEUE_FULL = ("QUEUE_FULL", StatusCode.RESOURCE_EXHAUSTED)
    QUEUE_TIMEOUT = ("QUEUE_TIMEOUT", StatusCode.RESOURCE_EXHAUSTED)
    NO_DEVICE_READY = ("NO_DEVICE_READY", StatusCode.UNAVAILABLE)
    BALANCER_UNREACHABLE = ("BALANCER_UNREACHABLE", StatusCode.UNAVAILABLE)  # Made by clients alone.
    AGENT_UNREACHABLE = ("AGENT_UNREACHABLE", StatusCode.UNAVAILABLE)
    AGENT_BUSY = ("AGENT_BUSY", StatusCode.FAILED_PRECONDITION)
    DISK_FULL = ("DISK_FULL", StatusCode.RESOURCE_EXHAUSTED)
    DISK_LOW = ("DISK_LOW", StatusCode.RESOURCE_EXHAUSTED)
    STORE_UNAVAILABLE = ("STORE_UNAVAILABLE", StatusCode.UNAVAILABLE)
    SHUTTING_DOWN = ("SHUTTING_DOWN", StatusCode.UNAVAILABLE)
    SETTINGS_REFUSED = ("SETTINGS_REFUSED", StatusCode.FAILED_PRECONDITION)
    INTERNAL = ("INTERNAL", StatusCode.INTERNAL)

    @property
    def code(self) -> StatusCode:
        """The status code under which the reason travels."""
        return self.value[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One field of a request that is wrong, as `google.rpc.BadRequest.FieldViolation`."""

    field: str
    """Path from the request, such as `session.transcode.renditions[1].encode.width`."""
    description: str
    """What is wrong, why, and what would be right."""


@dataclass(slots=True, kw_only=True, eq=False)
class RequestFailure(Exception):
    """A request that cannot be done, with everything its sender should be told."""

    reason: Reason
    message: str
    """A sentence: "Cannot X: Y. Try Z." Without secrets."""
    violations: tuple[Violation, ...] = ()
    retry_after: timedelta | None = None
    """When trying again may help. None: no promise."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Figures for programs, as `ErrorInfo.metadata`."""
    details: tuple[Message, ...] = ()
    """Further protobuf messages for the status, such as a `gpu_balancer.v1.Placement` with its refusals."""

    def __post_init__(self) -> None:
        Exception.__init__(self, self.message)


def invalid(*violations: Violation, reason: Reason = Reason.INVALID_REQUEST) -> RequestFailure:
    """Makes the failure of a malformed request from its violations; the message joins them."""
    told = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return RequestFailure(reason=reason, message=f"Cannot use the request: {told}", violations=violations)
