"""What every room's tests may use. Its folder is on the path, so `fakes.…` can be imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fakes.nvml_library import FakeNvml

if TYPE_CHECKING:
    from pathlib import Path

settings.register_profile("busy-machine", deadline=None)  # how long an example takes says nothing where others work too
settings.load_profile("busy-machine")


@pytest.fixture
def fake_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine with the fake NVML library and no GPU yet, in this process and by its `environment` in others."""
    fake = FakeNvml.build(tmp_path)
    for name, value in fake.preload().items():
        monkeypatch.setenv(name, value)
    return fake
