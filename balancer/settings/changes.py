"""What a reload changes: which keys are applied to the running daemon, and which wait for a restart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel

if TYPE_CHECKING:
    from balancer.settings.balancer_settings import BalancerSettings

_LIVE = re.compile(
    r"placement\.|queue\.|quarantine\.|restart\.|devices|profiles\.|log\.level$|cpu_devices\[[^]]*\]\.(?!cores$)"
)
"""Keys that take effect at once, for sessions to come. What agents were started with is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsDiff:
    """The difference between two settings."""

    live_changes: tuple[str, ...]
    """A sentence for each change that applies at once: "devices[GPU-1].weight was 66, is 80"."""
    restart_keys: tuple[str, ...]
    """Keys that changed but apply only after a restart."""


def diff_settings(old: BalancerSettings, new: BalancerSettings) -> SettingsDiff:
    """Compares settings key by key.

    Entries of devices are told apart by what they match and CPU devices by their names, not by their places. The order
    of [[devices]] matters too, as the first entry that fits counts; where it alone changed, `devices` did.

    Returns:
        The changes, keys in alphabetical order.
    """
    common = {device.name for device in old.cpu_devices} & {device.name for device in new.cpu_devices}
    before, after = _values(old, common), _values(new, common)
    live: list[str] = []
    restart: list[str] = []
    for key in sorted(before.keys() | after.keys()):
        was, now = before.get(key), after.get(key)
        if was == now:
            continue
        if _LIVE.match(key):
            live.append(_sentence(key, was, now))
        else:
            restart.append(key)
    if not any(sentence.startswith("devices[") for sentence in live) and _order(old) != _order(new):
        live.append("devices were put into another order")
    return SettingsDiff(live_changes=tuple(live), restart_keys=tuple(restart))


def _values(settings: BalancerSettings, common_cpu_devices: set[str]) -> dict[str, object]:
    """Gives every value by its key. None, which is "not given", is left out, as is what names an entry."""
    values: dict[str, object] = {}
    for device in settings.devices:
        _add(f"devices[{device.match}]", device, values)
        # An entry that says nothing still hides those behind it.
        values[f"devices[{device.match}]"] = "an entry"
    for cpu_device in settings.cpu_devices:
        key = f"cpu_devices[{cpu_device.name}]"
        if cpu_device.name in common_cpu_devices:
            _add(key, cpu_device, values)
        else:
            values[key] = cpu_device
    values |= {f"profiles.{name}": profile for name, profile in settings.profiles.items()}
    values |= {f"applications[{application.name}]": application for application in settings.applications}
    values |= {f"destinations[{destination.name}]": destination for destination in settings.destinations}
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if isinstance(section, BaseModel):
            _add(name, section, values)
    return values


def _add(key: str, section: BaseModel, values: dict[str, object]) -> None:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            _add(f"{key}.{name}", value, values)
        elif value is not None and name not in {"match", "name"}:
            values[f"{key}.{name}"] = value


def _order(settings: BalancerSettings) -> tuple[str, ...]:
    return tuple(device.match for device in settings.devices)


def _sentence(key: str, was: object, now: object) -> str:
    if now is None:
        return f"{key} is no longer given" if not isinstance(was, BaseModel) else f"{key} is gone"
    if isinstance(now, BaseModel):
        return f"{key} is new" if was is None else f"{key} changed"
    if was is None:
        return f"{key} is new" if now == "an entry" else f"{key} was not given, is {now}"
    return f"{key} was {was}, is {now}"
