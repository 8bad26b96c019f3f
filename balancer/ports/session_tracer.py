"""Who begins the trace of a session, before there is a session."""

from __future__ import annotations

from typing import Protocol


class SessionTracer(Protocol):
    """Begins and abandons traces. MUST NOT raise or wait."""

    def begin(self) -> str | None:
        """Begins a trace; gives its W3C traceparent, or None when nothing is traced."""
        ...

    def abandon(self, traceparent: str | None, reason: str) -> None:
        """Ends a trace whose session was not admitted, for a reason by its stable name."""
        ...


class NoTracer:
    """Traces nothing."""

    def begin(self) -> str | None:
        """Begins nothing."""
        return None

    def abandon(self, traceparent: str | None, reason: str) -> None:
        """Ends nothing."""
