"""The command that runs the benchmarks."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from bench import __main__ as command


@pytest.fixture
def _own_way_to_end() -> Iterator[None]:
    """Gives the process back what it does when it is asked to end."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.usefixtures("_own_way_to_end")
def test_a_benchmark_that_is_asked_to_end_ends_what_it_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = []

    def measure() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            ended.append("its daemon")

    monkeypatch.setitem(sys.modules, "bench.endless", SimpleNamespace(measure=measure))
    monkeypatch.setitem(command.BENCHMARKS, "endless", "Never ends")
    monkeypatch.setattr(sys, "argv", ["bench", "endless"])
    with pytest.raises(SystemExit, match="Asked to end"):
        command.main()
    assert ended == ["its daemon"]
