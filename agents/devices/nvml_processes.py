"""What processes other than the agent's own do on an NVIDIA GPU, as far as NVML tells it process by process.

NVML gives process ids of the host, whatever container asks. So when live sessions are known and none of their ids is
in any list, nothing can be told apart, and all of it is unknown: a guess would take our own work for somebody else's.
Each list stands alone: cards under MIG and old drivers leave some out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_BYTES_PER_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignUse:
    """What others use of a card. None: not supported, or it cannot be told whose it is."""

    encoder_sessions: int | None = None
    encoder_percent: int | None = None
    """Of all encoder engines together."""
    decoder_percent: int | None = None
    memory_mib: int | None = None


def read_foreign_use(handle: Any, own: Collection[int], *, live: bool, since_us: int) -> tuple[ForeignUse, int]:
    """Reads the lists of processes once. Blocks.

    Args:
        handle: NVML's handle of the card.
        own: The agent's own processes.
        live: Whether it has live sessions.
        since_us: Time of the last sample that was read, by the driver's clock. 0: none was.

    Returns:
        What others use, and the time of the last sample.
    """
    encoders = _listed(lambda: [session.pid for session in pynvml.nvmlDeviceGetEncoderSessions(handle)])
    samples = _samples(handle, since_us)
    memory = _memory_bytes(handle)
    seen = {*(encoders or ()), *(sample.pid for sample in samples or ()), *(memory or ())}
    latest_us = max((int(sample.timeStamp) for sample in samples or ()), default=since_us)
    if live and seen.isdisjoint(own):
        return ForeignUse(), latest_us
    others = None if samples is None else [sample for sample in samples if sample.pid not in own]
    use = ForeignUse(
        encoder_sessions=None if encoders is None else sum(pid not in own for pid in encoders),
        encoder_percent=None if others is None else min(100, sum(int(sample.encUtil) for sample in others)),
        decoder_percent=None if others is None else min(100, sum(int(sample.decUtil) for sample in others)),
        memory_mib=_foreign_mib(memory, own),
    )
    return use, latest_us


def _samples(handle: Any, since_us: int) -> list[Any] | None:
    """Gives the latest sample of each process since a time. None: not supported."""
    try:
        read = pynvml.nvmlDeviceGetProcessUtilization(handle, since_us)
    except pynvml.NVMLError as error:
        # So it says that no process has used an engine since then.
        return [] if error.value == pynvml.NVML_ERROR_NOT_FOUND else None
    latest: dict[int, Any] = {}
    for sample in read:
        # The driver may leave entries of the list empty.
        if sample.timeStamp and (sample.pid not in latest or sample.timeStamp >= latest[sample.pid].timeStamp):
            latest[sample.pid] = sample
    return list(latest.values())


def _memory_bytes(handle: Any) -> dict[int, int | None] | None:
    """Gives device memory by process; a process that computes and draws is in both lists with the same figure."""
    computing = _listed(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle))
    drawing = _listed(lambda: pynvml.nvmlDeviceGetGraphicsRunningProcesses(handle))
    if computing is None or drawing is None:
        return None
    return {int(process.pid): process.usedGpuMemory for process in (*drawing, *computing)}


def _foreign_mib(memory: dict[int, int | None] | None, own: Collection[int]) -> int | None:
    if memory is None:
        return None
    figures = [used for pid, used in memory.items() if pid not in own]
    known = [used for used in figures if used is not None]
    return sum(known) // _BYTES_PER_MIB if len(known) == len(figures) else None


def _listed(query: Callable[[], list[Any]]) -> list[Any] | None:
    try:
        return query()
    except pynvml.NVMLError:
        return None  # a card that is lost is found out by what is measured beside this
