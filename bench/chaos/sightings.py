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
    from collections.abc import Iterator

_PROC = Path("/proc")
_WRITING = os.O_WRONLY | os.O_RDWR
_TICKS = os.sysconf("SC_CLK_TCK")
_UNFINISHED = re.compile(r"/\.gpu-balancer-([^/]+)-\d+(?:/|$)")


class Sighter:
    """Looks at the processes of one house."""

    def __init__(self, state_dirs: tuple[Path, ...]) -> None:
        """Prepares.

        Args:
            state_dirs: State folders of all its agents' parents: `{state_dir}/agents/{device}/…`.
        """
        places = b"|".join(re.escape(str(folder).encode()) for folder in state_dirs)
        attempt = rb"(?:" + places + rb")/agents/([^/\0]+)/sessions/([^/\0]+)/(\d+)"
        self._attempt = re.compile(attempt + rb"[/\0]")
        self._artifact = re.compile(attempt + rb"/artifacts/")
        self._folders = tuple(str(folder).encode() for folder in state_dirs)
        self._boot_s = time.monotonic() - time.clock_gettime(time.CLOCK_BOOTTIME)
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

    def process(self, pid: int) -> SeenProcess | None:
        """Gives a process when it is one of an attempt and lives."""
        with suppress(OSError):
            return self._seen(pid, _command_line(pid))
        return None

    def output_name(self, path: str) -> str:
        """Gives the name of the output that a file belongs to. Empty: it is none.

        Args:
            path: Of a file that a program writes: a declared output or below it, what shall become one beside its
                place, or an artifact.
        """
        # Whoever asks for sessions adds to them meanwhile.
        declared = next((at for at in tuple(self.outputs) if path == at or path.startswith(f"{at}/")), None)
        unfinished, artifact = _UNFINISHED.search(path), self._artifact.search(path.encode())
        if unfinished is not None:
            return f"the unfinished file of sessions/{unfinished[1]}"
        if artifact is not None:
            return f"artifacts of sessions/{artifact[2].decode()}"
        return self.outputs[declared] if declared is not None else ""

    def _processes(self) -> Iterator[SeenProcess]:
        for pid, line in _command_lines():
            with suppress(OSError):
                seen = self._seen(pid, line)
                if seen is not None:
                    yield seen

    def _seen(self, pid: int, line: bytes) -> SeenProcess | None:
        found = self._attempt.search(line)
        if found is None:
            return None
        state, began = _state(pid)
        if state in ("Z", "X"):
            return None
        # Its shim has the same arguments; what joins its parts reports to nobody.
        program = b"\0-progress\0" in line and not line.startswith((b"/bin/sh\0", b"sh\0"))
        return SeenProcess(
            pid=pid,
            session=f"sessions/{found[2].decode()}",
            attempt=int(found[3]),
            device=f"devices/{found[1].decode()}",
            program=program,
            began_s=began / _TICKS + self._boot_s,
            stopped=state in ("T", "t"),
            writes=frozenset(self._written(pid)) if program else frozenset(),
        )

    def _written(self, pid: int) -> Iterator[str]:
        """Gives names of outputs that a process has open for writing."""
        for entry in (_PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                name = self.output_name(str(entry.readlink()))
                if name and _opened_for_writing(pid, entry.name):
                    yield name


def _command_lines() -> Iterator[tuple[int, bytes]]:
    for entry in _PROC.iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                line = _command_line(int(entry.name))
                if line:
                    yield int(entry.name), line


def _command_line(pid: int) -> bytes:
    return (_PROC / str(pid) / "cmdline").read_bytes()


def _state(pid: int) -> tuple[str, int]:
    """Reads a process's state, and when it began, in ticks since the machine did."""
    fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _opened_for_writing(pid: int, descriptor: str) -> bool:
    text = (_PROC / str(pid) / "fdinfo" / descriptor).read_text()
    flags = re.search(r"^flags:\s+(\d+)", text, re.MULTILINE)
    return flags is not None and bool(int(flags[1], 8) & _WRITING)
