"""Golden probes of devices: one at a time for each, whoever asks, and a lost device only for an operator."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from balancer.agent_answers import agent_failures, unreachable
from balancer.domain.health import HealthState
from balancer.ports.agent_client import AgentUnreachableError
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from balancer.device_entry import DeviceEntry
    from balancer.domain.ids import DeviceId
    from balancer.ports.agent_client import AgentReport
    from balancer.ports.agent_clients import AgentClients
    from gpu_balancer.runtime.task_guard import TaskGuard


class ProbedDevices(Protocol):
    """What is asked of the devices, and told of them."""

    def get(self, device_id: DeviceId) -> DeviceEntry | None:
        """Gives a device by its id. None: it is not known."""
        ...

    def update_agent(self, report: AgentReport) -> None:
        """Takes what a probe showed."""
        ...


class DeviceProbes:
    """Asks agents to probe their devices."""

    def __init__(self, devices: ProbedDevices, agents: AgentClients, *, tasks: TaskGuard) -> None:
        """Begins without a probe.

        Args:
            devices: Told of what was seen.
            agents: Probe.
            tasks: Owns the probes: whoever waits may leave.
        """
        self._devices = devices
        self._agents = agents
        self._tasks = tasks
        self._running: dict[DeviceId, asyncio.Task[str | None]] = {}
        self._listeners: list[Callable[[DeviceId], None]] = []

    def on_passed_for_operator(self, listener: Callable[[DeviceId], None]) -> None:
        """Tells somebody of devices that have passed a probe that an operator asked for."""
        self._listeners.append(listener)

    async def probe(self, device_id: DeviceId) -> str | None:
        """Probes a device because it may be well again; who asks while that is going on gets the same answer.

        Returns:
            What is wrong with it, as a sentence. None: nothing.
        """
        running = self._running.get(device_id)
        if running is None:
            running = self._tasks.spawn(self._probe(device_id), name=f"probe {device_id}")
            self._running[device_id] = running
            running.add_done_callback(lambda _: self._running.pop(device_id, None))
        return await asyncio.shield(running)

    async def probe_for_operator(self, device_id: DeviceId) -> None:
        """Probes a device because an operator says that it is well.

        Raises:
            RequestFailure: AGENT_UNREACHABLE, or the agent's own.
        """
        what = f"probe device {device_id}"
        agent = self._agents.get(device_id)
        if agent is None:
            raise unreachable(what)
        with agent_failures(what):
            report = await agent.probe(by_operator=True)
        self._devices.update_agent(report)
        if _problem(report) is None:
            for listener in self._listeners:
                listener(device_id)

    async def _probe(self, device_id: DeviceId) -> str | None:
        entry, agent = self._devices.get(device_id), self._agents.get(device_id)
        if entry is None or agent is None:
            return "No agent speaks for it."
        if entry.health is not None and entry.health.state is HealthState.LOST:
            return entry.health.message
        try:
            report = await agent.probe()
        except (AgentUnreachableError, RequestFailure) as error:
            return str(error) or type(error).__name__
        self._devices.update_agent(report)
        return _problem(report)


def _problem(report: AgentReport) -> str | None:
    if report.health is not None and report.health.bars:
        return report.health.message
    if report.fault_message:
        return report.fault_message
    if not any(one.works for one in report.capabilities):
        return "Its golden probe saw nothing work."
    return None
