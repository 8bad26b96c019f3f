"""Connections that do not ask in time: they are closed, and never keep another's request from being answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import pytest

from fakes.web_house import WebHouse, web_house

SHORT = timedelta(milliseconds=50)
LONG = timedelta(minutes=5)
HALF = b"GET /healthz HTTP/1.1\r\nX"
WHOLE = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
LISTING = b"GET /v1/sessions/session-1/artifacts/ HTTP/1.1\r\nHost: localhost\r\n\r\n"


@dataclass
class Line:
    """One connection of a client."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def status(self) -> bytes:
        """Reads an answer's first line; empty when the server hung up."""
        try:
            return (await self.reader.readline()).rstrip()
        except ConnectionError:
            return b""

    async def until_closed(self) -> bytes:
        """Reads on until the server hangs up."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


@asynccontextmanager
async def line(house: WebHouse, sent: bytes) -> AsyncIterator[Line]:
    """Connects and sends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
    try:
        writer.write(sent)
        yield Line(reader, writer)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def first_answered(house: WebHouse, lines: AsyncExitStack, sent: bytes) -> tuple[Line, bytes]:
    """Connects and sends until there is an answer: where others work too, a whole head may come after a short time."""
    while True:
        asking = await lines.enter_async_context(line(house, sent))
        if status := await asking.status():
            return asking, status


@pytest.mark.parametrize("sent", [b"", b"G", HALF, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"])
async def test_a_head_that_does_not_end_is_waited_for_no_longer_than_its_time(sent: bytes) -> None:
    async with web_house(head_timeout=SHORT) as house, line(house, sent) as half:
        assert await half.until_closed() == b""


async def test_the_head_after_an_answer_has_the_same_time() -> None:
    async with web_house(head_timeout=SHORT) as house, AsyncExitStack() as lines:
        slow, status = await first_answered(house, lines, WHOLE + HALF)
        assert status == b"HTTP/1.1 200 OK"
        assert (await slow.until_closed()).endswith(b"\r\n\r\nSERVING\n")


async def test_a_body_that_goes_on_after_its_answer_is_no_new_request() -> None:
    posted = b"POST /nothing HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx"
    async with web_house(head_timeout=SHORT) as house, AsyncExitStack() as lines:
        slow, status = await first_answered(house, lines, posted)
        assert status.startswith(b"HTTP/1.1 4")
        slow.send(b"x")
        await slow.until_closed()


async def test_an_answer_may_take_longer_than_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, answer = asyncio.Event(), asyncio.Event()
    asked: list[object] = []
    async with web_house(head_timeout=SHORT) as house:
        listed = house.agent.list_artifacts

        async def slow(name: object) -> object:
            asked.append(name)
            begun.set()
            await answer.wait()
            return await listed(name)  # type: ignore[arg-type]

        monkeypatch.setattr(house.agent, "list_artifacts", slow)
        async with AsyncExitStack() as lines:
            asking = asyncio.create_task(first_answered(house, lines, LISTING))
            await begun.wait()
            async with line(house, HALF) as half:
                # It came later, so that the first one's time for a head is over as well.
                assert await half.until_closed() == b""
            answer.set()
            assert (await asking)[1] == b"HTTP/1.1 200 OK"
    assert len(asked) == 1, "it was closed while it was answered, and asked again"


async def test_a_connection_is_used_again_for_as_long_as_heads_come_in_time() -> None:
    async with web_house(head_timeout=LONG) as house, line(house, WHOLE * 3) as prompt:
        statuses = [one for _ in range(30) if (one := await prompt.status()).startswith(b"HTTP/1.1")][:3]
        assert statuses == [b"HTTP/1.1 200 OK"] * 3


async def test_requests_are_answered_beside_any_number_of_connections_that_ask_for_nothing() -> None:
    async with web_house(head_timeout=LONG, max_connections=8) as house, AsyncExitStack() as stack:
        halves = [await stack.enter_async_context(line(house, HALF)) for _ in range(40)]
        for _ in range(3):
            assert (await house.client.get("/healthz", headers={"connection": "close"})).status_code == 200
        # The longest waiting made room.
        assert await halves[0].until_closed() == b""


async def test_no_request_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: asyncio.Queue[None] = asyncio.Queue()
    answer = asyncio.Event()
    async with web_house(head_timeout=LONG, max_connections=3) as house, AsyncExitStack() as stack:
        listed = house.agent.list_artifacts

        async def slow(name: object) -> object:
            begun.put_nowait(None)
            await answer.wait()
            return await listed(name)  # type: ignore[arg-type]

        monkeypatch.setattr(house.agent, "list_artifacts", slow)
        asking = []
        for _ in range(2):
            asking.append(await stack.enter_async_context(line(house, LISTING)))
            await begun.get()
        async with line(house, WHOLE) as refused:
            assert await refused.status() == b"HTTP/1.1 503 Service Unavailable"
        answer.set()
        assert [await one.status() for one in asking] == [b"HTTP/1.1 200 OK"] * 2
