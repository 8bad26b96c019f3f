"""A wall clock for daemons under test that can be set while they run: see set_clock/set_clock.c."""

from __future__ import annotations

import shutil
import struct
import subprocess
from datetime import timedelta
from pathlib import Path

_SOURCE = Path(__file__).parent / "set_clock" / "set_clock.c"


class SettableClock:
    """The clock of every process that has its environment, and of those that they start."""

    def __init__(self, folder: Path) -> None:
        """Builds it; right at first.

        Args:
            folder: Where its library and its file are put.
        """
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise RuntimeError("Cannot build the settable clock: no C compiler. Try installing gcc.")
        library, self._file = folder / "set_clock.so", folder / "set-by"
        options = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
        subprocess.run([compiler, *options, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "SET_CLOCK_FILE": str(self._file)}

    def set_by(self, jump: timedelta) -> None:
        """Sets the clock this far off the machine's."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", int(jump.total_seconds())))
