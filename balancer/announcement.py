"""What the daemon prints for the person who started it: where it listens, and its devices once they were tried."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from balancer.domain.device import DeviceKind, Direction
from gpu_balancer import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from balancer.device_entry import DeviceEntry
    from balancer.device_registry import DeviceRegistry


def announce_listening(http_address: str, addresses: Sequence[str], state_dir: Path) -> None:
    """Prints where the daemon listens."""
    lines = [f"gpu-balancerd {__version__} is serving; state in {state_dir}"]
    lines += [f"  gRPC  {address}" for address in addresses]
    lines += [f"  HTTP  {http_address}"] if http_address else []
    _print(lines)


async def announce_devices(registry: DeviceRegistry) -> None:
    """Prints a table of the devices once each of them has been tried, or given up."""
    await registry.await_first_probe()
    rows: list[tuple[str, ...]] = [("DEVICE", "MODEL", "WEIGHT", "STATE", "ENCODES", "DECODES")]
    rows += [_row(entry) for entry in registry.entries()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    _print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _row(entry: DeviceEntry) -> tuple[str, ...]:
    state = f"{entry.state.value}: {entry.state_message}" if entry.state_message else entry.state.value
    weight = f"{entry.weight} ({entry.weight_source.value})"
    return (
        entry.identity.id,
        entry.identity.model,
        weight,
        state,
        _codecs(entry, Direction.ENCODE),
        _codecs(entry, Direction.DECODE),
    )


def _codecs(entry: DeviceEntry, direction: Direction) -> str:
    """Names what the device does itself; with a * what only the cores of a GPU's host do."""
    found: dict[str, dict[bool, set[int]]] = {}
    for capability in entry.capabilities:
        if capability.works and capability.direction is direction:
            own = capability.hardware or entry.identity.kind is DeviceKind.CPU
            found.setdefault(capability.codec.value, {}).setdefault(own, set()).add(capability.bit_depth)
    return " ".join(_codec(codec, depths) for codec, depths in found.items()) or "-"


def _codec(codec: str, depths: Mapping[bool, set[int]]) -> str:
    shown = depths.get(True) or depths[False]
    return f"{codec}/{'+'.join(map(str, sorted(shown)))}{'' if True in depths else '*'}"


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()
