"""The benchmarks run: shortest possible, and whatever they find."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


_NAMES = ["create_session", "transcode", "footprint", "restarts", "calibration", "recording", "health"]


@pytest.mark.process
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", _NAMES)
def test_a_benchmark_runs_to_its_end_and_prints_its_figures(name: str, probe_results: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", name, "--smoke", "--probe-results", str(probe_results)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=230,
    )
    assert done.returncode == 0, done.stderr
    assert " asked " in done.stdout
