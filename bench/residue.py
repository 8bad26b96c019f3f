"""What recordings leave behind: processes, sockets, X locks, shared memory, folders. Sinks end with their sound server.

Only what is theirs is counted: by the displays' own users where the daemon runs as root, else by the folder that every
one of their processes has in its environment. Others may use the machine meanwhile.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True, kw_only=True)
class Residue:
    """What there is, by kind, as names for people."""

    processes: tuple[str, ...]
    sockets: tuple[str, ...]
    """Below the run folder, and X sockets."""
    locks: tuple[str, ...]
    """X locks."""
    shared_memory: tuple[str, ...]
    """System V segments, and files in /dev/shm."""
    folders: tuple[str, ...]
    """What there is in agents' folders below the run folder, and temporary folders of the displays' users."""

    @property
    def count(self) -> int:
        """Gives the number of things."""
        return sum(len(kind) for kind in self._kinds().values())

    def __str__(self) -> str:
        told = {name: kind for name, kind in self._kinds().items() if kind}
        return ", ".join(f"{len(kind)} {name} ({kind[0][:60]} …)" for name, kind in told.items()) or "nothing"

    def _kinds(self) -> dict[str, tuple[str, ...]]:
        return {
            "processes": self.processes,
            "sockets": self.sockets,
            "locks": self.locks,
            "shared memory segments": self.shared_memory,
            "folders": self.folders,
        }


def find_residue(run_dir: Path, users: range) -> Residue:
    """Looks at what there is now of the displays.

    Args:
        run_dir: The folder for their work, which has one for each agent and one for the users that are taken.
        users: Their users, when this process is root's.
    """
    root = os.geteuid() == 0
    owned = _Owned(users if root else range(0))
    run_paths = list(run_dir.rglob("*")) if run_dir.exists() else []
    x_files = [path for path in [*Path("/tmp").glob(".X*-lock"), *Path("/tmp/.X11-unix").glob("X*")] if owned(path)]
    return Residue(
        processes=tuple(_processes(run_dir, users, root=root)),
        sockets=tuple(str(path) for path in [*run_paths, *x_files] if path.is_socket()),
        locks=tuple(str(path) for path in x_files if path.name.endswith("-lock")),
        shared_memory=(*map(str, filter(owned, Path("/dev/shm").iterdir())), *_segments(users if root else range(0))),
        folders=(
            *(str(path) for path in run_dir.glob("*/*")),
            *(str(path) for path in Path("/tmp").iterdir() if owned(path) and path.is_dir()),
        ),
    )


@dataclass(frozen=True, slots=True)
class _Owned:
    users: range

    def __call__(self, path: Path) -> bool:
        with suppress(OSError):
            return path.lstat().st_uid in self.users
        return False


def _processes(run_dir: Path, users: range, *, root: bool) -> list[str]:
    found = []
    for process in psutil.process_iter(["pid", "name"]):
        with suppress(psutil.Error):
            theirs = root and process.uids().real in users
            if theirs or str(run_dir) in " ".join([*process.environ().values(), *process.cmdline()]):
                found.append(f"{process.info['name']} {process.info['pid']}")
    return found


def _segments(users: range) -> list[str]:
    lines = Path("/proc/sysvipc/shm").read_text().splitlines()
    if not lines:
        return []
    uid_place, id_place = (lines[0].split().index(name) for name in ("uid", "shmid"))
    return [f"shm {words[id_place]}" for words in map(str.split, lines[1:]) if int(words[uid_place]) in users]
