"""What looks after devices beside placing sessions on them: quarantine, health, and the cap of their encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.device_health import DeviceHealthWatch, SessionsLeave
from balancer.device_probes import DeviceProbes
from balancer.device_quarantine import DeviceQuarantine
from balancer.encoder_caps import EncoderCaps
from balancer.settings_reload import quarantine_settings

if TYPE_CHECKING:
    from balancer.device_registry import DeviceRegistry
    from balancer.ports.agent_clients import AgentClients
    from balancer.ports.session_observer import SessionObserver
    from balancer.session_engine import SessionEngine
    from balancer.settings import BalancerSettings
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard


class DeviceCare:
    """The parts that know the devices, and hear of sessions."""

    def __init__(
        self,
        registry: DeviceRegistry,
        agents: AgentClients,
        *,
        clock: Clock,
        tasks: TaskGuard,
        settings: BalancerSettings,
    ) -> None:
        """Begins without anything against any device.

        Args:
            registry: The devices.
            agents: Probe them.
            clock: Tells when.
            tasks: Owns what they do.
            settings: What the operator tuned.
        """
        patience = quarantine_settings(settings)
        self.probes = DeviceProbes(registry, agents, tasks=tasks)
        self._tasks = tasks
        self._quarantine = DeviceQuarantine(registry, self.probes, clock=clock, tasks=tasks, settings=patience)
        self._health = DeviceHealthWatch(registry, self.probes, clock=clock, tasks=tasks, settings=patience)
        self._caps = EncoderCaps(registry, tasks)

    @property
    def observers(self) -> tuple[SessionObserver, ...]:
        """Who hears of what becomes of sessions."""
        return (self._quarantine, self._health, self._caps)

    def begin(self, engine: SessionEngine) -> None:
        """Acts from now on; to be called once the engine has started."""
        self._caps.attach(engine)
        self._health.attach(SessionsLeave(engine))
        self._tasks.spawn_eternal(self._caps.watch(), name="encoder session cap")
        self._tasks.spawn_eternal(self._health.watch(), name="device health")
        self._tasks.spawn_eternal(self._health.keep_moving(), name="leave sick devices")

    def use(self, settings: BalancerSettings) -> None:
        """Goes by other settings from now on."""
        self._quarantine.settings = self._health.settings = quarantine_settings(settings)
