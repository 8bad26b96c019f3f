"""Which client speaks to the agent of which device: filled by whoever finds agents, read by everybody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from balancer.domain.ids import DeviceId

Client = TypeVar("Client")


class AgentDirectory(Generic[Client]):
    """Clients by device, in device order."""

    def __init__(self) -> None:
        """Begins empty."""
        self._clients: dict[DeviceId, Client] = {}

    def add(self, device_id: DeviceId, client: Client) -> None:
        """Enters the client of a device.

        Raises:
            ValueError: Another agent already speaks for the device.
        """
        if device_id in self._clients:
            raise ValueError(f"Cannot use two agents for device {device_id}. Stop one of them.")
        self._clients[device_id] = client

    def get(self, device_id: DeviceId) -> Client | None:
        """Gives the client of a device, or None."""
        return self._clients.get(device_id)

    def __iter__(self) -> Iterator[tuple[DeviceId, Client]]:
        return iter(tuple(self._clients.items()))

    def __len__(self) -> int:
        return len(self._clients)
