"""Which processes of this machine are an agent's own, and how much processor time they have used.

By parenthood, from a few files per session, because reading all of /proc every second costs more than it tells: what
the agent has started (probes, sessions), and the sessions that it has found running, whose parent is init.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

_PROC = Path("/proc")
_TIMES = slice(11, 15)  # utime, stime, cutime and cstime, counted from the state; see proc_pid_stat(5)


def own_processes(sessions: Collection[int], *, proc: Path = _PROC) -> frozenset[int] | None:
    """Finds an agent's own processes.

    Args:
        sessions: Process ids of the live sessions' first processes.
        proc: Where procfs is mounted.

    Returns:
        Their process ids. None: the kernel does not tell of children.
    """
    agent = os.getpid()
    if not (proc / str(agent) / "task" / str(agent) / "children").exists():
        return None
    found: set[int] = set()
    # The agent starts programs from many threads. Programs that sessions run start others from their first one.
    waiting = [*sessions, agent, *_children(proc, agent, every_thread=True)]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            if pid != agent:
                waiting += _children(proc, pid, every_thread=False)
    return frozenset(found)


def processor_ticks(processes: Iterable[int], *, proc: Path = _PROC) -> int:
    """Sums the processor time of processes, and of their children that have ended, in ticks since each began."""
    return sum(_ticks(proc / str(pid) / "stat") for pid in processes)


def _children(proc: Path, pid: int, *, every_thread: bool) -> list[int]:
    folder = proc / str(pid) / "task"
    try:
        threads = [entry.name for entry in folder.iterdir()] if every_thread else [str(pid)]
    except OSError:
        return []
    found: list[int] = []
    for thread in threads:
        try:
            found += map(int, (folder / thread / "children").read_text().split())
        except OSError:
            continue  # it has ended meanwhile
    return found


def _ticks(stat: Path) -> int:
    try:
        figures = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(int(figure) for figure in figures[_TIMES])
