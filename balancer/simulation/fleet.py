"""Devices that need not be there: what a model of the tables is taken to do, and one device of all devices' capacity.

A device's capacity comes from the same place as in the daemon, `balancer.domain.capacity`; what a golden probe would
have found is taken from the row of the model, and where the row says nothing of a format, from its generation.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from balancer.domain.capacity import ENGINE, CapacityOverride, capacity_of, capacity_of_host, default_weights
from balancer.domain.device import (
    Capability,
    DeviceCapacity,
    DeviceIdentity,
    DeviceKind,
    DeviceState,
    DeviceView,
    Dimension,
    Direction,
    RecordingAbility,
)
from balancer.domain.ids import DeviceId
from balancer.domain.workload import EncodingSpeed, VideoCodec
from gpu_balancer.hardware import model_row
from gpu_balancer.hardware.models import ModelRow

_TEN_BIT_H264 = ("blackwell",)
_SOFTWARE = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
_PLAIN_DECODES = (VideoCodec.H264, VideoCodec.VP8, VideoCodec.MPEG2, VideoCodec.MPEG4, VideoCodec.MJPEG)
_FORMATS = tuple(VideoCodec)
_ANY_WEIGHT = 100

RECORDS_ALL = RecordingAbility(available=True, browser="a browser", largest_width=32_768, largest_height=32_768)
"""Of a device whose displays nobody has counted: memory and cores bound what it records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Devices to place on, and the host that they sit in."""

    views: tuple[DeviceView, ...]
    names: Mapping[DeviceId, str]
    """What people call each device: "L4 #2"."""
    host_capacity: Mapping[Dimension, int] = field(default_factory=dict)
    """In the dimensions' units; an absent dimension is not limited."""


def gpu_view(
    device_id: str,
    model: str,
    row: ModelRow,
    *,
    override: CapacityOverride | None = None,
    memory_mib: int | None = None,
    video_clock_mhz: int | None = None,
) -> DeviceView:
    """Makes a GPU of the tables; `with_weights` gives it its weight.

    Args:
        device_id: Its identifier.
        model: Its name.
        row: What is published about it.
        override: What the operator says it carries. None: nothing.
        memory_mib: Of the card. None: not limited.
        video_clock_mhz: Of the card at most. None: that of the table's figures.
    """
    identity = DeviceIdentity(
        id=DeviceId(device_id),
        kind=DeviceKind.NVIDIA,
        model=model,
        architecture=row.architecture,
        memory_total_mib=memory_mib,
        encoder_engines=row.encoder_engines,
        decoder_engines=row.decoder_engines,
        video_clock_mhz=video_clock_mhz,
        table_model=row.model,
    )
    return _view(identity, capabilities_of(row), override)


def cpu_view(device_id: str, cores: Sequence[int], *, override: CapacityOverride | None = None) -> DeviceView:
    """Makes a device of processor cores; `with_weights` gives it its weight."""
    identity = DeviceIdentity(id=DeviceId(device_id), kind=DeviceKind.CPU, model="CPU", cores=tuple(cores))
    return _view(identity, _software(), override)


def _view(
    identity: DeviceIdentity, capabilities: tuple[Capability, ...], override: CapacityOverride | None
) -> DeviceView:
    return DeviceView(
        identity=identity,
        state=DeviceState.READY,
        state_message="",
        weight=_ANY_WEIGHT,
        capabilities=capabilities,
        capacity=capacity_of(identity, capabilities, override),
        recording=RECORDS_ALL,
    )


def alike(view: DeviceView, device_id: str) -> DeviceView:
    """Makes another device of the same sort, without finding its capacity again."""
    return replace(view, identity=replace(view.identity, id=DeviceId(device_id)))


def with_weights(views: Sequence[DeviceView], told: Mapping[DeviceId, int]) -> tuple[DeviceView, ...]:
    """Gives devices their weights: those told, the others as the daemon would find them.

    Args:
        views: All devices together.
        told: Weights by device.
    """
    weights = {**default_weights({view.id: view.capacity for view in views}), **told}
    return tuple(replace(view, weight=weights[view.id]) for view in views)


def host_of(views: Iterable[DeviceView], core_count: int | None) -> Mapping[Dimension, int]:
    """Tells what the host has.

    Args:
        views: Its devices.
        core_count: Its cores. None: not told, so that those of its CPU devices are all that is known of.
    """
    known = sum(len(view.identity.cores) for view in views) if core_count is None else core_count
    return capacity_of_host(known) if known else {}


def fleet_of_models(models: Sequence[str], *, memory_mib: Mapping[str, int] | None = None) -> Fleet:
    """Makes a fleet of GPUs by the names of their models, with the weights that the daemon would give them.

    Raises:
        KeyError: One of them is in no table.
    """
    first: dict[str, DeviceView] = {}
    views: list[DeviceView] = []
    for number, model in enumerate(models):
        row = model_row(model)
        if row is None:
            raise KeyError(model)
        if model not in first:
            first[model] = gpu_view("gpu", model, row, memory_mib=(memory_mib or {}).get(model))
        views.append(alike(first[model], f"gpu-{number}"))
    names = {view.id: f"{plain_name(view.identity.model)} ({view.id})" for view in views}
    return Fleet(views=with_weights(views, {}), names=names)


def plain_name(model: str) -> str:
    """Gives a model's name without its brand: "L4", "RTX 4090"."""
    for brand in ("NVIDIA ", "Tesla ", "GeForce "):
        model = model.removeprefix(brand)
    return model


def capabilities_of(row: ModelRow) -> tuple[Capability, ...]:
    """Tells what a probe is taken to find on a model."""
    generation = (row.encoder_generation or row.decoder_generation or "").lower()
    encodes = {
        (VideoCodec.H264, 8): row.h264_encode,
        (VideoCodec.H264, 10): row.h264_encode and generation in _TEN_BIT_H264,
        (VideoCodec.HEVC, 8): row.hevc_encode,
        (VideoCodec.HEVC, 10): row.hevc_10bit_encode,
        (VideoCodec.AV1, 8): row.av1_encode,
        (VideoCodec.AV1, 10): row.av1_encode,
    }
    late = generation not in ("maxwell",)
    decodes = {
        **{(codec, 8): True for codec in _PLAIN_DECODES},
        (VideoCodec.HEVC, 8): late,
        (VideoCodec.HEVC, 10): late,
        (VideoCodec.VP9, 8): late,
        (VideoCodec.VP9, 10): late,
        (VideoCodec.AV1, 8): row.av1_decode,
        (VideoCodec.AV1, 10): row.av1_decode,
    }
    hardware = [
        _capability(codec, direction, depth, works=bool(works), hardware=True)
        for direction, found in ((Direction.ENCODE, encodes), (Direction.DECODE, decodes))
        for (codec, depth), works in found.items()
    ]
    return (*hardware, *_software())


def _software() -> tuple[Capability, ...]:
    encodes = [
        _capability(codec, Direction.ENCODE, depth, works=True, hardware=False)
        for codec in _SOFTWARE
        for depth in (8, 10)
    ]
    decodes = [
        _capability(codec, Direction.DECODE, depth, works=True, hardware=False)
        for codec in _FORMATS
        for depth in (8, 10)
    ]
    return (*encodes, *decodes)


def _capability(codec: VideoCodec, direction: Direction, bit_depth: int, *, works: bool, hardware: bool) -> Capability:
    return Capability(
        codec=codec,
        direction=direction,
        bit_depth=bit_depth,
        works=works,
        hardware=hardware,
        implementation=f"{codec.value}_{'nv' if hardware else 'sw'}",
    )


# ----------------------------------------------------------------------------------------------------------- the pool


def pooled(fleet: Fleet) -> Fleet:
    """Makes one device of all GPUs' capacity, and one of all CPU devices' where there are some.

    It is what no placement can beat: nothing is ever split up over devices, so nothing ever fails to fit into a rest.
    All engines together are counted as one that is as fast as they are together, format by format.
    """
    views: list[DeviceView] = []
    for kind, name in ((DeviceKind.NVIDIA, "pool"), (DeviceKind.CPU, "pool-cpu")):
        members = [view for view in fleet.views if view.identity.kind is kind and view.weight > 0]
        if members:
            views.append(_pool(members, name))
    return Fleet(views=tuple(views), names={view.id: view.id for view in views}, host_capacity=fleet.host_capacity)


def _pool(members: Sequence[DeviceView], name: str) -> DeviceView:
    kind = members[0].identity.kind
    cores = tuple(range(sum(len(view.identity.cores) for view in members)))
    found: dict[tuple[VideoCodec, Direction, int, bool], bool] = {}
    for view in members:
        for one in view.capabilities:
            key = (one.codec, one.direction, one.bit_depth, one.hardware)
            found[key] = found.get(key, False) or one.works
    capabilities = tuple(
        _capability(codec, direction, depth, works=works, hardware=hardware)
        for (codec, direction, depth, hardware), works in found.items()
    )
    return DeviceView(
        identity=DeviceIdentity(id=DeviceId(name), kind=kind, model="pool", cores=cores),
        state=DeviceState.READY,
        state_message="",
        weight=100,
        capabilities=capabilities,
        capacity=_pool_of_gpus(members) if kind is DeviceKind.NVIDIA else _pool_of_cores(members),
        recording=RECORDS_ALL,
    )


def _pool_of_gpus(members: Sequence[DeviceView]) -> DeviceCapacity:
    capacities = [view.capacity for view in members]
    limits = _summed_limits(capacities)
    for dimension in (Dimension.DECODE, Dimension.ENCODE):
        limits[dimension] = ENGINE if limits.get(dimension) else 0
    decode_rates = {
        codec: max(1, sum(_engine_pixels(view, Dimension.DECODE, codec) for view in members)) for codec in VideoCodec
    }
    encode_rates = {
        (codec, speed.value): max(1, sum(_engine_pixels(view, Dimension.ENCODE, codec, speed) for view in members))
        for codec in _SOFTWARE
        for speed in EncodingSpeed
    }
    return DeviceCapacity(
        limits=limits,
        sources={},
        decode_rates=decode_rates,
        encode_rates=encode_rates,
        scale_rate=sum(capacity.scale_rate for capacity in capacities),
    )


def _pool_of_cores(members: Sequence[DeviceView]) -> DeviceCapacity:
    """Cores are taken for alike: the rates are the first device's, unless somebody told them apart."""
    first = members[0].capacity
    return replace(first, limits=_summed_limits([view.capacity for view in members]), sources={})


def _summed_limits(capacities: Sequence[DeviceCapacity]) -> dict[Dimension, int]:
    """Sums limits up. Where one device is not limited, all together are not."""
    return {
        dimension: sum(capacity.limits[dimension] for capacity in capacities)
        for dimension in Dimension
        if all(dimension in capacity.limits for capacity in capacities)
    }


def _engine_pixels(
    view: DeviceView, dimension: Dimension, codec: VideoCodec, speed: EncodingSpeed | None = None
) -> int:
    """Gives pixels per second of all engines of a device together, 0 where they do not do the format."""
    direction = Direction.DECODE if speed is None else Direction.ENCODE
    if not any(
        one.works and one.hardware and one.codec is codec and one.direction is direction for one in view.capabilities
    ):
        return 0
    rate = view.capacity.decode_rates[codec] if speed is None else view.capacity.encode_rates[codec, speed.value]
    return rate * view.capacity.limits.get(dimension, 0) // ENGINE
