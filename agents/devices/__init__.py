"""What the agent knows of its device: what it is, what it does right now, and what it was proved able to do.

Everything here looks at the real thing: NVML for a GPU, /proc and the affinity mask for a CPU device, and a real ffmpeg
for capabilities. What cannot be found out is None, never 0. Nothing here decides where a session goes.
"""

from __future__ import annotations

from agents.devices.identity import identities_json


def list_devices_json() -> str:
    """Lists the GPUs of this machine as a JSON list of identities; "[]" where there is no NVML."""
    from agents.devices.nvml import list_gpus

    return identities_json(list_gpus())
