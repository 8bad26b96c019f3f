"""HTTP connections that must ask in time: one that says nothing, or half of a request, takes no place from another.

uvicorn waits for a request's head for ever and counts every connection against its limit, so that whoever opens enough
of them and stays silent would have everybody else refused. Here a head has a time limit, and when connections run out
those that ask for nothing make room, the longest waiting first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio
    from datetime import timedelta

    from starlette.types import ASGIApp
    from uvicorn.server import ServerState


class PromptHeadsConfig(uvicorn.Config):
    """uvicorn's settings, with what its connections bear."""

    def __init__(self, app: ASGIApp, *, head_timeout: timedelta, max_connections: int, **others: Any) -> None:
        """Makes the settings.

        Args:
            app: What is served.
            head_timeout: How long a request's head may take, from connecting or from the answer before it.
            max_connections: Number of connections from which on one without a request is closed for each new one, and
                requests are refused when there is none.
            others: Those of uvicorn.
        """
        super().__init__(app, http=PromptHeads, limit_concurrency=max_connections, **others)
        self.head_timeout_s = head_timeout.total_seconds()
        self.waiting: dict[PromptHeads, None] = {}
        """Connections without a request, the longest waiting first."""


class PromptHeads(H11Protocol):
    """One connection."""

    config: PromptHeadsConfig

    def __init__(
        self,
        config: PromptHeadsConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """Made by uvicorn."""
        super().__init__(config, server_state, app_state, _loop)
        self._waiting = config.waiting
        self._head_timeout_s = config.head_timeout_s
        self._too_late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's own
        """Begins to wait, in the place of another when there are too many."""
        super().connection_made(transport)
        while self._waiting and len(self.connections) >= (self.limit_concurrency or 0):
            longest = next(iter(self._waiting))
            longest.give_way()
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Waits no more."""
        self._stop_waiting()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Takes what came; a head that is whole ends the wait."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Waits for the next head, which may have come already."""
        if not self.transport.is_closing():
            self._await_head()
        super().on_response_complete()

    def give_way(self) -> None:
        """Closes at once, without a word and whatever has not been read yet."""
        self._stop_waiting()
        self.connections.discard(self)
        self.transport.abort()

    def _await_head(self) -> None:
        self._stop_waiting()
        self._waiting[self] = None
        self._too_late = self.loop.call_later(self._head_timeout_s, self.transport.close)

    def _stop_waiting(self) -> None:
        self._waiting.pop(self, None)
        if self._too_late is not None:
            self._too_late.cancel()
            self._too_late = None
