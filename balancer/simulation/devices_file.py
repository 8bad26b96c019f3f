"""Reads the devices of a simulation: TOML written by hand, or the JSON that `gpu-balancer devices --json` printed.

From the JSON of a running balancer come capacities, rates and weights as they are in force there, calibrated ones too;
sessions that ran there are left out. Mistakes of the TOML are told like those of balancer.toml, with key and line.
"""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from balancer.domain.capacity import CapacityOverride
from balancer.domain.device import DeviceKind, DeviceView
from balancer.domain.ids import DeviceId
from balancer.settings import CapacitySettings
from balancer.simulation.devices_json import DevicesJsonError, view_of_json
from balancer.simulation.fleet import Fleet, alike, cpu_view, gpu_view, host_of, plain_name, with_weights
from balancer.simulation.strict_json import RepeatedKeyError, object_of_pairs
from gpu_balancer.hardware import model_row
from gpu_balancer.hardware.tables import read_table
from gpu_balancer.runtime.settings_file import SettingsError, parse_settings
from gpu_balancer.runtime.settings_values import Count, Many, Section, refuse

MOST_DEVICES = 10_000
_LARGEST_FILE_BYTES = 64 * 1024 * 1024
_MOST_CORES = 4096
_JSON_BEGIN = re.compile(r"\s*(\{|\[\s*\{)")
"""TOML that begins with a table begins with "[" too, but never with "[" and a brace."""


class DevicesFileError(Exception):
    """A file of devices that cannot be used. The message says what is wrong, where, and what to try."""


class SimulatedHost(Section):
    """The machine that devices sit in."""

    cores: Annotated[int, Field(ge=1, le=_MOST_CORES)] | None = None
    """Its processor cores. Not given: those of its CPU devices; with none of these they are not limited."""


class SimulatedDevice(CapacitySettings):
    """One device, or several alike."""

    model: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """A GPU's name as NVML gives it, "NVIDIA L4"."""
    cores: Annotated[int, Field(ge=1, le=_MOST_CORES)] | None = None
    """Number of cores of a CPU device."""
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9 #._-]{0,39}$")] | None = None
    """What to call it. Not given: its model."""
    count: Annotated[int, Field(ge=1, le=MOST_DEVICES)] = 1
    """How many of them there are."""
    encoder_sessions: Count | None = None
    """Hardware encoder sessions open at once, the driver's cap on GeForce cards for instance."""
    video_clock_mhz: Annotated[int, Field(ge=100, le=10_000)] | None = None
    """Video clock at most. Not given: that of the tables' figures."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if (self.model is None) is (self.cores is None):
            refuse([((), "must have either model, for a GPU, or cores, for a CPU device")])
        if self.model is not None and model_row(self.model) is None:
            refuse([(("model",), _unknown_model(self.model))])
        if self.cores is not None and (self.encoder_sessions is not None or self.video_clock_mhz is not None):
            refuse([((), "must not have encoder_sessions or video_clock_mhz, which only GPUs have")])
        return self


class DevicesFile(Section):
    """A file of devices."""

    host: SimulatedHost = SimulatedHost()
    devices: Annotated[Many[SimulatedDevice], Field(min_length=1)]

    @model_validator(mode="after")
    def _can_be_used(self) -> Self:
        if sum(device.count for device in self.devices) > MOST_DEVICES:
            refuse([(("devices",), f"must be at most {MOST_DEVICES:,} devices together")])
        if all(device.weight == 0 for device in self.devices):
            refuse([(("devices",), "must not have only weights of 0: no device would take a session")])
        return self


def read_fleet(path: Path) -> Fleet:
    """Reads a file of devices.

    Args:
        path: JSON where it begins with "{" or "[", else TOML.

    Returns:
        The devices.

    Raises:
        DevicesFileError: It cannot be read, or something in it is wrong.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DevicesFileError(
            f"Cannot read devices {path}: {error.strerror}. Try a file that this user may read."
        ) from error
    except UnicodeDecodeError as error:
        raise DevicesFileError(f"Cannot read devices {path}: it is not UTF-8. Try to save it as UTF-8.") from error
    if len(data) > _LARGEST_FILE_BYTES:
        raise DevicesFileError(f"Cannot read devices {path}: more than 64 MiB. Try the right file.")
    try:
        return _from_json(text) if _JSON_BEGIN.match(text) else _from_toml(text)
    except (DevicesJsonError, SettingsError) as error:
        raise DevicesFileError(f"Cannot read devices {path}: {_reason(error)}") from error


def _reason(error: DevicesJsonError | SettingsError) -> str:
    if isinstance(error, SettingsError):
        count = "1 mistake" if len(error.mistakes) == 1 else f"{len(error.mistakes)} mistakes"
        return f"{count}." + "".join(f"\n  {mistake}" for mistake in error.mistakes)
    return str(error)


def _unknown_model(model: str) -> str:
    names = [f"{name}" for row in read_table("nvenc_matrix.csv") for name in row["nvml_names"].split("|")]
    near = difflib.get_close_matches(model.removeprefix("NVIDIA ").strip(), names, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"must be a model of the tables, not {model!r}{hint}"


# --------------------------------------------------------------------------------------------------------------- TOML


def _from_toml(text: str) -> Fleet:
    told = parse_settings(text, DevicesFile, source="devices")
    views: list[DeviceView] = []
    weights: dict[DeviceId, int] = {}
    names: dict[DeviceId, str] = {}
    for device in told.devices:
        first = _view(device)
        for _ in range(device.count):
            view = alike(first, f"{first.identity.kind.value}-{len(views)}")
            views.append(view)
            names[view.id] = device.name or plain_name(device.model or "CPU")
            if device.weight is not None:
                weights[view.id] = device.weight
    return _fleet(views, weights, names, told.host.cores)


def _view(device: SimulatedDevice) -> DeviceView:
    if device.model is None:
        return cpu_view("cpu", range(device.cores or 1), override=_override(device))
    row = model_row(device.model)
    assert row is not None, "its validator has looked"
    return gpu_view("gpu", device.model, row, override=_override(device), video_clock_mhz=device.video_clock_mhz)


def _override(device: SimulatedDevice) -> CapacityOverride:
    return CapacityOverride(
        decode_pixels_per_second=device.decode_pixels_per_second,
        scale_pixels_per_second=device.scale_pixels_per_second,
        encode_pixels_per_second=device.encode_pixels_per_second,
        encoder_sessions=device.encoder_sessions,
        memory_mib=device.memory_mib,
    )


def _fleet(
    views: Iterable[DeviceView], weights: Mapping[DeviceId, int], names: Mapping[DeviceId, str], cores: int | None
) -> Fleet:
    weighted = with_weights(tuple(views), weights)
    return Fleet(views=weighted, names=dict(_numbered(names)), host_capacity=host_of(weighted, cores))


def _numbered(names: Mapping[DeviceId, str]) -> Iterator[tuple[DeviceId, str]]:
    """Tells devices of one name apart: "L4 #1", "L4 #2"."""
    seen: dict[str, int] = {}
    called = Counter(names.values())
    for device_id, name in names.items():
        seen[name] = seen.get(name, 0) + 1
        yield device_id, f"{name} #{seen[name]}" if called[name] > 1 else name


# --------------------------------------------------------------------------------------------------------------- JSON


def _from_json(text: str) -> Fleet:
    try:
        found: Any = json.loads(text, object_pairs_hook=object_of_pairs)
    except RepeatedKeyError as error:
        raise DevicesJsonError(f"it has the key {json.dumps(error.key[:40])} more than once in one object.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        line = f"line {error.lineno}: " if isinstance(error, json.JSONDecodeError) else ""
        raise DevicesJsonError(f"{line}it is no JSON.") from error
    except ValueError as error:
        raise DevicesJsonError("a number in it has too many digits.") from error
    devices = found.get("devices") if isinstance(found, dict) else found
    if not isinstance(devices, list) or not devices or len(devices) > MOST_DEVICES:
        raise DevicesJsonError('it has no list of "devices". Try the output of gpu-balancer devices --json.')
    views = [view_of_json(place, device) for place, device in enumerate(devices)]
    if len({view.id for view in views}) < len(views):
        raise DevicesJsonError("two of its devices have the same id.")
    if not any(view.weight for view in views):
        raise DevicesJsonError("all its devices have a weight of 0, so that none takes a session.")
    names = {
        view.id: plain_name(view.identity.model) if view.identity.kind is DeviceKind.NVIDIA else view.id
        for view in views
    }
    return _fleet(views, {view.id: view.weight for view in views}, names, None)
