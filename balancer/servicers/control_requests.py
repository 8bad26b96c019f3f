"""What clients say when they extend a recording, or look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.servicers.session_validation import LONGEST_DURATION, SHORTEST_DURATION
from balancer.servicers.violations import Violations
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from datetime import timedelta

    from gpu_balancer.v1.session_service_pb2 import ExtendSessionRequest, SnapshotSessionRequest

SMALLEST_SNAPSHOT, LARGEST_SNAPSHOT = 16, 8_192
"""Pixels of width."""


def max_duration_of(request: ExtendSessionRequest) -> timedelta | None:
    """Reads the new bound of time. None: none.

    Raises:
        RequestFailure: INVALID_REQUEST.
    """
    if not request.HasField("max_duration"):
        return None
    found = Violations()
    found.check_duration("max_duration", request.max_duration, SHORTEST_DURATION, LONGEST_DURATION)
    found.refuse()
    return request.max_duration.ToTimedelta()


def snapshot_width_of(request: SnapshotSessionRequest) -> int | None:
    """Reads how wide a picture is wanted, in pixels. None: as wide as the display.

    Raises:
        RequestFailure: INVALID_REQUEST.
    """
    if not request.HasField("width"):
        return None
    found = Violations()
    found.check_range("width", request.width, SMALLEST_SNAPSHOT, LARGEST_SNAPSHOT, " pixels")
    found.refuse()
    return request.width


def with_duration(payload: bytes, max_duration: timedelta | None) -> bytes:
    """Gives a stored session with another bound of time. None: without one."""
    session = session_pb2.Session.FromString(payload)
    if max_duration is None:
        session.ClearField("max_duration")
    else:
        session.max_duration.FromTimedelta(max_duration)
    return session.SerializeToString()
