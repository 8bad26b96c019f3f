"""What a device is, as found by looking at it. Mirrors the contract's `DeviceIdentity` without knowing it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

DeviceKind = Literal["nvidia", "cpu"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceIdentity:
    """What a device is. None: unknown, or the device has no such thing."""

    id: str
    """GPU UUID, or the name of a CPU device."""
    kind: DeviceKind
    model: str
    """As the driver or the kernel names it."""
    architecture: str | None = None
    """"Ada" for instance."""
    pci_address: str | None = None
    """With domain: "00000000:65:00.0"."""
    index: int | None = None
    """NVML index. It may change at a reboot and is no CUDA ordinal: for people, never a key."""
    driver_version: str | None = None
    memory_total_mib: int | None = None
    encoder_engines: int | None = None
    decoder_engines: int | None = None
    cores: tuple[int, ...] = ()
    """Numbers of the cores of a CPU device, ascending. Empty for a GPU."""
    video_clock_mhz: int | None = None
    """Highest video clock."""
    table_model: str | None = None
    """Row of the capacity table that names the model. None: the model is unknown and safe defaults hold."""


def identities_json(identities: tuple[DeviceIdentity, ...]) -> str:
    """Writes identities as a JSON list of objects with the field names above; unknown is null."""
    return json.dumps([asdict(identity) for identity in identities], indent=2)


def identity_from_json(value: dict[str, Any]) -> DeviceIdentity:
    """Reads one object of `identities_json`.

    Raises:
        TypeError: When it has other fields.
    """
    return DeviceIdentity(**{**value, "cores": tuple(value.get("cores", ()))})
