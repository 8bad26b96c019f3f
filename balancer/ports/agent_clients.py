"""Which client speaks to which device's agent. A plain dict of clients will do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from balancer.domain.ids import DeviceId
    from balancer.ports.agent_client import AgentClient


class AgentClients(Protocol):
    """Finds the client of a device; devices may come and go meanwhile."""

    def get(self, device_id: DeviceId, /) -> AgentClient | None:
        """Gives the client of a device. None: no agent speaks for it now."""
        ...
