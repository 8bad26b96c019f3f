"""The engine's tests run in virtual time: hours of timeouts pass in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest

from fakes.engine_house import EngineHouse, engine_house
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"virtual": VirtualTimeLoop}


@pytest.fixture
def store() -> FakeSessionStore:
    return FakeSessionStore()


@pytest.fixture
async def house(store: FakeSessionStore) -> AsyncIterator[EngineHouse]:
    """An engine with one roomy device."""
    async with engine_house(store) as made:
        yield made
