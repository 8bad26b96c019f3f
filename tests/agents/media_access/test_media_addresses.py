"""Which addresses are public, and that spellings of private ones do not matter."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from agents.media_access.addresses import UnresolvedHostError, own_addresses, resolve
from agents.public_addresses import is_public


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "127.255.255.254",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::127.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "2001:db8::1",
        "5f00::1",
    ],
)
def test_addresses_of_this_host_or_networks_around_it_are_not_public(text: str) -> None:
    assert not is_public(ip_address(text))


@pytest.mark.parametrize(
    "text",
    ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"],
)
def test_addresses_of_somebody_on_the_internet_are_public(text: str) -> None:
    assert is_public(ip_address(text))


@pytest.mark.parametrize("host", ["127.0.0.1", "0x7f.1", "2130706433", "127.1", "0177.0.0.1", "localhost", "::1"])
async def test_loopback_is_found_in_every_spelling(host: str) -> None:
    addresses = await resolve(host, 80)
    assert addresses
    assert all(address.is_loopback for address in addresses)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "a" * 300, "a..b"])
async def test_a_host_without_an_address_is_told_as_such(host: str) -> None:
    with pytest.raises(UnresolvedHostError):
        await resolve(host, 80)


def test_the_addresses_of_this_machine_are_known() -> None:
    assert ip_address("127.0.0.1") in own_addresses()
