"""From the settings and the GPUs found: which devices there are, what is said of them, and their agents' settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import tomlkit

from balancer.device_registry import DeviceRule
from balancer.domain.capacity import CapacityOverride
from balancer.domain.device import DeviceIdentity, DeviceKind
from balancer.domain.ids import DeviceId
from gpu_balancer.runtime.settings_sections import parse_cores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from balancer.settings import BalancerSettings, CapacitySettings

_DEFAULT_CPU_DEVICE = DeviceId("cpu-0")
_SHARED_SECTIONS = ("inputs", "outputs", "ffmpeg", "ingest", "log", "telemetry")


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


def agent_settings(
    settings: BalancerSettings, identity: DeviceIdentity, uploads_dir: Path
) -> Mapping[str, Mapping[str, object]]:
    """Makes the settings of a local agent: the balancer's own sections, and which device it serves.

    Args:
        settings: The balancer's.
        identity: The agent's device.
        uploads_dir: Folder of uploads, which agents may read besides the settings' roots.
    """
    document = {name: _section(settings, name) for name in _SHARED_SECTIONS}
    sessions = _section(settings, "sessions")
    sessions.pop("keep_ended_h")
    document["sessions"] = sessions
    document["inputs"]["roots"] = [str(root) for root in (*settings.inputs.roots, uploads_dir)]
    device: dict[str, object] = {"kind": identity.kind.value, "id": identity.id}
    if identity.kind is DeviceKind.CPU:
        device["cores"] = ",".join(map(str, identity.cores))
    server = {
        "max_receive_mib": settings.server.max_receive_mib,
        "max_concurrent_streams": settings.server.max_concurrent_streams,
        "orphan_exit_s": settings.agents.orphan_exit_s,
    }
    return {"device": device, "server": server, **document}


def agent_settings_toml(settings: BalancerSettings, identity: DeviceIdentity, uploads_dir: Path) -> str:
    """Writes `agent_settings` as TOML, with a note that it is not for editing."""
    note = "# Written by gpu-balancerd at each start of the agent. Edit balancer.toml instead.\n\n"
    return note + tomlkit.dumps(agent_settings(settings, identity, uploads_dir))


def _section(settings: BalancerSettings, name: str) -> dict[str, object]:
    section: dict[str, object] = getattr(settings, name).model_dump(mode="json", exclude_none=True)
    return section
