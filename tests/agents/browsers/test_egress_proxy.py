"""The egress proxy, spoken to as a browser does, with names of the test's own."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from agents.browsers import egress_proxy
from agents.browsers.egress_proxy import REFUSAL_HEADER, EgressProxy, EgressRules, may_reach
from agents.browsers.kernel_tables import connection_owner, is_own
from fakes.page_server import PageServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agents.public_addresses import Address

OURS = frozenset({os.geteuid()})


class Names:
    """A resolver, and a judge that takes what it is told for public."""

    def __init__(self, **addresses: list[str]) -> None:
        self.addresses = {name.replace("_", "."): found for name, found in addresses.items()}
        self.asked: list[str] = []
        self.public_ports: set[int] = set()

    async def look_up(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if host in self.addresses:
            return [ip_address(address) for address in self.addresses[host]]
        return await egress_proxy.look_up(host, port)

    def may_reach(self, address: Address, port: int) -> bool:
        return port in self.public_ports or may_reach(address, port)

    def rules(self, user_ids: frozenset[int] = OURS) -> EgressRules:
        return EgressRules(user_ids=user_ids, look_up=self.look_up, may_reach=self.may_reach)


@asynccontextmanager
async def proxy(rules: EgressRules) -> AsyncIterator[int]:
    server = await EgressProxy(rules).listen()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def ask(port: int, request: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer.decode()


def refusal(answer: str) -> str | None:
    found = [line for line in answer.splitlines() if line.startswith(REFUSAL_HEADER)]
    return found[0].partition(": ")[2] if found else None


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "[::1]",
        "localhost",
        "0x7f.1",
        "2130706433",
        "127.1",
        "0",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "[64:ff9b::a9fe:a9fe]",
        "224.0.0.1",
        "255.255.255.255",
    ],
)
async def test_addresses_that_are_not_public_are_refused_in_any_spelling(host: str) -> None:
    async with proxy(EgressRules(user_ids=OURS)) as port:
        tunnel = await ask(port, f"CONNECT {host}:80 HTTP/1.1\r\n\r\n")
        plain = await ask(port, f"GET http://{host}/ HTTP/1.1\r\n\r\n")
    assert refusal(tunnel) == refusal(plain) == "private"
    assert tunnel.startswith("HTTP/1.1 403 ")


async def test_a_name_is_refused_when_any_of_its_addresses_is_private() -> None:
    names = Names(both_example=["93.184.216.34", "10.0.0.1"])
    async with proxy(names.rules()) as port:
        assert refusal(await ask(port, "CONNECT both.example:443 HTTP/1.1\r\n\r\n")) == "private"


async def test_the_machines_own_public_address_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_proxy, "is_own", lambda address: str(address) == "93.184.216.34")
    assert not may_reach(ip_address("93.184.216.34"), 80)
    assert may_reach(ip_address("93.184.216.35"), 80)


async def test_a_name_is_looked_up_once_so_it_cannot_change_its_mind() -> None:
    names = Names(page_example=["127.0.0.1"])
    async with PageServer() as server, proxy(names.rules()) as port:
        names.public_ports.add(server.port)
        server.page("/", "hello")
        answer = await ask(port, f"GET http://page.example:{server.port}/ HTTP/1.1\r\nHost: page.example\r\n\r\n")
    assert answer.endswith("hello")
    assert names.asked == ["page.example"]


async def test_a_request_reaches_its_server_as_its_own() -> None:
    names = Names(page_example=["127.0.0.1"])
    async with PageServer() as server, proxy(names.rules()) as port:
        names.public_ports.add(server.port)
        server.page("/a?b=c", "hello", headers="Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n")
        head = "Host: page.example\r\nProxy-Connection: keep-alive\r\nConnection: keep-alive\r\nX-One: 1\r\n\r\n"
        answer = await ask(port, f"GET http://page.example:{server.port}/a?b=c HTTP/1.1\r\n{head}")
    assert server.requests == [("/a?b=c", {"host": "page.example", "x-one": "1", "connection": "close"})]
    assert answer.lower().count("connection: close") == 1
    assert "keep-alive" not in answer.lower()


async def test_a_tunnel_carries_both_ways() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readexactly(4)).upper())
        writer.close()

    names = Names(echo_example=["127.0.0.1"])
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, proxy(names.rules()) as port:
        there = server.sockets[0].getsockname()[1]
        names.public_ports.add(there)
        answer = await ask(port, f"CONNECT echo.example:{there} HTTP/1.1\r\n\r\nping")
    assert answer.endswith("\r\n\r\nPING")


async def test_what_cannot_be_found_or_reached_is_told_apart() -> None:
    names = Names(nobody_example=["127.0.0.1"], nothing_example=[])
    closed = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    free_port = closed.sockets[0].getsockname()[1]
    closed.close()
    await closed.wait_closed()
    names.public_ports.add(free_port)
    async with proxy(names.rules()) as port:
        unreachable = await ask(port, f"CONNECT nobody.example:{free_port} HTTP/1.1\r\n\r\n")
        unresolved = await ask(port, "CONNECT nothing.example:80 HTTP/1.1\r\n\r\n")
        nowhere = await ask(port, "CONNECT no-such-host.invalid:80 HTTP/1.1\r\n\r\n")
    assert [refusal(answer) for answer in (unreachable, unresolved, nowhere)] == [
        "unreachable",
        "unresolved",
        "unresolved",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "GET / HTTP/1.1",
        "GET https://example.org/ HTTP/1.1",
        "GET ftp://example.org/ HTTP/1.1",
        "CONNECT example.org HTTP/1.1",
        "CONNECT example.org:0 HTTP/1.1",
        "CONNECT example.org:99999 HTTP/1.1",
        "CONNECT user@example.org:80 HTTP/1.1",
        "GET http://[::1/ HTTP/1.1",
        "nonsense",
        "\x00 \xff HTTP/1.1",
    ],
)
async def test_what_is_no_request_to_a_proxy_is_refused(line: str) -> None:
    async with proxy(EgressRules(user_ids=OURS)) as port:
        assert refusal(await ask(port, f"{line}\r\n\r\n")) == "malformed"


async def test_a_stranger_on_the_machine_gets_no_answer() -> None:
    async with proxy(EgressRules(user_ids=frozenset({54321}))) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await reader.read() == b""
        writer.close()


async def test_there_is_a_bound_to_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_proxy, "_MOST_CONNECTIONS", 1)
    async with proxy(EgressRules(user_ids=OURS)) as port:
        _, idle = await asyncio.open_connection("127.0.0.1", port)
        answer = await ask(port, "CONNECT example.org:443 HTTP/1.1\r\n\r\n")
        idle.close()
        await idle.wait_closed()
    assert refusal(answer) == "busy"


async def test_an_idle_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_proxy, "_HEAD_TIMEOUT_S", 0.05)
    async with proxy(EgressRules(user_ids=OURS)) as port:
        assert await ask(port, "") == ""


async def test_a_silent_tunnel_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_proxy, "_IDLE_TIMEOUT_S", 0.05)
    names = Names(silent_example=["127.0.0.1"])
    async with PageServer() as server, proxy(names.rules()) as port:
        names.public_ports.add(server.port)
        answer = await ask(port, f"CONNECT silent.example:{server.port} HTTP/1.1\r\n\r\n")
    assert answer == "HTTP/1.1 200 Connection established\r\n\r\n"


def test_the_kernel_tells_which_addresses_are_this_machines() -> None:
    assert is_own(ip_address("127.0.0.1"))
    assert is_own(ip_address("127.99.0.1"))
    assert not is_own(ip_address("192.0.2.123"))
    assert not is_own(ip_address("2001:db8::1"))


async def test_the_kernel_tells_whose_a_connection_is() -> None:
    server = await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0)
    async with server:
        there = server.sockets[0].getsockname()
        _, writer = await asyncio.open_connection(*there)
        here = writer.get_extra_info("sockname")
        assert connection_owner(here, there) == os.geteuid()
        writer.close()
        await writer.wait_closed()
    assert connection_owner(("127.0.0.1", 1), there) is None
