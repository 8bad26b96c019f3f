"""The chaos suite in its shortest form: a house that is broken a little keeps every promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SEED = "8"


@pytest.mark.process
@pytest.mark.timeout(420)
@pytest.mark.parametrize("name", ["kills", "retries", "endings", "partitions"])
def test_a_house_that_is_broken_keeps_every_promise(name: str, probe_results: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.chaos", name, "--short", "--seed", SEED, "--probe-results", str(probe_results)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        timeout=400,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert f"{name}: --seed {SEED}" in done.stdout
    assert "violations of invariants: 0" in done.stdout
