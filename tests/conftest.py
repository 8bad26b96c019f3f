"""What every room's tests may use. Its folder is on the path, so `fakes.…` can be imported.

Tests may be shared out to several workers, a file to each at a time (`make unit` does so): a file's tests run in their
order, in one process, with shared fixtures of that process's own.
"""

from __future__ import annotations

import fcntl
import gc
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from fakes.nvml_library import FakeNvml

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

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


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Has one worker collect before all others: on a fresh checkout it compiles every module, and they need not.

    What was collected stays to the end: cycles are not looked for in it, neither now nor while tests run.
    """
    gc.disable()
    try:
        if not hasattr(session.config, "workerinput"):
            return (yield)
        with (Path(session.config.option.basetemp).parent / "collecting").open("w") as turn:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                fcntl.flock(turn, fcntl.LOCK_SH)
            return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _silence_of_closed_loops() -> Iterator[None]:
    """Keeps out of a test's log what gRPC says there of an event loop that an earlier test has closed.

    One poller serves all loops of a process. It hands on a late event of a closed loop too, and complains from
    whichever loop runs then.
    """
    logger = logging.getLogger("asyncio")
    logger.addFilter(_is_of_a_living_loop)
    yield
    logger.removeFilter(_is_of_a_living_loop)


def _is_of_a_living_loop(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return "PollerCompletionQueue" not in record.getMessage() or str(error) != "Event loop is closed"


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
