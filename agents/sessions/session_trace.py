"""The agent's part of a session's trace: launch, wait for the first frame, run.

Spans are made when they are over, from the times in the status. So they need no memory, and an attempt that one agent
launched and another saw end has the same spans as any other. A session that nobody traces costs nothing.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry.trace import StatusCode

from agents.sessions.attempt import Ending
from gpu_balancer.runtime.telemetry import context_from_traceparent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from opentelemetry.trace import Tracer

    from agents.sessions.attempt import AttemptKey, AttemptStatus


class SessionTrace:
    """The spans of one attempt."""

    def __init__(self, tracer: Tracer, traceparent: str, key: AttemptKey) -> None:
        """Continues a trace.

        Args:
            tracer: Makes spans.
            traceparent: W3C trace context of the session. Empty: it is not traced.
            key: Which attempt.
        """
        self._tracer = tracer
        self._traceparent = traceparent
        self._attributes: dict[str, str | int] = {
            "session.name": f"sessions/{key.session}",
            "session.attempt": key.attempt,
        }

    @contextmanager
    def launching(self) -> Iterator[None]:
        """Spans the writing of the folder and the start of the shim."""
        if not self._traceparent:
            yield
            return
        context = context_from_traceparent(self._traceparent)
        with self._tracer.start_as_current_span("session.launch", context=context, attributes=self._attributes):
            yield

    def first_frame(self, status: AttemptStatus) -> None:
        """Spans the time from launch to first frame."""
        if status.launch_time is not None and status.running_time is not None:
            self._span("session.first_frame", status.launch_time, status.running_time, None)

    def ended(self, status: AttemptStatus) -> None:
        """Spans the time from first frame to end; from launch when there was no frame."""
        start = status.running_time or status.launch_time
        if start is not None and status.end_time is not None:
            self._span("session.run", start, max(start, status.end_time), status)

    def _span(self, name: str, start: datetime, end: datetime, ended: AttemptStatus | None) -> None:
        if not self._traceparent:
            return
        context = context_from_traceparent(self._traceparent)
        span = self._tracer.start_span(
            name, context=context, attributes=self._attributes, start_time=_nanoseconds(start)
        )
        if ended is not None and ended.ending is not None:
            span.set_attribute("session.outcome", ended.ending.value)
            if ended.progress is not None:
                span.set_attribute("session.frames", ended.progress.frames)
            if ended.ending is Ending.FAILED and ended.failure is not None:
                span.set_attribute("error.type", ended.failure.reason)
                span.set_status(StatusCode.ERROR, ended.failure.message)
        span.end(end_time=_nanoseconds(end))


def _nanoseconds(instant: datetime) -> int:
    return int(instant.timestamp() * 1_000_000) * 1000
