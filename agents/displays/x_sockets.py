"""Numbers of X displays, and what an X server leaves in /tmp when it is killed.

A display's number is taken by the server itself, with its lock file; here only one is proposed. `-displayfd` would let
the server find a number, but such a server makes no lock, and without abstract sockets (which any user could reach)
each further one silently takes over the socket of the one before. So numbers are proposed at random, far above those
that people use, and a server that finds its number taken ends at once.

X clients try an abstract socket before the file, though, and tell whoever listens there the display's cookie; any user
may. So the abstract names of a display and its gate are taken before either is there, for as long as the server lives.
Nobody listens at them: clients are refused, and go on to the file.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

TMP = Path("/tmp")  # noqa: S108 - where X servers and their clients look, by protocol
_FIRST_NUMBER = 1000
_LAST_NUMBER = 32_000
_GATES_FROM = 32_000
"""Added to a display's number, gives that of its gate, which no display has."""
_NAMES_TRIED = 1000
"""Far more than it takes, unless somebody takes all of them."""
_LOCK = re.compile(r"\.X(\d{1,5})-lock")
_LOCK_BYTES = 11
"""Of a lock: ten digits and the end of a line."""
_SOCKETS_MODE = 0o1777
_UNIX_SOCKETS = Path("/proc/net/unix")
"""Every socket of this network namespace with its name; that of an abstract one begins with "@". See unix(7)."""


def socket_of(name: str) -> Path:
    """Gives the socket of a display.

    Args:
        name: As X clients know it: ":1007".
    """
    return _sockets() / f"X{name.removeprefix(':')}"


def gate_of(name: str) -> str:
    """Gives the name by which a display is captured through its gate; see `capture_gate`.

    Args:
        name: Of the display, as proposed here.
    """
    return f":{int(name.removeprefix(':')) + _GATES_FROM}"


def display_of(name: str) -> str:
    """Gives the name of the display that is captured by a name, be it that of its gate or its own."""
    number = int(name.removeprefix(":"))
    return f":{number - _GATES_FROM if number > _GATES_FROM else number}"


def propose_name() -> str:
    """Proposes the name of a display that nobody uses now: ":1007".

    The abstract sockets are looked up and not tried: a descriptor that is there for a moment only gets into whatever
    program the agent starts just then, and the name is taken until that runs.

    Raises:
        NameTakenError: When one name after another is taken.
        OSError: When the kernel does not tell which are.
    """
    taken = _abstract_names()
    for _ in range(_NAMES_TRIED):
        number = _FIRST_NUMBER + secrets.randbelow(_LAST_NUMBER - _FIRST_NUMBER)
        name = f":{number}"
        if _lock_of(number).exists() or socket_of(name).exists():
            continue
        if taken.isdisjoint(str(socket_of(one)) for one in (name, gate_of(name))):
            return name
    raise NameTakenError("somebody has the abstract sockets of X displays. Try `ss -xap` to see who")


class NameTakenError(OSError):
    """Somebody has an abstract socket of a display that is to be."""


@contextlib.contextmanager
def abstract_names_taken(name: str) -> Iterator[tuple[int, ...]]:
    """Takes the abstract sockets at which X clients look for a display, and for its gate, first.

    Yields:
        Descriptors, which the X server is to inherit: for as long as it lives they are taken.

    Raises:
        NameTakenError: Somebody has one.
    """
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for one, address in zip(taken, (name, gate_of(name)), strict=True):
            try:
                one.bind(f"\0{socket_of(address)}")
            except OSError as error:
                raise NameTakenError(f"somebody has the abstract socket of display {address}: {error}") from error
        yield tuple(one.fileno() for one in taken)


def ensure_socket_folder() -> None:
    """Makes the folder of the sockets when it is missing: an X server that is not root's refuses to.

    Raises:
        OSError: When it cannot be made.
    """
    folder = _sockets()
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        folder.chmod(_SOCKETS_MODE)


def clear_after(servers: Collection[int]) -> None:
    """Removes locks and sockets of X servers that have ended, and of their gates.

    A server's lock names its process, so that nobody else's can be hit: who takes over a dead one's number writes the
    lock anew first.

    Args:
        servers: Process ids of servers that were killed just now.
    """
    for number, pid in _locks():
        if pid in servers:
            # In this order: while the lock is there no other server can take the number.
            with contextlib.suppress(FileNotFoundError):
                socket_of(f":{number}").unlink()
            with contextlib.suppress(FileNotFoundError):
                _lock_of(number).unlink()
    _clear_gates()


def _clear_gates() -> None:
    """Removes the sockets of gates whose display is gone, however it went: it has a lock for as long as it lives."""
    for path in _sockets().glob("X*"):
        number = path.name.removeprefix("X")
        if not number.isdecimal() or int(number) <= _GATES_FROM:
            continue
        # With a lock of its own it is an X server of somebody's who likes large numbers.
        if not (_lock_of(int(number) - _GATES_FROM).exists() or _lock_of(int(number)).exists()):
            with contextlib.suppress(OSError):
                path.unlink()


def _locks() -> Iterator[tuple[int, int]]:
    """Lists display numbers with the process that has each."""
    for path in TMP.glob(".X*-lock"):
        match = _LOCK.fullmatch(path.name)
        if match is None:
            continue
        with contextlib.suppress(OSError, ValueError):
            yield int(match[1]), _owner_in(path)


def _abstract_names() -> set[str]:
    """Lists the names of all abstract sockets, as bytes that are no text are shown."""
    lines = _UNIX_SOCKETS.read_text(encoding="ascii", errors="replace").splitlines()
    return {name for _, at, name in (line.partition(" @") for line in lines) if at}


def _owner_in(lock: Path) -> int:
    """Reads the process id in a lock, which anybody may have made: a pipe must not hold the reader, nor a link lead it.

    Raises:
        OSError: When it cannot be read.
        ValueError: When there is none in it.
    """
    descriptor = os.open(lock, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return int(os.read(descriptor, _LOCK_BYTES))
    finally:
        os.close(descriptor)


def _lock_of(number: int) -> Path:
    return TMP / f".X{number}-lock"


def _sockets() -> Path:
    return TMP / ".X11-unix"
