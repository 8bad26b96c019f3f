"""A balancer behind a real gRPC server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from fakes.balancer_house import BalancerHouse, balancer_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[BalancerHouse]:
    """A balancer with one roomy device."""
    async with balancer_house(tmp_path) as made:
        yield made
