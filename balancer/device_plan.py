"""From the settings and the GPUs found: which devices there are, and what is said of them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from balancer.device_registry import DeviceRule
from balancer.domain.capacity import CapacityOverride, capacity_of_host
from balancer.domain.device import DeviceIdentity, DeviceKind
from balancer.domain.ids import DeviceId
from gpu_balancer.runtime.settings_sections import AgentDeviceSettings, format_cores, parse_cores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from balancer.domain.device import Dimension
    from balancer.settings import BalancerSettings, CapacitySettings

_CONTAINER_MEMORY = Path("/sys/fs/cgroup/memory.max")
_DEFAULT_CPU_DEVICE = DeviceId("cpu-0")


def device_rules(settings: BalancerSettings) -> tuple[DeviceRule, ...]:
    """Gives what the settings say of devices, in the order in which rules are tried."""
    cpu_rules = (
        DeviceRule(kind=DeviceKind.CPU, match=entry.name, weight=entry.weight, override=_override(entry))
        for entry in settings.cpu_devices
    )
    gpu_rules = (
        DeviceRule(
            kind=DeviceKind.NVIDIA,
            match=entry.match,
            weight=entry.weight,
            override=_override(entry, encoder_sessions=entry.encoder_sessions),
        )
        for entry in settings.devices
    )
    return (*cpu_rules, *gpu_rules)


def _override(entry: CapacitySettings, *, encoder_sessions: int | None = None) -> CapacityOverride:
    return CapacityOverride(
        decode_pixels_per_second=entry.decode_pixels_per_second,
        scale_pixels_per_second=entry.scale_pixels_per_second,
        encode_pixels_per_second=entry.encode_pixels_per_second,
        encoder_sessions=encoder_sessions,
        memory_mib=entry.memory_mib,
    )


def local_devices(settings: BalancerSettings, gpus: Sequence[DeviceIdentity]) -> tuple[DeviceIdentity, ...]:
    """Tells which devices this machine offers: its GPUs, then the settings' CPU devices.

    Without either, all cores that this process may use make one CPU device, "cpu-0".
    """
    cpu_devices = tuple(
        _cpu_device(DeviceId(device.name), parse_cores(device.cores)) for device in settings.cpu_devices
    )
    if not gpus and not cpu_devices:
        return (_cpu_device(_DEFAULT_CPU_DEVICE, tuple(sorted(os.sched_getaffinity(0)))),)
    return (*gpus, *cpu_devices)


def _cpu_device(device_id: DeviceId, cores: tuple[int, ...]) -> DeviceIdentity:
    return DeviceIdentity(id=device_id, kind=DeviceKind.CPU, model="CPU", cores=cores)


def host_capacity(settings: BalancerSettings) -> Mapping[Dimension, int]:
    """Tells what this machine has for all its devices together: what the settings say, else what it has.

    Cores are those that this process may use; agents of this machine share them.
    """
    host = settings.host
    return capacity_of_host(
        len(os.sched_getaffinity(0)),
        memory_mib=_machine_mib() if host.memory_mib is None else host.memory_mib,
        upload_bits_per_second=host.upload_bits_per_second,
    )


def _machine_mib() -> int:
    """Gives the memory of the machine, or of the container where that may use less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        bound = int(_CONTAINER_MEMORY.read_text())
    except (OSError, ValueError):
        # No such file, or "max".
        bound = total
    return min(total, bound) >> 20


def agent_device(identity: DeviceIdentity) -> AgentDeviceSettings:
    """Gives the [device] section of the agent of a device."""
    if identity.kind is DeviceKind.CPU:
        return AgentDeviceSettings(kind="cpu", id=identity.id, cores=format_cores(identity.cores))
    return AgentDeviceSettings(kind="nvidia", id=identity.id)
