"""CPU devices: a named set of cores, what it is, how busy it is, and how a process is kept on it.

A core set is explicit numbers, not a count, so that two devices of one host never share a core and what is measured is
what is used. Inside a container the affinity mask alone says too much: a quota of 2 cores on a machine of 64 leaves all
64 in the mask, so the quota bounds how many are taken.
"""

from __future__ import annotations

import os
import socket
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from agents.devices.identity import DeviceIdentity
from agents.devices.measurements import DeviceFault, Measurements
from agents.devices.own_processes import own_processes, processor_ticks
from gpu_balancer.runtime.settings_sections import parse_cores

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from gpu_balancer.runtime.clock import Clock

_BYTES_PER_MIB = 1024 * 1024
_PROC = Path("/proc")
_CGROUPS = Path("/sys/fs/cgroup")
_IDLE_FIELDS = (3, 4)  # idle and iowait, after user, nice and system; see proc_stat(5)
_COUNTED_FIELDS = 8  # guest times are part of user and nice already


def format_cores(cores: Iterable[int]) -> str:
    """Writes a core set as the kernel does, "0-3,6"; `settings_sections.parse_cores` reads it back."""
    ranges: list[list[int]] = []
    for core in sorted(set(cores)):
        if ranges and ranges[-1][1] == core - 1:
            ranges[-1][1] = core
        else:
            ranges.append([core, core])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)


def usable_cores(*, cgroups: Path = _CGROUPS, proc: Path = _PROC) -> tuple[int, ...]:
    """Tells the cores that this process may keep busy: its affinity mask, as many of it as its cgroups allow.

    Args:
        cgroups: Where cgroups are mounted.
        proc: Where procfs is mounted.

    Returns:
        Numbers, ascending; at least one.
    """
    allowed = sorted(os.sched_getaffinity(0))
    quota = _quota_cores(cgroups, proc)
    if quota is None or quota >= len(allowed):
        return tuple(allowed)
    # Containers of one machine see the same mask: each starts elsewhere in it, else all of them would share core 0.
    start = zlib.crc32(socket.gethostname().encode()) % len(allowed)
    return tuple(sorted((allowed + allowed)[start : start + max(1, int(quota))]))


def cpu_identity(name: str, cores: str | None = None, *, proc: Path = _PROC) -> DeviceIdentity:
    """Describes a CPU device of this machine.

    Args:
        name: The device's identifier, "cpu-0" for instance.
        cores: Its core set, "0-3,6". None: every usable core.
        proc: Where procfs is mounted.

    Returns:
        What it is.

    Raises:
        DeviceFault: When this process may not use those cores.
        ValueError: When the core set cannot be read.
    """
    wanted = usable_cores() if cores is None else parse_cores(cores)
    allowed = os.sched_getaffinity(0)
    missing = [core for core in wanted if core not in allowed]
    if missing:
        raise DeviceFault(
            f"Cannot use the cores {format_cores(missing)} for {name}: this process may use {format_cores(allowed)} "
            "only. Try other cores in the settings, or a wider CPU affinity of the service."
        )
    return DeviceIdentity(
        id=name,
        kind="cpu",
        model=_processor_model(proc),
        architecture=os.uname().machine,
        cores=wanted,
        memory_total_mib=psutil.virtual_memory().total // _BYTES_PER_MIB,
    )


def pin_process(cores: tuple[int, ...]) -> None:
    """Keeps this process, all its threads and everything it starts from now on to some cores.

    Args:
        cores: Their numbers; at least one.

    Raises:
        DeviceFault: When the kernel refuses them all.
    """
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise DeviceFault(
            f"Cannot keep to the cores {format_cores(cores)}: {error.strerror}. Try other cores."
        ) from error
    # The call above moves the calling thread alone; libraries have started others by now.
    for thread in Path("/proc/self/task").iterdir():
        try:
            os.sched_setaffinity(int(thread.name), cores)
        except ProcessLookupError:
            continue  # ended meanwhile


class CpuMeter:
    """Measures the cores of one CPU device; utilization is the busy share since the measurement before."""

    def __init__(self, identity: DeviceIdentity, *, clock: Clock, proc: Path = _PROC) -> None:
        """Takes the first sample, so that the first measurement has a utilization."""
        self._cores = identity.cores
        self._clock = clock
        self._proc = proc
        self._stat = proc / "stat"
        self._before = _core_times(self._stat, self._cores)
        self._own_before: int | None = None

    def measure(self, sessions: Collection[int] = ()) -> Measurements:
        """Reads the counters once. Does not block for long."""
        own = own_processes(sessions, proc=self._proc)
        own_now = None if own is None else processor_ticks(own, proc=self._proc)
        now = _core_times(self._stat, self._cores)
        before, self._before = self._before, now
        own_before, self._own_before = self._own_before, own_now
        return Measurements(
            measure_time=self._clock.now(),
            compute_utilization_percent=_busy_percent(before, now),
            memory_used_mib=_memory_used_mib(),
            foreign_compute_utilization_percent=_foreign_percent(before, now, own_before, own_now),
        )

    def close(self) -> None:
        """Holds nothing; here so that every meter is used alike."""


def _core_times(stat: Path, cores: tuple[int, ...]) -> tuple[int, int] | None:
    """Sums (idle ticks, all ticks) of some cores. None when no line of theirs is there: all offline, or no procfs."""
    wanted = {f"cpu{core}" for core in cores}
    idle = total = 0
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, *figures = line.split()
        if name in wanted:
            ticks = [int(figure) for figure in figures[:_COUNTED_FIELDS]]
            idle += sum(ticks[field] for field in _IDLE_FIELDS)
            total += sum(ticks)
    return (idle, total) if total else None


def _busy_percent(before: tuple[int, int] | None, now: tuple[int, int] | None) -> int | None:
    if before is None or now is None or now[1] <= before[1]:
        return None
    idle, total = now[0] - before[0], now[1] - before[1]
    # iowait may run backwards a little (proc_stat(5)), so the share is kept within its range.
    return min(100, max(0, round(100 * (total - idle) / total)))


def _foreign_percent(
    before: tuple[int, int] | None, now: tuple[int, int] | None, own_before: int | None, own_now: int | None
) -> int | None:
    if before is None or now is None or own_before is None or own_now is None or now[1] <= before[1]:
        return None
    idle, total = now[0] - before[0], now[1] - before[1]
    # The time of a session that was adopted leaves the sum with it, once it has ended: then there is no telling.
    own = max(own_now - own_before, 0)
    return min(100, max(0, round(100 * (total - idle - own) / total)))


def _memory_used_mib() -> int:
    memory = psutil.virtual_memory()
    return int(memory.total - memory.available) // _BYTES_PER_MIB


def _processor_model(proc: Path) -> str:
    """Takes the first name in /proc/cpuinfo; Arm kernels give none, so there it is the architecture."""
    try:
        lines = (proc / "cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip().lower() in {"model name", "cpu model", "hardware"} and value.strip():
            return " ".join(value.split())
    return f"{os.uname().machine} processor"


def _quota_cores(cgroups: Path, proc: Path) -> float | None:
    """Gives the tightest processor quota above this process in cores. None: none is set."""
    quotas = [quota for folder in _cgroup_folders(cgroups, proc) if (quota := _folder_quota(folder)) is not None]
    return min(quotas, default=None)


def _cgroup_folders(cgroups: Path, proc: Path) -> list[Path]:
    """Lists the folders of this process's cgroup and of all above it, version 2 and the cpu controller of version 1."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return [cgroups]
    folders = [cgroups, cgroups / "cpu"]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = (cgroups / "cpu" if controllers else cgroups) / path.lstrip("/")
        folders.extend([folder, *(parent for parent in folder.parents if parent.is_relative_to(cgroups))])
    return folders


def _folder_quota(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not _is_number(quota) or not _is_number(period) or period == "0":
        return None  # "max", or -1: no quota
    return int(quota) / int(period)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()
