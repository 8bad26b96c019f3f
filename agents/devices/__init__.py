"""What the agent knows of its device: what it is, what it does right now, and what it was proved able to do.

Everything here looks at the real thing: NVML for a GPU, /proc and the affinity mask for a CPU device, and a real ffmpeg
for capabilities. What cannot be found out is None, never 0. Nothing here decides where a session goes.
"""

from __future__ import annotations

from agents.devices.identity import identities_json


def list_devices_json() -> tuple[str, tuple[str, ...]]:
    """Lists the GPUs of this machine.

    Returns:
        A JSON list of identities, "[]" where there is no NVML; and a sentence for each GPU that cannot be used.
    """
    from agents.devices.nvml import inspect_gpus

    inspection = inspect_gpus()
    return identities_json(inspection.gpus), inspection.faults
