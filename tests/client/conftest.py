"""A fake daemon and both clients on it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from fakes.balancer_server import FakeBalancer, served_aside, start_server
from gpu_balancer import AsyncClient, Client, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

EAGER = RetryPolicy(
    patience=timedelta(seconds=20), first_delay=timedelta(milliseconds=5), longest_delay=timedelta(milliseconds=20)
)


@pytest.fixture
async def fake(tmp_path: Path) -> AsyncIterator[FakeBalancer]:
    """A fake daemon on the test's own loop."""
    balancer = FakeBalancer(f"unix:{tmp_path / 'balancer.sock'}")
    server = await start_server(balancer)
    yield balancer
    await server.stop(0)


@pytest.fixture
async def client(fake: FakeBalancer) -> AsyncIterator[AsyncClient]:
    """An asynchronous client of the fake."""
    async with AsyncClient(fake.address, retry_policy=EAGER, stream_policy=EAGER) as made:
        yield made


@pytest.fixture
def fake_aside(tmp_path: Path) -> Iterator[FakeBalancer]:
    """A fake daemon on a thread of its own."""
    with served_aside(tmp_path) as balancer:
        yield balancer


@pytest.fixture
def blocking_client(fake_aside: FakeBalancer) -> Iterator[Client]:
    """A blocking client of the fake."""
    with Client(fake_aside.address, retry_policy=EAGER, stream_policy=EAGER) as made:
        yield made
