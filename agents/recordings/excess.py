"""Tells when a display takes more of the host than one may: a stranger's page can eat memory and disk without end."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from agents.recordings.failures import memory_exceeded, storage_exceeded
from agents.recordings.use_meter import processes_of

if TYPE_CHECKING:
    from agents.displays.display import Display
    from agents.sessions.attempt import Failure

_MIB = 1 << 20
_BLOCK_BYTES = 512
"""Unit of st_blocks, stat(2)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayBounds:
    """What one display may take, with all that runs on it."""

    memory_mib: int
    folder_mib: int
    """Of disk, in its work folder: the browser's profile, caches and what pages store."""


def find_excess(display: Display, bounds: DisplayBounds) -> Failure | None:
    """Looks whether a display takes more than it may. Reads all of /proc and the display's folder.

    Returns:
        Why its recording is to end. None: it takes no more than it may.
    """
    memory = _private_memory_bytes(display) // _MIB
    if memory > bounds.memory_mib:
        return memory_exceeded(memory, bounds.memory_mib)
    folder = _disk_bytes(display.work) // _MIB
    if folder > bounds.folder_mib:
        return storage_exceeded(folder, bounds.folder_mib)
    return None


def _private_memory_bytes(display: Display) -> int:
    """Sums up what is not shared: told for every process, sandboxed or not, and at little cost."""
    total = 0
    for process in processes_of(display, None):
        with contextlib.suppress(psutil.Error, OSError):
            told = process.memory_info()
            total += max(told.rss - told.shared, 0)
    return total


def _disk_bytes(folder: str) -> int:
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_blocks * _BLOCK_BYTES  # noqa: PTH118 - os.walk speaks strings
    return total
