"""What a client asks about the past of all sessions: a trace of them for the simulator."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

from gpu_balancer.client import methods
from gpu_balancer.client.requests import Requests
from gpu_balancer.v1 import session_service_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime


class TraceRequests(Requests):
    """The call of SessionService that tells what was asked for and when."""

    async def export_trace(
        self,
        selection: session_service_pb2.SessionFilter | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> AsyncGenerator[str, None]:
        """Gives the lines of a trace that `gpu-balancerd simulate` replays, without their ends.

        Args:
            selection: Which sessions, as `session_filter` makes it. None: all.
            start: Those asked for from then on. None: all that are kept.
            end: Those asked for before. None: all.

        Raises:
            RequestFailure: When the daemon refuses or cannot be reached, also in the middle; the lines until then are
                no whole trace.
        """
        request = session_service_pb2.ExportTraceRequest(filter=selection)
        if start is not None:
            request.start_time.FromDatetime(start)
        if end is not None:
            request.end_time.FromDatetime(end)
        async with aclosing(self._connection.stream(methods.EXPORT_TRACE, request)) as answers:
            async for answer in answers:
                for line in answer.lines:
                    yield line
