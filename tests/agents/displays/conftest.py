"""Folders for the tests of displays, and an end to whatever a test leaves running."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from display_rig import opened_pool, short_folder


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A folder for work folders."""
    with short_folder() as folder:
        yield folder


@pytest.fixture
def root(tmp_path: Path, run_dir: Path) -> Iterator[Path]:
    """The folder of a pool's displays. At the end everything of them is ended, by a pool that finds none in use."""
    folder = tmp_path / "displays"
    yield folder

    async def end_all() -> None:
        async with opened_pool(folder, run_dir):
            pass

    asyncio.run(end_all())


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the next warm display made at once, and be ready as soon as it is made."""
    monkeypatch.setattr("agents.displays.warming.REFILL_PAUSE", timedelta())
    monkeypatch.setattr("agents.displays.warming.SETTLED_AFTER", timedelta())
