"""Speaks for agents of which nothing has been heard since the balancer started, though sessions of theirs live.

An agent that is started from outside is watched once it has been found, because only then its device is known.
Until then nobody would say of its sessions that it is silent, or lost.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import structlog

from balancer.domain.session_events import AgentSilent

if TYPE_CHECKING:
    from collections.abc import Callable

    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord
    from balancer.domain.session_events import SessionEvent
    from balancer.ports.agent_clients import AgentClients
    from gpu_balancer.runtime.clock import Clock

_log = structlog.stdlib.get_logger(__name__)

SILENCE = timedelta(seconds=10)
"""As for an agent that is watched."""
_LOOK_S = 1.0


class ForsakenSessions(Protocol):
    """What is needed of the engine."""

    def live(self) -> tuple[SessionRecord, ...]:
        """Gives the sessions that have not ended."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent) -> object:
        """Takes an event."""
        ...

    def lose(self, device_id: DeviceId, silence: timedelta) -> None:
        """Has the device's sessions go on elsewhere, where they may and can."""
        ...


class AbsentAgents:
    """Counts the silence of agents that have not been found."""

    def __init__(
        self,
        sessions: ForsakenSessions,
        agents: AgentClients,
        *,
        clock: Clock,
        lost_after: Callable[[], timedelta | None],
    ) -> None:
        """Begins to count when `watch` does.

        Args:
            sessions: The engine.
            agents: Those that were found.
            clock: Tells how long nothing was heard.
            lost_after: As for an agent that is watched.
        """
        self._sessions = sessions
        self._agents = agents
        self._clock = clock
        self._lost_after = lost_after

    async def watch(self) -> None:
        """Looks once a second, for ever."""
        began_s = self._clock.monotonic_s()
        told: set[DeviceId] = set()
        while True:
            await asyncio.sleep(_LOOK_S)
            silence = timedelta(seconds=self._clock.monotonic_s() - began_s)
            absent = self._absent() if silence >= SILENCE else {}
            for device_id in absent.keys() - told:
                _log.warning("no agent speaks for a device whose sessions live", device=device_id)
            told = set(absent)
            for device_id, session_ids in absent.items():
                for session_id in session_ids:
                    self._sessions.post(session_id, AgentSilent())
                lost_after = self._lost_after()
                if lost_after is not None and silence >= lost_after:
                    self._sessions.lose(device_id, silence)

    def _absent(self) -> dict[DeviceId, list[SessionId]]:
        absent: dict[DeviceId, list[SessionId]] = {}
        for record in self._sessions.live():
            if record.device_id is not None and self._agents.get(record.device_id) is None:
                absent.setdefault(record.device_id, []).append(record.id)
        return absent
