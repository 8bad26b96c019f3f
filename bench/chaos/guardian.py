"""A folder whose processes and mounts end with the program that made it, even when that program is killed.

A house is made to outlive the death of its parts, so what is left of one would run for hours. A guardian process waits
for the end of its maker's pipe; then it kills whatever names the folder in its command line, and removes the folder.

Run as: guardian.py FOLDER
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_KILLING_S = 5.0
_WELL = b"well"
"""What a maker says that has cleaned up itself."""


@contextmanager
def guarded_scratch() -> Iterator[Path]:
    """Makes a temporary folder, in which further temporary ones are made, and removes it whatever happens."""
    former, folder = tempfile.tempdir, Path(tempfile.mkdtemp(prefix="gb-chaos-"))
    command = [sys.executable, "-I", "-S", __file__, str(folder)]
    # A session of its own: whoever ends the maker's whole group means the maker.
    guardian = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        tempfile.tempdir = former
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(BrokenPipeError):
            guardian.communicate(_WELL)


def _named(folder: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            with suppress(OSError):
                if folder.encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


def _clean_up(folder: str) -> None:
    until_s = time.monotonic() + _KILLING_S
    # Again and again: balancers start agents, and agents sessions.
    while (pids := _named(folder)) and time.monotonic() < until_s:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    for line in Path("/proc/mounts").read_text().splitlines():
        place = line.split()[1]
        if place.startswith(f"{folder}/"):
            subprocess.run(["umount", "--lazy", place], check=False)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__" and sys.stdin.buffer.read() != _WELL:
    _clean_up(sys.argv[1])
