"""Devices as a test sets them, and a diary of the news about them."""

from __future__ import annotations

from dataclasses import replace

from balancer.domain.device import DeviceState, DeviceView
from balancer.domain.ids import DeviceId
from balancer.ports.agent_client import AgentReport, Measurements


class FakeDeviceNews:
    """Shows `devices` to placements and notes who is reachable."""

    def __init__(self, *devices: DeviceView) -> None:
        self.devices = devices
        self.reports: list[AgentReport] = []
        self.measurements: dict[DeviceId, Measurements] = {}
        self.unreachable: dict[DeviceId, str] = {}
        self.diary: list[str] = []

    def views(self) -> tuple[DeviceView, ...]:
        return self.devices

    def update_agent(self, report: AgentReport) -> None:
        self.reports.append(report)

    def update_measurements(self, device_id: DeviceId, measurements: Measurements) -> None:
        self.measurements[device_id] = measurements

    def mark_unreachable(self, device_id: DeviceId, message: str) -> None:
        self.unreachable[device_id] = message
        self._change(device_id, DeviceState.READY, DeviceState.UNREACHABLE)
        self.diary.append(f"{device_id} unreachable")

    def mark_reachable(self, device_id: DeviceId) -> None:
        self.unreachable.pop(device_id, None)
        self._change(device_id, DeviceState.UNREACHABLE, DeviceState.READY)
        self.diary.append(f"{device_id} reachable")

    def _change(self, device_id: DeviceId, before: DeviceState, after: DeviceState) -> None:
        changed = tuple(
            replace(view, state=after) if view.id == device_id and view.state is before else view
            for view in self.devices
        )
        if changed != self.devices:
            self.devices = changed
