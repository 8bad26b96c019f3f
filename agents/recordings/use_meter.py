"""What a recording takes of its host: processor time and memory of its display and its ffmpeg, from /proc.

By the display's user where it has one of its own, else by its lock: what was started on it has that open, and what
those programs start is theirs. Not by the mark in the environment, over which browsers write.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from agents.displays.process_search import user_ids_of
from agents.lock_holders import has_open
from agents.pipelines.recording_report import MeasuredUse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.displays.display import Display
    from gpu_balancer.runtime.clock import Clock

MEASURED_OVER = timedelta(seconds=15)
_MILLIONTHS = 1_000_000
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class UseSample:
    """Processor time and memory at a moment."""

    at_s: float
    """Monotonic seconds."""
    processor_s: float
    memory_bytes: int


def sample_use(display: Display, program: int | None, *, at_s: float) -> UseSample:
    """Sums up what a recording's processes have used so far. Reads all of /proc.

    Memory is what they would give back (unique set size), because browsers share much between their processes.
    """
    processor_s, memory = 0.0, 0
    for process in processes_of(display, program):
        with contextlib.suppress(psutil.Error, OSError):
            times = process.cpu_times()
            processor_s += times.user + times.system
            memory += _memory_of(process)
    return UseSample(at_s=at_s, processor_s=processor_s, memory_bytes=memory)


def use_between(first: UseSample, last: UseSample) -> MeasuredUse | None:
    """Tells the use over the time between two samples. None: no time has passed."""
    passed_s = last.at_s - first.at_s
    if passed_s <= 0:
        return None
    # A process that has ended meanwhile takes its time with it: then too little is seen, never less than nothing.
    used_s = max(last.processor_s - first.processor_s, 0.0)
    return MeasuredUse(
        cores=round(used_s / passed_s * _MILLIONTHS),
        memory_mib=last.memory_bytes // _MIB,
        measured_time=timedelta(seconds=passed_s),
    )


class UseMeter:
    """Measures one display, once its page has had time to show what it takes."""

    def __init__(self, clock: Clock, *, over: timedelta = MEASURED_OVER) -> None:
        """Begins with the first measurement.

        Args:
            clock: Measures the time.
            over: How long what is used is added up.
        """
        self._clock = clock
        self._over_s = over.total_seconds()
        self._first: UseSample | None = None

    def measure(self, display: Display, program: int | None) -> MeasuredUse | None:
        """Looks whether it is time; reads /proc then.

        Args:
            display: The recording's.
            program: Process id of its ffmpeg. None: it is not known.

        Returns:
            What it takes. None: the time has not passed yet.
        """
        now_s = self._clock.monotonic_s()
        if self._first is None:
            self._first = sample_use(display, program, at_s=now_s)
        elif now_s - self._first.at_s >= self._over_s:
            return use_between(self._first, sample_use(display, program, at_s=now_s))
        return None


def processes_of(display: Display, program: int | None) -> Iterator[psutil.Process]:
    """Finds the processes of a display, and those that they have started. Reads all of /proc.

    Args:
        display: Whose.
        program: Process id of a recording's ffmpeg, which counts too. None: it does not.
    """
    found: set[int] = set()
    # By their ids parents mostly come first; where these have begun anew a grandchild may be missed.
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == program or process.ppid() in found or _is_of(process.pid, display):
                found.add(process.pid)
                yield process


def _is_of(pid: int, display: Display) -> bool:
    if display.user_id is not None:
        return display.user_id in user_ids_of(pid)
    return has_open(pid, Path(display.lock))


def _memory_of(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().uss)
    except psutil.AccessDenied:
        # A sandboxed process of our own user cannot be looked into.
        return int(process.memory_info().rss)
