"""The blocking connection when a signal interrupts gRPC: it stays usable, and it closes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from gpu_balancer.client import blocking_connection, methods
from gpu_balancer.client.blocking_connection import BlockingConnection
from gpu_balancer.client.connection import complete
from gpu_balancer.v1 import session_pb2, session_service_pb2

if TYPE_CHECKING:
    from fakes.balancer_server import FakeBalancer


def test_after_an_interrupted_stream_another_channel_answers(fake_aside: FakeBalancer) -> None:
    fake_aside.do(lambda: fake_aside.add_session("a", state=session_pb2.SESSION_STATE_RUNNING))
    connection = BlockingConnection(fake_aside.address)
    watch = session_service_pb2.WatchSessionRequest(name="sessions/a")
    stream = connection.stream(methods.WATCH_SESSION, watch)

    async def first() -> str:
        return (await anext(stream)).session.name

    async def interrupt() -> None:
        await stream.athrow(KeyboardInterrupt)

    assert complete(first()) == "sessions/a"
    before = connection._channel
    with pytest.raises(KeyboardInterrupt):
        complete(interrupt())
    assert connection._channel is not before
    request = session_service_pb2.GetSessionRequest(name="sessions/a")
    assert complete(connection.call(methods.GET_SESSION, request)).session.name == "sessions/a"
    complete(connection.close())


def test_a_channel_that_never_closes_is_not_awaited(fake_aside: FakeBalancer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocking_connection, "_CLOSE_TIMEOUT_S", 0.01)
    connection, never = BlockingConnection(fake_aside.address), threading.Event()

    class Spoiled:
        def close(self) -> None:
            never.wait()

    connection._put_aside.append(Spoiled())  # type: ignore[arg-type]
    complete(connection.close())
    never.set()
