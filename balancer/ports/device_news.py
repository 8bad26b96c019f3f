"""What the engine asks of the devices, and where the news of their agents go. `DeviceRegistry` is both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from balancer.domain.device import DeviceView
    from balancer.domain.ids import DeviceId
    from balancer.ports.agent_client import AgentReport, Measurements


class DeviceViews(Protocol):
    """Shows the devices to a placement."""

    def views(self) -> Sequence[DeviceView]:
        """Gives every device in device order, as it is now. Called for each admission: MUST be cheap."""
        ...


class DeviceNews(Protocol):
    """Takes what is learned of devices. Every device that is watched MUST be known to it before."""

    def update_agent(self, report: AgentReport) -> None:
        """Takes what an agent tells of itself and its device."""
        ...

    def update_measurements(self, device_id: DeviceId, measurements: Measurements) -> None:
        """Takes what was measured on a device."""
        ...

    def mark_unreachable(self, device_id: DeviceId, message: str) -> None:
        """Notes that a device's agent has been silent for too long."""
        ...

    def mark_reachable(self, device_id: DeviceId) -> None:
        """Notes that a device's agent answers."""
        ...
