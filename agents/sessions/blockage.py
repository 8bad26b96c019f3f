"""What a program waits for that makes no progress: its input, its output, or somebody who has stopped it.

Told by the system calls in which its threads sleep, by /proc/PID/task/*/syscall and for poll by the descriptors that it
was given: a network program waits in poll for reading or for writing, and a hanging file system holds a thread in write
or fsync. Where the system does not show that (another user's process, Yama, an unknown processor), nothing is told;
a guess would send people to look in the wrong place. A look is a moment's truth: look several times.
"""

from __future__ import annotations

import contextlib
import os
import platform
import select
import struct
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class Blockage(StrEnum):
    """What a program waits for."""

    INPUT = "input"
    OUTPUT = "output"
    STOPPED = "stopped"
    """A signal has stopped it."""
    UNKNOWN = "unknown"
    """Something else, or that cannot be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Calls:
    """Numbers of system calls, from the kernel's tables of a processor."""

    reading: frozenset[int]
    """read, readv, pread64, recvfrom, recvmsg: the descriptor comes first."""
    writing: frozenset[int]
    """write, writev, pwrite64, sendto, sendmsg, fsync, fdatasync: likewise."""
    opening: int
    """openat: flags come third."""
    polling: frozenset[int]
    """poll, ppoll: the descriptors' address and number."""


_CALLS = {
    "x86_64": _Calls(
        reading=frozenset({0, 17, 19, 45, 47}),
        writing=frozenset({1, 18, 20, 44, 46, 74, 75}),
        opening=257,
        polling=frozenset({7, 271}),
    ),
    "aarch64": _Calls(
        reading=frozenset({63, 65, 67, 207, 212}),
        writing=frozenset({64, 66, 68, 206, 211, 82, 83}),
        opening=56,
        polling=frozenset({73}),
    ),
}
_POLLED = struct.Struct("=ihh")
"""struct pollfd: descriptor, what is awaited, what came."""
_MOST_POLLED = 16
_SOCKET = "socket:["


def find_blockage(pid: int) -> Blockage:
    """Looks what a program's threads sleep in.

    Args:
        pid: A living process. What is told of another one that took its number is nonsense, but harms nobody.
    """
    if _state_of(pid) in ("T", "t"):
        return Blockage.STOPPED
    waits = set(_waits(pid))
    # Whoever waits for an output keeps those before it waiting, and not the other way round.
    return next((one for one in (Blockage.OUTPUT, Blockage.INPUT) if one in waits), Blockage.UNKNOWN)


def moved_bytes(pid: int) -> int | None:
    """Tells how many bytes a program has read from and written to files since it began. None: that cannot be seen.

    What comes and goes over a network is not in it.
    """
    with contextlib.suppress(OSError, ValueError):
        counters = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text("ascii").splitlines())
        return int(counters.get("rchar", 0)) + int(counters.get("wchar", 0))
    return None


def awaited_sockets(pid: int) -> frozenset[int]:
    """Finds the network connections that a program waits to read from, as numbers of its descriptors."""
    found: set[int] = set()
    calls = _CALLS.get(platform.machine())
    for number, arguments in _calls_of(pid):
        if calls is not None and number in calls.polling:
            found |= {fd for fd, events in _polled(pid, arguments) if events & select.POLLIN and _is_network(pid, fd)}
    return frozenset(found)


def _state_of(pid: int) -> str:
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()[0]
    return ""


def _waits(pid: int) -> Iterator[Blockage]:
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return
    for number, arguments in _calls_of(pid):
        if number in calls.writing:
            yield Blockage.OUTPUT
        elif number == calls.opening:
            yield Blockage.OUTPUT if arguments[2] & (os.O_WRONLY | os.O_RDWR) else Blockage.INPUT
        elif number in calls.reading and _is_medium(pid, arguments[0]):
            yield Blockage.INPUT
        elif number in calls.polling:
            for descriptor, events in _polled(pid, arguments):
                if _is_network(pid, descriptor):
                    yield Blockage.OUTPUT if events & select.POLLOUT else Blockage.INPUT


def _calls_of(pid: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Gives number and arguments of the system call of each sleeping thread."""
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError, ValueError):
                number, *arguments = (task / "syscall").read_text("ascii").split()
                if len(arguments) >= 6:
                    yield int(number), tuple(int(argument, 16) for argument in arguments[:6])


def _polled(pid: int, arguments: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Gives the descriptors that a thread polls and what it awaits of each."""
    address, count = arguments[0], min(arguments[1], _MOST_POLLED)
    with contextlib.suppress(OSError, OverflowError, struct.error):
        with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
            content = os.pread(memory.fileno(), count * _POLLED.size, address)
        for descriptor, events, _ in _POLLED.iter_unpack(content):
            yield descriptor, events


def _is_medium(pid: int, descriptor: int) -> bool:
    """Tells whether a descriptor leads to a file or a network; drivers and libraries wait at others all the time."""
    return _target(pid, descriptor).startswith("/") or _is_network(pid, descriptor)


def _is_network(pid: int, descriptor: int) -> bool:
    target = _target(pid, descriptor)
    if not target.startswith(_SOCKET):
        return False
    inode = target.removeprefix(_SOCKET).rstrip("]")
    return any(inode in _inodes(Path(f"/proc/{pid}/net/{table}")) for table in ("tcp", "tcp6"))


def _target(pid: int, descriptor: int) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{pid}/fd/{descriptor}").readlink())
    return ""


def _inodes(table: Path) -> frozenset[str]:
    with contextlib.suppress(OSError):
        lines = table.read_text("ascii").splitlines()[1:]
        return frozenset(columns[9] for line in lines if len(columns := line.split()) > 9)
    return frozenset()
