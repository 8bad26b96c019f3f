"""Which [[devices]] entry speaks of which GPU: the first one that fits, whole."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceNames:
    """All that an entry may call a device."""

    id: str
    """GPU UUID, or the name of a CPU device."""
    is_cpu: bool = False
    model: str = ""
    pci_address: str | None = None
    """With domain: "00000000:65:00.0"."""
    index: int | None = None
    """NVML's."""
    cores: tuple[int, ...] = ()
    """Of a CPU device."""


def entry_fits(match: str, device: DeviceNames) -> bool:
    """Whether an entry of [[devices]] speaks of a device. Letter case does not matter.

    Args:
        match: UUID, PCI address (as NVML, the kernel or people write it), NVML index, or model name with or without
            "NVIDIA"; `*` and `?` stand for any text and any character.
        device: The device; a CPU device fits none.
    """
    if device.is_cpu:
        return False
    pattern = match.strip().lower()
    if device.index is not None and pattern == str(device.index):
        return True
    names = [device.id, device.model, device.model.removeprefix("NVIDIA ").strip()]
    if device.pci_address:
        names += pci_spellings(device.pci_address)
    return any(fnmatchcase(name.lower(), pattern) for name in names)


def pci_spellings(address: str) -> tuple[str, str, str]:
    """Gives "00000000:65:00.0" as NVML, the kernel ("0000:65:00.0") and people ("65:00.0") write it."""
    domain, _, rest = address.lower().partition(":")
    return (address, f"{int(domain, 16):04x}:{rest}", rest)
