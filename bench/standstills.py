"""When the machine itself stood still: a core ran nothing, whoever wanted it, as when a virtual one's host is busy.

On each core a process that goes before all others wakes every few milliseconds. When it comes late, nobody else was
there either. What is lost then no program could have kept, so it is told apart.

Run as: standstills.py CORE; ends with its standard input.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WOKEN_EVERY_S = 0.005
_STOOD_S = 0.02
"""A core that was away for longer stood still: more than half of a frame at 30 frames/s."""


@dataclass(frozen=True, slots=True)
class Standstill:
    """A time in which a core ran nothing."""

    begin_s: float
    """Unix time."""
    end_s: float
    """Unix time."""


@dataclass(slots=True)
class Standstills:
    """Those of all cores while they were watched."""

    known: bool = True
    """Whether they could be watched: that takes the right to go before all others."""
    found: list[Standstill] = field(default_factory=list)

    def __str__(self) -> str:
        if not self.known:
            return "whether the machine stood still is not known"
        if not self.found:
            return "the machine never stood still"
        longest_s = max(one.end_s - one.begin_s for one in self.found)
        return f"the machine stood still {len(self.found)} times, {longest_s:.3f} s at most"


@contextmanager
def watched_standstills() -> Iterator[Standstills]:
    """Watches all cores while the block runs; what was found is there when it has ended."""
    command = [sys.executable, "-I", "-S", __file__]
    watchers = [
        subprocess.Popen([*command, str(core)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for core in sorted(os.sched_getaffinity(0))
    ]
    told = Standstills()
    try:
        yield told
    finally:
        for watcher in watchers:
            output, _ = watcher.communicate()
            told.known = told.known and watcher.returncode == 0
            told.found += [Standstill(*map(float, line.split())) for line in output.splitlines()]


def _watch(core: int) -> int:
    """Tells of each standstill of a core until standard input ends. Returns 1 when it may not."""
    try:
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except OSError:
        return 1
    before_s = time.time()
    while not select.select([sys.stdin], [], [], _WOKEN_EVERY_S)[0]:
        now_s = time.time()
        if now_s - before_s > _STOOD_S:
            print(before_s, now_s)
        before_s = now_s
    return 0


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(_watch(int(sys.argv[1])))
