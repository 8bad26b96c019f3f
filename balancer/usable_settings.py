"""Settings that this machine can use: well formed, and naming cores and policies that are here.

An operator's policy may take long to be imported and made, so it is made here, once, where nothing else waits for it,
and handed on with the settings: never again by whoever puts them in force.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from balancer.adapters.policy_plugins import PolicyUnavailable, load_policy
from balancer.settings import BalancerSettings
from gpu_balancer.runtime.settings_file import load_settings, settings_refusal
from gpu_balancer.runtime.settings_sections import format_cores, parse_cores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from balancer.domain.policies import Policy
    from gpu_balancer.runtime.toml_positions import KeyPath


@dataclass(frozen=True, slots=True, kw_only=True)
class UsableSettings:
    """Settings with what was made of them."""

    settings: BalancerSettings
    policy: Policy
    """The one that they name, told of nothing yet."""


def load_usable_settings(path: Path | None) -> UsableSettings:
    """Reads the balancer's settings and makes sure that this machine can use them. Blocks for disk and policy.

    Args:
        path: The file. None: all defaults.

    Raises:
        SettingsError: The file cannot be read, or anything in it is wrong, or is not to be had here.
    """
    settings = load_settings(path, BalancerSettings)
    wrong: list[tuple[KeyPath, str]] = []
    policy = None
    try:
        policy = make_policy(settings)
    except PolicyUnavailable as error:
        wrong.append((("placement", "policy"), str(error)))
    wrong.extend(_missing_cores(settings))
    if policy is None or wrong:
        raise settings_refusal(path, wrong)
    return UsableSettings(settings=settings, policy=policy)


def make_policy(settings: BalancerSettings) -> Policy:
    """Makes the policy that settings name. Blocks for up to `LOAD_TIMEOUT` where it is an operator's.

    Raises:
        PolicyUnavailable: There is no policy of that name, or it cannot be used.
    """
    placement = settings.placement
    return load_policy(placement.policy, timeout=timedelta(milliseconds=placement.policy_timeout_ms))


def _missing_cores(settings: BalancerSettings) -> Iterator[tuple[KeyPath, str]]:
    usable = os.sched_getaffinity(0)
    for index, device in enumerate(settings.cpu_devices):
        missing = tuple(core for core in parse_cores(device.cores) if core not in usable)
        if missing:
            here = format_cores(tuple(sorted(usable)))
            told = f"must name cores that this process may use, {here}, not {format_cores(missing)}"
            yield ("cpu_devices", index, "cores"), told
