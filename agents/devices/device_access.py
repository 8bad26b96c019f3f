"""From an agent's settings to its device: what it is, and what measures it and watches its health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agents.devices.cpu import CpuMeter, cpu_identity, pin_process
from agents.devices.health_store import HealthStore
from agents.devices.health_watch import HealthWatch
from agents.devices.measurements import DeviceFault

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from agents.devices.identity import DeviceIdentity
    from agents.devices.measurements import Measurements
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.settings_sections import AgentDeviceSettings


class DeviceMeter(Protocol):
    """Measures one device over and over.

    MUST be used by one thread at a time, and may block for seconds on a sick card: not in the event loop's thread.
    """

    def measure(self, sessions: Collection[int] = ()) -> Measurements:
        """Reads the device once.

        Args:
            sessions: Process ids of the live sessions' first processes. They, this process and what all of these have
                started are the agent's own; the rest is foreign.

        Raises:
            DeviceFault: When the device cannot work.
        """
        ...

    def close(self) -> None:
        """Lets go of what it holds. May be called twice."""
        ...


def take_device(settings: AgentDeviceSettings) -> DeviceIdentity:
    """Finds the device of the settings, and for a CPU device keeps this process and its children to its cores.

    Args:
        settings: The section [device].

    Returns:
        What it is. Blocks: call from a thread.

    Raises:
        DeviceFault: When the GPU is not there, or the cores are not this process's to use.
    """
    if settings.kind == "cpu":
        identity = cpu_identity(settings.id, settings.cores)
        pin_process(identity.cores)
        return identity
    from agents.devices.nvml import inspect_gpus  # here, because an agent of a CPU device needs no NVML

    inspection = inspect_gpus()
    for identity in inspection.gpus:
        if identity.id == settings.id:
            return identity
    seen = ", ".join(gpu.id for gpu in inspection.gpus) or "none"
    told = " ".join([*inspection.faults, f"GPUs that can be seen: {seen}."])
    raise DeviceFault(f"Cannot find the GPU {settings.id}. {told} Try nvidia-smi -L.")


def open_meter(identity: DeviceIdentity, *, clock: Clock) -> DeviceMeter:
    """Makes what measures a device; opens nothing that can fail."""
    if identity.kind == "cpu":
        return CpuMeter(identity, clock=clock)
    from agents.devices.nvml import GpuMeter  # here, because an agent of a CPU device needs no NVML

    return GpuMeter(identity, clock=clock)


def open_health_watch(
    identity: DeviceIdentity, *, state_folder: Path, clock: Clock, changed: Callable[[], None]
) -> HealthWatch | None:
    """Makes what watches a device's health; opens nothing that can fail. Blocks for the disk.

    Args:
        identity: The device.
        state_folder: The agent's own, where what must outlive it is kept.
        clock: Tells when.
        changed: Called in the event loop when the health is another.

    Returns:
        The watch, not running yet. None: cores are not watched.
    """
    if identity.kind == "cpu":
        return None
    from agents.devices.nvml_health import GpuHealthEye  # here, because an agent of a CPU device needs no NVML

    store = HealthStore(state_folder / "health.json")
    return HealthWatch(identity, GpuHealthEye(identity), store=store, clock=clock, changed=changed)
