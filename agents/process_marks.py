"""The mark that every process carries which an agent starts: whose it is, in the environment it was started with.

A process inherits its environment however often it forks and whatever it closes, so the mark finds what a lock file,
a process group or a parent's id do not: children that let go of everything. It tells apart agents by their state
folder, so that one never touches what another has started.

An agent marks itself, and so whatever it starts; attempts and displays, which outlive it, have marks of their own.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from agents.lock_holders import has_ended

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

OWNER_VARIABLE = "GPU_BALANCER_OWNER"
"""Set in every process that an agent starts: "{agent}:{kind}:{name}"."""
_AGENT_LENGTH = 16
_PROC = Path("/proc")


class OwnerKind(StrEnum):
    """What a process belongs to."""

    SESSION = "session"
    """An attempt; its name is "{session}:{attempt}"."""
    DISPLAY = "display"
    AGENT = "agent"
    """One life of an agent, which it must not outlive for long: probes, looks at inputs, uploads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Whose a process is."""

    agent: str
    """Which state folder."""
    kind: OwnerKind
    name: str

    def __str__(self) -> str:
        return f"{self.agent}:{self.kind}:{self.name}"

    @property
    def environment(self) -> dict[str, str]:
        """What a process is started with to carry it."""
        return {OWNER_VARIABLE: str(self)}


def name_of_agent(state_dir: Path) -> str:
    """Names the agent of a state folder among all that may ever see its processes.

    By the folder's place and identity: a folder of the same path in another container, or a new one in the place of
    one that was removed, is another agent's.

    Raises:
        OSError: When the folder cannot be looked at.
    """
    status = state_dir.stat()
    told = f"{state_dir.resolve()}\0{status.st_dev}\0{status.st_ino}"
    return hashlib.sha256(os.fsencode(told)).hexdigest()[:_AGENT_LENGTH]


def parse_mark(text: str) -> Mark | None:
    """Reads a mark. None: it is none, whatever it looks like."""
    agent, _, rest = text.partition(":")
    kind, _, name = rest.partition(":")
    if not agent or not name or kind not in set(OwnerKind):
        return None
    return Mark(agent=agent, kind=OwnerKind(kind), name=name)


def mark_of(pid: int) -> Mark | None:
    """Reads the mark of a process. None: it has none, has ended, or does not let itself be read."""
    try:
        content = (_PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    prefix = f"{OWNER_VARIABLE}=".encode()
    values = [entry.removeprefix(prefix) for entry in content.split(b"\0") if entry.startswith(prefix)]
    return parse_mark(values[0].decode(errors="replace")) if values else None


def living() -> Iterator[int]:
    """Lists process ids, but the agent's own."""
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            yield int(entry.name)


def find_marked(agent: str) -> dict[int, Mark]:
    """Lists the processes that carry a mark of an agent, by process id. They may end, and ids be used anew. Blocks."""
    marks = ((pid, mark_of(pid)) for pid in living())
    return {pid: mark for pid, mark in marks if mark is not None and mark.agent == agent}


def hold_marked(found: Mapping[int, Mark]) -> dict[int, Mark]:
    """Opens pidfds of processes that were found, and looks at their marks again. Blocks.

    Returns:
        The mark of each pidfd, which the caller closes. What was not what it seemed is left out.
    """
    held: dict[int, Mark] = {}
    for pid, mark in found.items():
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        # In this order: what is seen while the pidfd still says "alive" is about the process it holds.
        if mark_of(pid) == mark and not has_ended(descriptor):
            held[descriptor] = mark
        else:
            os.close(descriptor)
    return held
