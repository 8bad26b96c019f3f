"""Which addresses a host has, and which this machine has.

The resolver is the C library's, as ffmpeg's is, so both see the same.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from agents.public_addresses import Address


class UnresolvedHostError(Exception):
    """A host name has no address, or the resolver failed."""


async def resolve(host: str, port: int) -> tuple[Address, ...]:
    """Looks up every address of a host, as the C library does for any program.

    Args:
        host: A name, or an address in any spelling; without brackets.
        port: Any port; some resolvers want one.

    Returns:
        The addresses, each once, in the resolver's order; at least one.

    Raises:
        UnresolvedHostError: When there is none.
    """
    try:
        answers = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UnresolvedHostError(getattr(error, "strerror", None) or "it is no host name") from error
    # A scope ("fe80::1%eth0") is no part of the number.
    addresses = dict.fromkeys(ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers)
    if not addresses:
        raise UnresolvedHostError("it has no address")
    return tuple(addresses)


def own_addresses() -> frozenset[Address]:
    """Lists the addresses of this machine's interfaces: services meant for it alone may listen on a public one."""
    found = set()
    for interface in psutil.net_if_addrs().values():
        for entry in interface:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                found.add(ip_address(entry.address.partition("%")[0]))
    return frozenset(found)
