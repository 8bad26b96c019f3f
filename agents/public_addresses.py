"""Which network addresses are public. Pure: text and numbers, no look-ups.

A host is judged by every address it resolves to, never by its spelling: `0x7f.1`, `2130706433`, `127.1` and
`[::ffff:127.0.0.1]` all reach loopback. Streams and pages are judged alike.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TypeAlias

Address: TypeAlias = IPv4Address | IPv6Address

# Ranges that carry an IPv4 address, which a gateway on the way would unpack, with its offset from the low end.
_EMBEDDING = (
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052
    (IPv6Network("::/96"), 0),  # IPv4-compatible, RFC 4291, deprecated
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056
)
_NEVER_PUBLIC_IPV4 = (
    IPv4Network("168.63.129.16/32"),  # Azure's own, reached from every machine there
    IPv4Network("192.0.0.0/24"),  # protocol assignments, RFC 6890; a cloud's metadata at 192.0.0.192
    IPv4Network("192.88.99.0/24"),  # 6to4 relays, RFC 7526, deprecated
)
_NEVER_PUBLIC = (
    IPv6Network("3fff::/20"),  # documentation, RFC 9637
    IPv6Network("64:ff9b:1::/48"),  # NAT64 inside a network, RFC 8215
    IPv6Network("2001::/32"),  # Teredo, RFC 4380: tunnels to a host behind somebody's router
    IPv6Network("5f00::/16"),  # segment routing, RFC 9602
    IPv6Network("fec0::/10"),  # site-local, RFC 3879, deprecated
)


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
    elif any(address in network for network in _NEVER_PUBLIC_IPV4):
        return False
    return (
        address.is_global
        and not address.is_multicast
        and not address.is_reserved
        and not address.is_unspecified
        and not address.is_loopback
    )
