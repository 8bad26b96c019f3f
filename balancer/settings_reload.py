"""Settings while the daemon runs: read again as a whole or refused as a whole, and weights saved into the file."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import structlog

from balancer.adapters.guarded_policy import GuardedPolicy
from balancer.adapters.policy_plugins import PolicyUnavailable
from balancer.device_plan import device_rules
from balancer.device_registry import names_of
from balancer.domain.placement import PlacementSettings
from balancer.domain.quarantine import QuarantineSettings
from balancer.domain.queue import QueueSettings
from balancer.domain.restart import RestartMode, RestartRule
from balancer.domain.workload import CostFactors
from balancer.placer import PlacementRules
from balancer.settings import BalancerSettings
from balancer.settings.changes import diff_settings
from balancer.settings.saved_weights import save_weight
from balancer.usable_settings import UsableSettings, load_usable_settings, make_policy
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.settings_file import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from balancer.device_registry import DeviceRegistry
    from balancer.domain.device import Dimension
    from balancer.domain.ids import DeviceId
    from balancer.domain.policies import Policy
    from balancer.session_engine import SessionEngine

_log = structlog.get_logger(__name__)

_ONLY_ZEROS = (
    "No device that is there has a weight above 0 now: none takes a session. Try a weight for one of them, and reload."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadOutcome:
    """What a reload did."""

    version: int
    """Number of the settings now in force."""
    changes: tuple[str, ...]
    """What changed, a sentence each."""
    restart_keys: tuple[str, ...]
    """Keys that changed in the file but apply only after a restart."""


def placement_rules(
    settings: BalancerSettings,
    *,
    policy: Policy,
    version: int,
    host_capacity: Mapping[Dimension, int],
    on_policy_fault: Callable[[str, str], None] = lambda _policy, _kind: None,
) -> PlacementRules:
    """Makes the engine's rules from the settings.

    Args:
        settings: As read.
        policy: The one that they name, made already: that may take longer than the loop can stand still.
        version: Their number.
        host_capacity: What the host has, in the dimensions' units.
        on_policy_fault: Called with the policy's name and the kind of each fault of an operator's policy.
    """
    if isinstance(policy, GuardedPolicy):
        policy.on_fault = on_policy_fault
    placement = settings.placement
    factors = placement.factors
    return PlacementRules(
        policy=policy,
        settings=PlacementSettings(
            factors=CostFactors(decode=factors.decode, scale=factors.scale, encode=factors.encode),
            # Through the decimal text: 0.9 is meant as nine tenths, not as the nearest binary fraction.
            headroom=Fraction(str(placement.headroom)),
            least_batch_speed=Fraction(str(placement.least_batch_speed)),
            version=version,
        ),
        host_capacity=host_capacity,
        queue=QueueSettings(
            max_sessions=settings.queue.max_sessions,
            longest_wait=timedelta(seconds=settings.queue.max_wait_s),
            batch_ages_after=timedelta(seconds=settings.queue.batch_ages_after_s),
            keep_device_after=timedelta(seconds=settings.queue.keep_device_after_s),
        ),
    )


def quarantine_settings(settings: BalancerSettings) -> QuarantineSettings:
    """Makes the settings of quarantines."""
    quarantine = settings.quarantine
    return QuarantineSettings(
        failures=quarantine.failures,
        within=timedelta(seconds=quarantine.within_s),
        first_pause=timedelta(seconds=quarantine.first_pause_s),
        longest_pause=timedelta(seconds=quarantine.longest_pause_s),
    )


def restart_rule(settings: BalancerSettings) -> RestartRule:
    """Makes the rule of sessions whose clients say nothing of restarts."""
    restart = settings.restart
    return RestartRule(
        mode=RestartMode(restart.mode),
        max_restarts=restart.max_restarts,
        first_backoff=timedelta(seconds=restart.first_backoff_s),
        longest_backoff=timedelta(seconds=restart.longest_backoff_s),
        reasons=frozenset(restart.reasons),
    )


def lost_after(settings: BalancerSettings) -> timedelta | None:
    """Gives the silence of an agent after which its sessions go on elsewhere. None: they never do."""
    return timedelta(seconds=settings.restart.lost_after_s) or None


class SettingsReload:
    """Owns the settings in force and the path they are from."""

    def __init__(
        self,
        *,
        path: Path | None,
        settings: BalancerSettings,
        registry: DeviceRegistry,
        engine: SessionEngine,
        on_applied: Callable[[BalancerSettings], None],
        on_policy_fault: Callable[[str, str], None] = lambda _policy, _kind: None,
    ) -> None:
        """Begins with settings that are in force already, as version 1.

        Args:
            path: The settings file. None: there is none, so nothing can be reloaded or saved.
            settings: What is in force.
            registry: Told of weights and capacities.
            engine: Told of policy, factors and headroom.
            on_applied: Told of everything else that applies at once, such as the log level.
            on_policy_fault: Told of each fault of an operator's policy: its name and the kind.
        """
        self.settings = settings
        self.version = 1
        self._started_with = settings
        self._path = path
        self._registry = registry
        self._engine = engine
        self._on_applied = on_applied
        self._on_policy_fault = on_policy_fault
        self._one_at_a_time = asyncio.Lock()

    @property
    def path(self) -> Path | None:
        """The settings file, or None."""
        return self._path

    async def reload(self) -> ReloadOutcome:
        """Reads the file again and applies it; sessions that run stay as they are.

        Raises:
            RequestFailure: SETTINGS_REFUSED: there is no file, or something in it is wrong; nothing was changed then.
        """
        async with self._one_at_a_time:
            try:
                return self._apply(await asyncio.to_thread(load_usable_settings, self._required_path()))
            except SettingsError as error:
                _log.warning("settings refused", error=str(error))
                raise RequestFailure(
                    reason=Reason.SETTINGS_REFUSED, message=f"{error}\nThe settings in force stay as they are."
                ) from error

    async def reload_or_log(self) -> None:
        """Reads the file again as a signal asks; what is wrong with it stands in the log."""
        with suppress(RequestFailure):
            await self.reload()

    async def save_weight(self, device_id: DeviceId, weight: int) -> Path:
        """Writes a device's weight into the settings file, comments kept, and puts it in force.

        Raises:
            RequestFailure: SETTINGS_REFUSED: there is no file, or it cannot be written, or would not load afterwards.
        """
        async with self._one_at_a_time:
            path = self._required_path()
            device = names_of(self._registry.find(device_id).identity)
            others = [names_of(entry.identity) for entry in self._registry.entries() if entry.identity.id != device_id]
            try:
                settings = await asyncio.to_thread(save_weight, path, device, weight, others=others)
                policy = await asyncio.to_thread(make_policy, settings)
                self._apply(UsableSettings(settings=settings, policy=policy))
            except (SettingsError, PolicyUnavailable) as error:
                raise RequestFailure(reason=Reason.SETTINGS_REFUSED, message=str(error)) from error
            return path

    def _apply(self, usable: UsableSettings) -> ReloadOutcome:
        fresh = usable.settings
        rules = placement_rules(
            fresh,
            policy=usable.policy,
            version=self.version + 1,
            host_capacity=self._engine.rules.host_capacity,
            on_policy_fault=self._on_policy_fault,
        )
        changes = diff_settings(self.settings, fresh).live_changes
        # Against what the daemon was started with: what waits for a restart is named until there is one.
        restart_keys = diff_settings(self._started_with, fresh).restart_keys
        self._registry.apply_rules(device_rules(fresh))
        entries = self._registry.entries()
        if entries and not any(entry.weight for entry in entries):
            # Not all of the file's entries are, or it would have been refused; those of the devices that are there are.
            changes = (*changes, _ONLY_ZEROS)
            _log.warning("no device has a weight", version=self.version + 1)
        self._engine.rules = rules
        self.settings = fresh
        self.version += 1
        self._on_applied(fresh)
        _log.info(
            "settings applied",
            version=self.version,
            changes=changes,
            after_restart=restart_keys,
        )
        return ReloadOutcome(version=self.version, changes=changes, restart_keys=restart_keys)

    def _required_path(self) -> Path:
        if self._path is None:
            raise RequestFailure(
                reason=Reason.SETTINGS_REFUSED,
                message="Cannot use a settings file: the daemon was started without one. Start it with --config FILE.",
            )
        return self._path
