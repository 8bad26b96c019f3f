"""Addresses that a daemon may listen on: Unix sockets and the loopback interface, nothing else.

Callers have no identities yet, so whoever reaches a port may start processes and read media. Until that is solved an
address that other machines reach is refused, with this reason.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path

_SOCKET_PATH_BYTES = 107
"""Longest path of a Unix socket in bytes: sun_path of Linux is 108 with its end mark (unix(7))."""

WHY_LOOPBACK_ONLY = (
    "callers have no identities yet, so only this machine's own users may reach it. "
    "Try 127.0.0.1, [::1] or unix:PATH, and an SSH tunnel from elsewhere"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnixAddress:
    """A Unix socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpAddress:
    """A port on the loopback interface."""

    host: str
    """As written, IPv6 without brackets."""
    port: int
    """0: any free one."""

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen_address(text: str) -> UnixAddress | TcpAddress:
    """Reads "unix:/absolute/path", "127.0.0.1:50051", "[::1]:50051" or "localhost:50051".

    Raises:
        ValueError: When it is none of these, or other machines could reach it; the message says why and what to try.
    """
    if text.startswith("unix:"):
        return UnixAddress(path=_socket_path(text.removeprefix("unix:")))
    return parse_loopback_address(text)


def parse_loopback_address(text: str) -> TcpAddress:
    """Reads a TCP address, "127.0.0.1:8080" for instance.

    Raises:
        ValueError: As for `parse_listen_address`.
    """
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise ValueError(f"must be HOST:PORT with a port up to 65535, or unix:/absolute/path, not {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"must have brackets around an IPv6 address: [{host}]:{port_text}")
    require_loopback(host)
    return TcpAddress(host=host, port=int(port_text))


def require_loopback(host: str) -> None:
    """Refuses a host that is not this machine's loopback.

    Raises:
        ValueError: When it is not "localhost" or a loopback IP address.
    """
    if host == "localhost":
        return
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ValueError(f"must not be {host or 'every interface'!r}: {WHY_LOOPBACK_ONLY}")


def _socket_path(path: str) -> Path:
    if not path.startswith("/") and not path.startswith("{state_dir}/"):
        raise ValueError(f"must be an absolute path after unix:, not {path!r}")
    if len(path.encode()) > _SOCKET_PATH_BYTES:
        raise ValueError(
            f"must be at most {_SOCKET_PATH_BYTES} bytes long, as the kernel wants of a socket's path, "
            f"not {len(path.encode())}: {path}. Try a shorter state folder"
        )
    return Path(path)
