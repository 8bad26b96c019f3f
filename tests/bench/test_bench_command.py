"""The command that runs the benchmarks."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import __main__ as command
from bench.daemons import last_words


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


def test_the_ends_of_all_logs_are_told_before_they_go(tmp_path: Path) -> None:
    agent = tmp_path / "state" / "agents" / "cpu-0" / "agent.log"
    agent.parent.mkdir(parents=True)
    agent.write_text("".join(f"line {number}\n" for number in range(100)))
    (tmp_path / "gpu-balancerd.log").write_bytes(b"\xff it ended\n")
    told = last_words(tmp_path).splitlines()
    assert told[:2] == ["--- gpu-balancerd.log", "\N{REPLACEMENT CHARACTER} it ended"]
    assert (told[2], told[3], told[-1]) == ("--- state/agents/cpu-0/agent.log", "line 70", "line 99")
