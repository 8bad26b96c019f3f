"""What only the machine can tell of settings is refused like anything else that is wrong: by key and line."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from balancer.usable_settings import load_usable_settings
from gpu_balancer.runtime.settings_file import SettingsError


def test_cores_that_are_not_here_and_policies_nobody_brings_are_named_with_key_and_line(tmp_path: Path) -> None:
    path = tmp_path / "balancer.toml"
    path.write_text('[placement]\npolicy = "nobodys"\n\n[[cpu_devices]]\nname = "a"\ncores = "0-4000"\n')
    with pytest.raises(SettingsError, match=r"2 mistakes") as caught:
        load_usable_settings(path)
    policy, cores = caught.value.mistakes
    assert (policy.line, policy.key) == (2, "placement.policy")
    assert "least_weighted_load, adaptive" in policy.message
    assert (cores.line, cores.key) == (6, "cpu_devices[0].cores")
    assert "4000" in cores.message


def test_cores_that_are_here_are_taken(tmp_path: Path) -> None:
    core = min(os.sched_getaffinity(0))
    path = tmp_path / "balancer.toml"
    path.write_text(f'[[cpu_devices]]\nname = "a"\ncores = "{core}"\n')
    assert load_usable_settings(path).settings.cpu_devices[0].cores == str(core)
    assert load_usable_settings(None).settings.cpu_devices == ()
