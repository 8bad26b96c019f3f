"""Puts a weight that was set by hand into the settings file.

The first entry that fits a device counts, whole. So a weight is written into that entry when it speaks of this device
alone; when it speaks of others too, a new entry for this device is put before it, with all that it said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tomlkit
from tomlkit.items import Array, Table

from balancer.settings.balancer_settings import BalancerSettings
from balancer.settings.device_entries import DeviceNames, entry_fits
from gpu_balancer.runtime.settings_file import edit_settings
from gpu_balancer.runtime.settings_sections import format_cores

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from pathlib import Path

    from tomlkit import TOMLDocument


def save_weight(
    path: Path, device: DeviceNames, weight: int, *, others: Sequence[DeviceNames] = ()
) -> BalancerSettings:
    """Writes a device's weight into the settings file. Blocks for the disk.

    Args:
        path: The file.
        device: The device.
        weight: 0 to 10,000.
        others: The other devices, whose weights must not change with it.

    Returns:
        The settings as they are in the file now.

    Raises:
        SettingsError: When the file cannot be read or written, or would not load with this weight.
    """

    def edit(document: TOMLDocument) -> None:
        if device.is_cpu:
            _write_cpu_weight(document, device, weight)
        else:
            _write_gpu_weight(document, device, weight, others)

    return edit_settings(path, edit, BalancerSettings)


def _write_cpu_weight(document: TOMLDocument, device: DeviceNames, weight: int) -> None:
    entries = _entries(document, "cpu_devices")
    entry = next((entry for entry in entries if entry.get("name") == device.id), None)
    if entry is not None:
        _set_weight(entry, weight)
    else:
        # The device of all cores, which exists when the file names none.
        new = {"name": device.id, "cores": format_cores(device.cores), "weight": weight}
        _put(document, "cpu_devices", len(entries), new)


def _write_gpu_weight(document: TOMLDocument, device: DeviceNames, weight: int, others: Sequence[DeviceNames]) -> None:
    entries = _entries(document, "devices")
    at = next((index for index, entry in enumerate(entries) if _fits(entry, device)), None)
    if at is None:
        _put(document, "devices", len(entries), {"match": device.id, "weight": weight})
    elif any(_fits(entries[at], other) for other in others):
        _put(document, "devices", at, {**entries[at], "match": device.id, "weight": weight})
    else:
        _set_weight(entries[at], weight)


def _fits(entry: MutableMapping[str, Any], device: DeviceNames) -> bool:
    return entry_fits(str(entry.get("match", "")), device)


def _entries(document: TOMLDocument, name: str) -> list[MutableMapping[str, Any]]:
    return list(document.get(name, ()))


def _set_weight(entry: MutableMapping[str, Any], weight: int) -> None:
    if "weight" in entry or not isinstance(entry, Table):
        entry["weight"] = weight
        return
    trail = _take_trail(entry)
    entry.add("weight", weight)
    for item in trail:
        entry.add(item)


def _take_trail(entry: Table) -> list[Any]:
    """Takes off the blank lines and comments behind the last key: they are about what follows the table."""
    trail: list[Any] = []
    body = entry.value.body
    while body and body[-1][0] is None:
        trail.insert(0, body.pop()[1])
    return trail


def _put(document: TOMLDocument, name: str, index: int, keys: dict[str, Any]) -> None:
    """Puts an entry into an array of tables, however the file writes it, or begins one at the file's end."""
    written = document.get(name)
    if isinstance(written, Array):
        # devices = [{ … }, { … }]
        written.insert(index, keys)
        return
    entry = tomlkit.table()
    for key, value in keys.items():
        entry.add(key, value)
    if written is None:
        array = tomlkit.aot()
        array.append(entry)
        document[name] = array
        return
    if index < len(written):
        entry.add(tomlkit.nl())
    else:
        last = written[-1]
        for item in _take_trail(last):
            entry.add(item)
        last.add(tomlkit.nl())
    written.insert(index, entry)
