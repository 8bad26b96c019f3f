"""What the kernel says of an address and of a connection: whether it leads back to this machine, and whose it is.

Asked anew each time, because interfaces come and go, and of the kernel itself, because that is who will decide about
the connection. With the standard library alone: the egress proxy is to stay small.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.public_addresses import Address

# From linux/netlink.h and linux/rtnetlink.h.
_NETLINK_ROUTE = 0
_NLMSG_ERROR = 2
_RTM_GETROUTE = 26
_NLM_F_REQUEST = 1
_RTA_DST = 1
_RTN_LOCAL = 2
_HEADER = struct.Struct("=IHHII")
_ROUTE = struct.Struct("=BBBBBBBBI")
_ATTRIBUTE = struct.Struct("=HH")
_ANSWER_BYTES = 16 * 1024
_TIMEOUT_S = 2.0

_ADDRESS_FIELD, _PEER_FIELD, _USER_FIELD = 1, 2, 7  # of /proc/net/tcp, see proc_net_tcp.txt of the kernel


def is_own(address: Address) -> bool:
    """Tells whether packets to an address would stay on this machine: services for it alone may listen there.

    Raises:
        OSError: When the kernel cannot be asked.
    """
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    packed = address.packed
    body = _ROUTE.pack(family, len(packed) * 8, 0, 0, 0, 0, 0, 0, 0) + _attribute(packed)
    request = _HEADER.pack(_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0) + body
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE) as kernel:
        kernel.settimeout(_TIMEOUT_S)
        kernel.send(request)
        answer = kernel.recv(_ANSWER_BYTES)
    _, kind, *_ = _HEADER.unpack_from(answer)
    if kind == _NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, _HEADER.size)
        if -code in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL):
            return False  # no way there at all
        raise OSError(-code, os.strerror(-code))
    route_type = _ROUTE.unpack_from(answer, _HEADER.size)[7]
    return bool(route_type == _RTN_LOCAL)


def connection_owner(client: tuple[str, int], server: tuple[str, int]) -> int | None:
    """Tells whose an IPv4 connection on this machine is.

    Args:
        client: Address and port of the end that is asked about.
        server: Address and port of the other end.

    Returns:
        The user id. None: there is no such connection any more.
    """
    wanted = [_hexadecimal(*client), _hexadecimal(*server)]
    with Path("/proc/net/tcp").open() as table:
        next(table)
        for line in table:
            fields = line.split(maxsplit=_USER_FIELD + 1)
            if fields[_ADDRESS_FIELD : _PEER_FIELD + 1] == wanted:
                return int(fields[_USER_FIELD])
    return None


def _attribute(packed: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(packed), _RTA_DST) + packed


def _hexadecimal(address: str, port: int) -> str:
    (number,) = struct.unpack("=I", socket.inet_aton(address))
    return f"{number:08X}:{port:04X}"
