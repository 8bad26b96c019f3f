"""Settings that this machine can use: well formed, and naming cores and policies that are here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from balancer.adapters.policy_plugins import PolicyUnavailable, load_policy
from balancer.settings import BalancerSettings
from gpu_balancer.runtime.settings_file import load_settings, settings_refusal
from gpu_balancer.runtime.settings_sections import format_cores, parse_cores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gpu_balancer.runtime.toml_positions import KeyPath


def load_usable_settings(path: Path | None) -> BalancerSettings:
    """Reads the balancer's settings and makes sure that this machine can use them.

    Args:
        path: The file. None: all defaults.

    Raises:
        SettingsError: The file cannot be read, or anything in it is wrong, or is not to be had here.
    """
    settings = load_settings(path, BalancerSettings)
    wrong = [*_unavailable_policy(settings), *_missing_cores(settings)]
    if wrong:
        raise settings_refusal(path, wrong)
    return settings


def _unavailable_policy(settings: BalancerSettings) -> Iterator[tuple[KeyPath, str]]:
    try:
        load_policy(settings.placement.policy)
    except PolicyUnavailable as error:
        yield ("placement", "policy"), str(error)


def _missing_cores(settings: BalancerSettings) -> Iterator[tuple[KeyPath, str]]:
    usable = os.sched_getaffinity(0)
    for index, device in enumerate(settings.cpu_devices):
        missing = tuple(core for core in parse_cores(device.cores) if core not in usable)
        if missing:
            here = format_cores(tuple(sorted(usable)))
            told = f"must name cores that this process may use, {here}, not {format_cores(missing)}"
            yield ("cpu_devices", index, "cores"), told
