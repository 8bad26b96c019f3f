"""What the driver's library (NVML) says by error codes and by its recovery action, as faults.

The numbers are NVML's and never change. They stand here again because this room knows no library.
"""

from __future__ import annotations

from agents.health.device_health import Fault, HealthState

UNINITIALIZED = 1
NOT_FOUND = 6
DRIVER_NOT_LOADED = 9
LIBRARY_NOT_FOUND = 12
GPU_IS_LOST = 15
RESET_REQUIRED = 16
LIBRARY_VERSION_MISMATCH = 18
GPU_NOT_FOUND = 28
UNKNOWN = 999

RECOVERY_RESET = "RECOVERY_ACTION"
RECOVERY_DRAIN = "RECOVERY_DRAIN"
CONTAINER_LOST_GPUS = "CONTAINER_LOST_GPUS"
DRIVER_HANGS = "DRIVER_HANGS"

_CURES = {
    1: "reset the GPU (nvidia-smi --gpu-reset)",
    2: "reboot the machine",
    3: "drain its peer-to-peer traffic, then reset it",
    4: "let its work end, then reset it",
    5: "recover its IMEX domain",
    6: "reset its bus",
    7: "reboot the machine",
}
_DRAINS = frozenset({3, 4})
"""The driver lets what runs go on; it wants nothing new."""

CONTAINER_MESSAGE = (
    'Cannot use any GPU: NVML answers "Unknown Error" for all of them, as in a container that lost its devices '
    "(a systemd daemon-reload does that). Try restarting the container; re-create it with its devices named, or with "
    "device rules that outlive a reload, so that it does not come again."
)


def recovery_fault(action: int) -> Fault | None:
    """Gives what a recovery action says. None: action 0, nothing is to be done."""
    if action == 0:
        return None
    cure = _CURES.get(action, f"see the driver's recovery action {action}")
    drains = action in _DRAINS
    wants = "takes no new work until it is recovered" if drains else "must be recovered"
    return Fault(
        state=HealthState.UNHEALTHY,
        reason=RECOVERY_DRAIN if drains else RECOVERY_RESET,
        message=f"Cannot use it: its driver says that it {wants}. Try: {cure}.",
    )


def container_fault() -> Fault:
    """Gives the fault of a container that lost its GPUs, which is none of the GPUs'."""
    return Fault(state=HealthState.UNHEALTHY, reason=CONTAINER_LOST_GPUS, message=CONTAINER_MESSAGE)


def silent_fault(seconds: float) -> Fault:
    """Gives the fault of a driver that does not answer."""
    return Fault(
        state=HealthState.UNHEALTHY,
        reason=DRIVER_HANGS,
        message=f"Cannot use it: its driver has not answered for {seconds:.0f} s. Try the kernel's log; if it stays "
        "so, reboot the machine.",
    )


def error_fault(code: int, words: str) -> Fault:
    """Gives what an error of the library says of the device that was asked about. Total.

    Args:
        code: NVML's. One that only means "not supported" is none and does not belong here.
        words: The library's own.
    """
    state, reason, message = HealthState.UNHEALTHY, "NVML_ERROR", ""
    match code:
        case 15:
            state, reason = HealthState.LOST, "GPU_LOST"
            message = (
                "it is lost (fallen off the bus or otherwise unreachable). Try rebooting the machine; if it comes "
                "back, check its power, its cooling and its seat"
            )
        case 16:
            reason, message = "RESET_REQUIRED", "it needs a reset. Try nvidia-smi --gpu-reset, or reboot the machine"
        case 999:
            reason = "UNKNOWN_ERROR"
            message = (
                'NVML says "Unknown Error", as when a container lost the device. Try restarting the container, then '
                "the kernel's log for Xid lines"
            )
        case 6 | 28:
            reason, message = "GPU_MISSING", "NVML no longer shows it. Try nvidia-smi -L"
        case 9 | 12:
            reason, message = "DRIVER_GONE", f"the NVIDIA driver is gone ({words}). Try nvidia-smi"
        case 18:
            reason = "DRIVER_MISMATCH"
            message = (
                "the NVIDIA driver in the kernel is of another version than its libraries, as after an upgrade. Try "
                "rebooting the machine"
            )
        case _:
            message = f'NVML says "{words}". Try nvidia-smi and the kernel\'s log'
    return Fault(state=state, reason=reason, message=f"Cannot use it: {message}.")
