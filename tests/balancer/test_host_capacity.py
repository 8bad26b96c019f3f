"""What the host of all devices has: what the settings say, else what the machine has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from balancer import device_plan
from balancer.device_plan import host_capacity
from balancer.domain.device import Dimension
from balancer.settings import BalancerSettings
from gpu_balancer.runtime.settings_file import parse_settings

CORES = len(os.sched_getaffinity(0)) * 1_000_000
MACHINE_MIB = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20


@pytest.fixture(params=["max\n", None], ids=["no bound", "no container"])
def bound(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with the container's bound of memory, or none."""
    path = tmp_path / "memory.max"
    if request.param is not None:
        path.write_text(request.param)
    monkeypatch.setattr(device_plan, "_CONTAINER_MEMORY", path)
    return path


def test_what_is_not_said_is_what_the_machine_has(bound: Path) -> None:
    assert host_capacity(BalancerSettings()) == {Dimension.CORES: CORES, Dimension.MEMORY: MACHINE_MIB}


def test_a_container_may_have_less_memory_than_its_machine(bound: Path) -> None:
    bound.write_text(f"{64 << 20}\n")
    assert host_capacity(BalancerSettings())[Dimension.MEMORY] == 64


def test_what_the_settings_say_counts(bound: Path) -> None:
    settings = parse_settings(
        "[host]\nmemory_mib = 7000\nupload_bits_per_second = 20000000", BalancerSettings, source="a test"
    )
    assert host_capacity(settings) == {
        Dimension.CORES: CORES,
        Dimension.MEMORY: 7000,
        Dimension.UPLOAD: 20_000_000,
    }
