"""What is wished of a house, and the settings that make it so."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_CAPACITY = (
    "decode_pixels_per_second = 4000000000\nscale_pixels_per_second = 4000000000\n"
    "encode_pixels_per_second = 4000000000\n"
)
"""Far more than cores do: the pictures are tiny, and it is not placement that is looked at here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a house shall have."""

    external: bool = False
    """Whether agents are kept by the house, behind wires that can be cut, instead of by the balancer."""
    settings: str = ""
    """Further settings of the balancer."""
    devices: int = 2
    """CPU devices. The balancer's own share no core, so that there are at most as many as cores."""
    gpus: int = 0
    """GPUs that are stood in for, where a C compiler is and agents are external."""
    clock: bool = False
    """Whether the daemons' wall clock can be set, where a C compiler is."""
    disk_mib: int = 0
    """Size of small disks under state folder and outputs, where the user may mount. 0: none."""


def cpu_devices(wishes: Wishes) -> dict[str, str]:
    """Gives the CPU devices with the core of each."""
    cores = sorted(os.sched_getaffinity(0))
    count = wishes.devices if wishes.external else min(wishes.devices, len(cores))
    return {f"cpu-{number}": str(cores[number % len(cores)]) for number in range(count)}


def balancer_settings(wishes: Wishes, cpus: Mapping[str, str], addresses: list[str], films: Path, out: Path) -> str:
    """Writes the balancer's settings.

    Args:
        wishes: What is wished.
        cpus: CPU devices with their cores.
        addresses: Where external agents are.
        films: Folder of the inputs.
        out: Folder of the outputs.
    """
    server = '[server]\nlisten = ["unix:{state_dir}/balancer.sock"]\nhttp = ""\n'
    devices = "".join(
        f'[[cpu_devices]]\nname = "{name}"\ncores = "{cores}"\nweight = 100\n{_CAPACITY}'
        for name, cores in cpus.items()
        if not wishes.external
    )
    agents = f'[agents]\nlaunch = "external"\naddresses = {json.dumps(addresses)}\n' if wishes.external else ""
    roots = f'[inputs]\nroots = ["{films}"]\nallow_private_networks = true\n[outputs]\nroots = ["{out}"]\n'
    rest = '[recordings]\nenabled = false\n[ffmpeg]\ncandidates = ["bundled"]\n'
    return server + agents + devices + roots + rest + wishes.settings


def agent_settings(device: str, cores: str | None, *, films: Path, out: Path, ffmpeg: str = "bundled") -> str:
    """Writes an external agent's settings.

    Args:
        device: Name of a CPU device, or UUID of a GPU.
        cores: Of a CPU device; other agents may have the same. None: it is a GPU.
        films: Folder of the inputs.
        out: Folder of the outputs.
        ffmpeg: The candidate.
    """
    kind = 'kind = "nvidia"' if cores is None else f'kind = "cpu"\ncores = "{cores}"'
    return (
        f'[device]\nid = "{device}"\n{kind}\n[inputs]\nroots = ["{films}"]\nallow_private_networks = true\n'
        f'[outputs]\nroots = ["{out}"]\n[recordings]\nenabled = false\n[ffmpeg]\ncandidates = ["{ffmpeg}"]\n'
    )
