"""Writes down what was asked for and when, as a trace for the simulator.

What is kept is what was accepted: a session that was refused left nothing behind, and one that was deleted or has been
forgotten is not there either. Inputs, outputs, labels and names of sessions do not leave the balancer this way.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

from balancer.domain.session import SessionRecord
from balancer.session_listing import SessionPage
from balancer.simulation.trace import TraceSession
from balancer.simulation.trace_lines import header_line, session_line
from gpu_balancer.runtime.failures import Violation, invalid
from gpu_balancer.v1 import session_pb2, session_service_pb2

_LINES_PER_MESSAGE = 200


async def exported_trace(
    page: Callable[[str], SessionPage], *, start: datetime | None, end: datetime | None, now: datetime
) -> AsyncIterator[session_service_pb2.ExportTraceResponse]:
    """Gives the lines of a trace.

    Args:
        page: Gives sessions that are meant, newest first, a page for each token, first for "".
        start: Only sessions that were asked for from then on. None: all.
        end: Only those asked for before. None: all.
        now: When the trace is closed, unless `end` is earlier.
    """
    closed = now if end is None else min(now, end)
    records: list[SessionRecord] = []
    token = ""
    while True:
        found = page(token)
        records += (
            one for one in found.records if (start is None or one.create_time >= start) and one.create_time < closed
        )
        token = found.next_page_token
        if not token or (start is not None and found.records[-1].create_time < start):
            break
        # Others are served between pages: there may be very many.
        await asyncio.sleep(0)
    began = start or (records[-1].create_time if records else closed)
    lines = [header_line(end_s=_seconds(closed - began), title=f"exported {closed:%Y-%m-%d %H:%M} UTC")]
    for record in reversed(records):
        lines.append(session_line(traced(record, began)))
        if len(lines) == _LINES_PER_MESSAGE:
            yield session_service_pb2.ExportTraceResponse(lines=lines)
            lines = []
            await asyncio.sleep(0)
    if lines:
        yield session_service_pb2.ExportTraceResponse(lines=lines)


def traced(record: SessionRecord, began: datetime) -> TraceSession:
    """Makes a session of a trace of one that the balancer keeps.

    Args:
        record: The session.
        began: The trace's beginning, not after the session's.
    """
    asked = session_pb2.Session.FromString(record.payload)
    # It holds a device from its placement on, which is at once unless it waited; what it waited does not count.
    held_from = record.create_time if record.queued_time is None else record.running_time or record.create_time
    held = None if record.end_time is None else max(0.0, _seconds(record.end_time - held_from))
    return TraceSession(
        arrival_s=max(0.0, _seconds(record.create_time - began)),
        duration_s=held,
        workload=record.workload,
        priority=record.priority,
        preemptible=record.preemptible,
        max_wait_s=max(0.0, asked.max_wait.ToTimedelta().total_seconds()),
    )


def span_of(request: session_service_pb2.ExportTraceRequest) -> tuple[datetime | None, datetime | None]:
    """Reads from when to when sessions are meant.

    Raises:
        RequestFailure: INVALID_REQUEST for an instant that is none, or an end that is not after the start.
    """
    start, end = _instant(request, "start_time"), _instant(request, "end_time")
    if start is not None and end is not None and end <= start:
        raise invalid(Violation(field="end_time", description="must be after start_time"))
    return start, end


def _instant(request: session_service_pb2.ExportTraceRequest, field: str) -> datetime | None:
    if not request.HasField(field):  # type: ignore[arg-type]
        return None
    try:
        return getattr(request, field).ToDatetime(tzinfo=UTC)  # type: ignore[no-any-return]
    except (ValueError, OverflowError):
        raise invalid(Violation(field=field, description="must be an instant of the years 1 to 9999")) from None


def _seconds(length: timedelta) -> float:
    return length.total_seconds()
