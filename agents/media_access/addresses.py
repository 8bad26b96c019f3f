"""Which network addresses are public, and which addresses a host has.

A host is judged by every address it resolves to, never by its spelling: `0x7f.1`, `2130706433`, `127.1` and
`[::ffff:127.0.0.1]` all reach loopback. The resolver is the C library's, as ffmpeg's is, so both see the same.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

import psutil

Address: TypeAlias = IPv4Address | IPv6Address

# Ranges that carry an IPv4 address, which a gateway on the way would unpack, with its offset from the low end.
_EMBEDDING = (
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("::/96"), 0),  # IPv4-compatible, RFC 4291, deprecated
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
_NEVER_PUBLIC = (
    IPv6Network("64:ff9b:1::/48"),  # NAT64 inside a network, RFC 8215
    IPv6Network("2001::/32"),  # Teredo, RFC 4380: tunnels to a host behind somebody's router
    IPv6Network("5f00::/16"),  # segment routing, RFC 9602
    IPv6Network("fec0::/10"),  # site-local, RFC 3879, deprecated
)


class UnresolvedHostError(Exception):
    """A host name has no address, or the resolver failed."""


def is_public(address: Address) -> bool:
    """Tells whether an address belongs to somebody on the internet, as against this host or a network around it.

    Args:
        address: Any address; one that carries an IPv4 address is judged by that.

    Returns:
        False for loopback, private, link-local (cloud metadata too), shared, multicast, reserved and unspecified ones.
    """
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _NEVER_PUBLIC):
            return False
        for network, shift in _EMBEDDING:
            if address in network:
                return is_public(IPv4Address(int(address) >> shift & 0xFFFFFFFF))
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_loopback
    )


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
