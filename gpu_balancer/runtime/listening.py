"""Makes sure that an address can be listened on, and says in words why it cannot.

gRPC takes over a Unix socket that another process listens on, and reports every failed port as "Failed to bind". So
sockets are looked at before, and ports diagnosed after.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

from gpu_balancer.runtime.listen_address import WHY_LOOPBACK_ONLY, TcpAddress, UnixAddress, require_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_SOCKET_UMASK = 0o177


class ListenFault(Exception):
    """An address cannot be listened on; the message says which, why and what to try."""


def prepare_socket(address: UnixAddress) -> None:
    """Makes the socket's folder when missing (mode 0700), and takes away a socket that a killed process left.

    Raises:
        ListenFault: When others may write into the folder or it is not ours, when a process listens there, or when
            something else stands in the place.
    """
    folder = address.path.parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        raise ListenFault(
            f"Cannot listen on {address}: its folder cannot be made: {error.strerror}. Try another state folder."
        ) from error
    if found.st_uid != os.geteuid():
        raise ListenFault(
            f"Cannot listen on {address}: the folder {folder} belongs to user {found.st_uid}, not to {os.geteuid()}, "
            "who runs this. Try a folder of your own."
        )
    if found.st_mode & _WRITABLE_BY_OTHERS:
        mode = f"{stat.S_IMODE(found.st_mode):04o}"
        raise ListenFault(
            f"Cannot listen on {address}: others may write into the folder {folder} (mode {mode}) and put a socket of "
            f"theirs in the place. Try chmod 700 {folder}, or a folder of its own."
        )
    _remove_stale_socket(address)


@contextlib.contextmanager
def private_socket() -> Iterator[None]:
    """Makes sockets that are bound inside the block connectable by this user only, from their first moment.

    The mode must not be changed afterwards instead: a folder that is not private would leave a gap. The mask is the
    process's, so nothing else may make files meanwhile.
    """
    before = os.umask(_SOCKET_UMASK)
    try:
        yield
    finally:
        os.umask(before)


def refuse_other_hosts(address: TcpAddress) -> None:
    """Makes sure that a TCP address is this machine's loopback, "localhost" by what it resolves to.

    Raises:
        ListenFault: When other machines could reach it.
    """
    try:
        require_loopback(address.host)
    except ValueError as error:
        raise ListenFault(f"Cannot listen on {address}: it {error}.") from error
    if address.host != "localhost":
        return
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        for *_, target in found:
            require_loopback(str(target[0]))
    except (OSError, ValueError) as error:
        raise ListenFault(
            f"Cannot listen on {address}: localhost is not only this machine's loopback here, and {WHY_LOOPBACK_ONLY}."
        ) from error


def why_not_bound(address: TcpAddress) -> ListenFault:
    """Finds out why a port could not be bound, by trying it again without gRPC."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    number: int | None = None
    with socket.socket(family, socket.SOCK_STREAM) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((address.host, address.port))
            tried.listen(1)
        except OSError as error:
            number = error.errno
    if number == errno.EADDRINUSE or number is None:
        return ListenFault(
            f"Cannot listen on {address}: the port is in use. Try another port, or stop the program that "
            f"has it: ss -ltnp 'sport = :{address.port}' names it."
        )
    if number == errno.EACCES:
        return ListenFault(f"Cannot listen on {address}: ports below 1024 need privileges. Try one above.")
    return ListenFault(f"Cannot listen on {address}: {os.strerror(number)}. Try another address in the settings.")


def _remove_stale_socket(address: UnixAddress) -> None:
    path = address.path
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ListenFault(f"Cannot listen on {address}: a file that is no socket stands there. Try to move it away.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            # Nobody has it open: it was left by a process that was killed.
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            return
        except OSError as error:
            raise ListenFault(
                f"Cannot listen on {address}: the socket there gives {error.strerror or error}."
            ) from error
    raise ListenFault(
        f"Cannot listen on {address}: another process listens there. Try to stop it, or use another state folder."
    )
