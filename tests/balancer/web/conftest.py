"""The HTTP port on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from fakes.web_house import WebHouse, web_house


@pytest.fixture
async def house() -> AsyncIterator[WebHouse]:
    """A server with one session, whose artifacts the agent has."""
    async with web_house() as made:
        yield made
