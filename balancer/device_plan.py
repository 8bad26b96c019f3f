"""From the settings and the GPUs found: which devices there are, and what is said of them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from balancer.device_registry import DeviceRule
from balancer.domain.capacity import CapacityOverride
from balancer.domain.device import DeviceIdentity, DeviceKind
from balancer.domain.ids import DeviceId
from gpu_balancer.runtime.settings_sections import AgentDeviceSettings, format_cores, parse_cores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from balancer.settings import BalancerSettings, CapacitySettings

_DEFAULT_CPU_DEVICE = DeviceId("cpu-0")


def device_rules(settings: BalancerSettings) -> tuple[DeviceRule, ...]:
    """Gives what the settings say of devices, in the order in which rules are tried."""
    cpu_rules = (_rule(DeviceKind.CPU, device.name, device) for device in settings.cpu_devices)
    gpu_rules = (_rule(DeviceKind.NVIDIA, device.match, device) for device in settings.devices)
    return (*cpu_rules, *gpu_rules)


def _rule(kind: DeviceKind, match: str, entry: CapacitySettings) -> DeviceRule:
    figures = {
        name: getattr(entry, name)
        for name in (
            "decode_pixels_per_second",
            "scale_pixels_per_second",
            "encode_pixels_per_second",
            "encoder_sessions",
            "memory_mib",
        )
    }
    given = any(figure is not None for figure in figures.values())
    return DeviceRule(
        kind=kind, match=match, weight=entry.weight, override=CapacityOverride(**figures) if given else None
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


def agent_device(identity: DeviceIdentity) -> AgentDeviceSettings:
    """Gives the [device] section of the agent of a device."""
    if identity.kind is DeviceKind.CPU:
        return AgentDeviceSettings(kind="cpu", id=identity.id, cores=format_cores(identity.cores))
    return AgentDeviceSettings(kind="nvidia", id=identity.id)
