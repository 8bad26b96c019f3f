"""What every room's tests may use. Its folder is on the path, so `fakes.…` can be imported.

Tests may be shared out to several workers, a file to each at a time (`make unit` does so): a file's tests run in their
order, in one process, with shared fixtures of that process's own.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import settings

from fakes.nvml_library import FakeNvml

settings.register_profile("busy-machine", deadline=None)  # how long an example takes says nothing where others work too
settings.load_profile("busy-machine")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Gives a worker a folder with a short name, "gw0": sockets of agents lie deep in it, and their paths are short.

    And gives the suite its Ctrl-C back, which a shell takes from what it starts in the background.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):
        given = Path(config.option.basetemp)
        config.option.basetemp = given.with_name(given.name.removeprefix("popen-"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Has workers begin with the files that run real programs: what takes long must not be left for the end."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("process")}
        items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def fake_nvml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    """A machine with the fake NVML library and no GPU yet, in this process and by its `environment` in others."""
    fake = FakeNvml.build(tmp_path)
    for name, value in fake.preload().items():
        monkeypatch.setenv(name, value)
    return fake
