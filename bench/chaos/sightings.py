"""Finds the processes of a house's attempts, by the attempt's folder in their command lines, and what they write."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.chaos.history import SeenProcess, Sighting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_PROC = Path("/proc")
_WRITING = os.O_WRONLY | os.O_RDWR


class Sighter:
    """Looks at the processes of one house."""

    def __init__(self, state_dirs: tuple[Path, ...]) -> None:
        """Prepares.

        Args:
            state_dirs: State folders of all its agents' parents: `{state_dir}/agents/{device}/…`.
        """
        places = b"|".join(re.escape(str(folder).encode()) for folder in state_dirs)
        self._attempt = re.compile(rb"(?:" + places + rb")/agents/([^/\0]+)/sessions/([^/\0]+)/(\d+)[/\0]")
        self._folders = tuple(str(folder).encode() for folder in state_dirs)
        self.outputs: dict[str, str] = {}
        """Declared outputs outside of attempts' folders: path or folder, and the name it is told by. Added to by
        whoever asks for sessions."""

    def look(self) -> Sighting:
        """Looks once."""
        at_s = time.monotonic()
        return Sighting(at_s=at_s, processes=tuple(self._processes()))

    def house_processes(self) -> dict[int, str]:
        """Gives the command line of everything that names a state folder, by process id: daemons, shims, programs."""
        return {
            pid: line.replace(b"\0", b" ").decode(errors="replace")
            for pid, line in _command_lines()
            if any(folder in line for folder in self._folders) and pid != os.getpid()
        }

    def _processes(self) -> Iterator[SeenProcess]:
        for pid, line in _command_lines():
            found = self._attempt.search(line)
            if found is None:
                continue
            with suppress(OSError):
                state = _state(pid)
                if state in ("Z", "X"):
                    continue
                # Its shim has the same arguments; what joins its parts reports to nobody.
                program = b"\0-progress\0" in line and not line.startswith((b"/bin/sh\0", b"sh\0"))
                yield SeenProcess(
                    pid=pid,
                    session=f"sessions/{found[2].decode()}",
                    attempt=int(found[3]),
                    device=f"devices/{found[1].decode()}",
                    program=program,
                    stopped=state in ("T", "t"),
                    writes=frozenset(_written(pid, self.outputs, found[2].decode())) if program else frozenset(),
                )


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                line = (entry / "cmdline").read_bytes()
                if line:
                    yield int(entry.name), line


def _state(pid: int) -> str:
    return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]


def _written(pid: int, outputs: Mapping[str, str], session: str) -> Iterator[str]:
    """Gives names of outputs that a process has open: declared ones, and what shall become one beside its place."""
    for entry in (_PROC / str(pid) / "fd").iterdir():
        with suppress(OSError):
            path = str(entry.readlink())
            name = next((name for place, name in outputs.items() if path == place or path.startswith(f"{place}/")), "")
            if f"/.gpu-balancer-{session}-" in path:
                name = f"the unfinished file of sessions/{session}"
            if name and _opened_for_writing(pid, entry.name):
                yield name


def _opened_for_writing(pid: int, descriptor: str) -> bool:
    text = (_PROC / str(pid) / "fdinfo" / descriptor).read_text()
    flags = re.search(r"^flags:\s+(\d+)", text, re.MULTILINE)
    return flags is not None and bool(int(flags[1], 8) & _WRITING)
