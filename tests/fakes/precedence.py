"""What precedence processes have, and whether any may be given here."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

from agents.precedence import give_precedence


@cache
def is_allowed() -> bool:
    """Tells whether this process may give precedence, and have threads run in real time."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        try:
            os.sched_setscheduler(process.pid, os.SCHED_RR, os.sched_param(1))
            return give_precedence(process.pid)
        except OSError:
            return False
        finally:
            process.kill()


def nice_of(pid: int) -> int:
    """Gives the nice value of a process' autogroup, which counts against all others."""
    return int(Path(f"/proc/{pid}/autogroup").read_text().split()[-1])


def policies_of(pid: int) -> dict[str, int]:
    """Gives the scheduling policies of a process' threads, by their names."""
    return {
        (thread / "comm").read_text().strip(): os.sched_getscheduler(int(thread.name))
        for thread in Path(f"/proc/{pid}/task").iterdir()
    }
