"""The HTTP server itself: who is answered, what else it tells, how it starts and ends."""

from __future__ import annotations

import asyncio
import signal
import socket
from contextlib import suppress
from datetime import timedelta

import pytest

from balancer.web.loopback_hosts import is_loopback_host
from balancer.web.server import WebServer
from fakes.web_house import WebHouse, web_house
from gpu_balancer.runtime.listening import ListenFault


async def test_metrics_are_given_as_prometheus_text(house: WebHouse) -> None:
    answer = await house.client.get("/metrics")
    assert answer.content == b"answer 42\n"
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


async def test_health_is_told(house: WebHouse) -> None:
    assert (await house.client.get("/healthz")).status_code == 200
    house.healthy = False
    answer = await house.client.get("/healthz")
    assert (answer.status_code, answer.text) == (503, "NOT_SERVING\n")


async def test_anything_else_is_not_there(house: WebHouse) -> None:
    for path in ("/", "/docs", "/v1/sessions", "/v1/sessions/session-1", "/metrics/x"):
        assert (await house.client.get(path)).status_code == 404


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8080", "localhost.", "127.0.0.1", "127.0.0.1:8080", "127.9.9.9", "[::1]", "[::1]:80"],
)
async def test_loopback_is_answered_under_all_its_names(house: WebHouse, host: str) -> None:
    assert is_loopback_host(host)
    assert (await house.client.get("/healthz", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "192.168.0.1",
        "0.0.0.0",
        "[::]",
        "2130706433",
        "0x7f.1",
        "localhost:80:80",
        "evil@localhost",
        "",
    ],
)
async def test_no_other_name_is_answered(house: WebHouse, host: str) -> None:
    house.agent.artifacts["a.mp4"] = b"secret"
    assert not is_loopback_host(host)
    answer = await house.exchange(
        f"GET /v1/sessions/session-1/artifacts/a.mp4 HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400"))
    assert b"secret" not in answer


@pytest.mark.parametrize("hosts", ["", "Host: localhost\r\nHost: evil.example\r\n"])
async def test_none_or_two_names_are_not_answered(house: WebHouse, hosts: str) -> None:
    answer = await house.exchange(f"GET /healthz HTTP/1.0\r\n{hosts}\r\n".encode())
    assert answer.startswith((b"HTTP/1.1 421", b"HTTP/1.1 400"))


async def test_headers_without_end_are_cut_off(house: WebHouse) -> None:
    answer = await house.exchange(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000)
    assert answer.startswith(b"HTTP/1.1 400") or answer == b""


@pytest.mark.parametrize("address", ["0.0.0.0:8080", "8.8.8.8:80", "example.com:80", "[::]:80", "127.0.0.1", ""])
async def test_only_loopback_is_listened_on(address: str) -> None:
    with pytest.raises(ListenFault, match="Cannot listen on"):
        await WebServer(address, _nothing).__aenter__()


async def test_a_port_in_use_is_told_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenFault, match=f"Cannot listen on 127.0.0.1:{port}: the port is in use"):
            await WebServer(f"127.0.0.1:{port}", _nothing).__aenter__()


async def test_signals_stay_the_daemons_own() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with web_house():
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


async def test_the_port_is_free_again_at_once() -> None:
    async with web_house() as house:
        port = house.port
        assert (await house.client.get("/healthz")).status_code == 200
    async with WebServer(f"127.0.0.1:{port}", _nothing) as url:
        assert url == f"http://127.0.0.1:{port}"


async def test_localhost_is_listened_on_by_its_address() -> None:
    async with WebServer("localhost:0", _nothing) as url:
        assert url.startswith(("http://127.0.0.1:", "http://[::1]:"))


async def test_an_open_request_does_not_hold_up_the_end() -> None:
    async with web_house(grace=timedelta(milliseconds=50)) as house:
        house.agent.artifacts["big.mp4"] = bytes(256 * 1024 * 1024)
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"GET /v1/sessions/session-1/artifacts/big.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert await reader.read(1024)
    assert house.agent.open_streams == 0
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_an_answer_that_never_comes_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(_: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with web_house(grace=timedelta(milliseconds=50)) as house:
        monkeypatch.setattr(house.agent, "list_artifacts", endless)
        _, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(b"GET /v1/sessions/session-1/artifacts/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await begun.wait()
    assert ended.is_set()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_fault_in_one_answer_does_not_end_the_server(house: WebHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: object) -> None:
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(house.agent, "list_artifacts", broken)
    answer = await house.client.get("/v1/sessions/session-1/artifacts/")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert (await house.client.get("/healthz")).status_code == 200


async def _nothing(scope: object, receive: object, send: object) -> None:
    """Serves nothing."""
