"""Fixtures of recordings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from recording_rig import RecordingRigs


@pytest.fixture
def rigs(tmp_path: Path) -> Iterator[RecordingRigs]:
    """Agents on one state folder; what they leave running is ended."""
    made = RecordingRigs(tmp_path / "state")
    made.state_dir.mkdir()
    yield made
    made.end_everything()
