"""How much a device carries: from the settings, else the published tables, else defaults that are rather too low.

A probe says what a device can do, not how fast; so it corrects the number of engines only where it contradicts it: an
encoder that worked is there, and none is where every trial failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from balancer.domain import core_rates
from balancer.domain.device import (
    Capability,
    DeviceCapacity,
    DeviceIdentity,
    DeviceKind,
    Dimension,
    Direction,
    FigureSource,
)
from balancer.domain.ids import DeviceId
from balancer.domain.workload import EncodingSpeed, VideoCodec
from gpu_balancer.hardware import engine_frames_per_second, row_named
from gpu_balancer.hardware.engine_speeds import REFERENCE_PIXELS, Engine

ENGINE = 1_000_000
"""One engine that is kept wholly busy, in the unit of Dimension.DECODE and Dimension.ENCODE."""

GPU_SCALE_RATE = 2_000_000_000
"""Output pixels per second of a GPU. Nothing is published; scaling is bound by memory, and at 15 bytes moved per output
pixel (a 3:1 reduction of NV12 reads 13.5 and writes 1.5) this is 30 GB/s, a third of the slowest supported card's."""

RESERVED_MEMORY_MIB = 512
"""What is left to the driver and to others on a GPU."""

_SLOWEST_GENERATION = "maxwell"
_ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
_REFERENCE_SPEED = EncodingSpeed.FAST.value
_BEST_WEIGHT = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CapacityOverride:
    """What the operator says a device can do. None: nothing said."""

    decode_pixels_per_second: int | None = None
    """8-bit H.264, all engines or cores together. Other formats keep their proportion to it."""
    scale_pixels_per_second: int | None = None
    """Output pixels, the whole device."""
    encode_pixels_per_second: int | None = None
    """8-bit H.264 at speed "fast", all engines or cores together. Other formats and speeds keep their proportion."""
    encoder_sessions: int | None = None
    """Hardware encoder sessions open at once."""
    memory_mib: int | None = None
    """Memory that sessions may book."""


_NO_OVERRIDE = CapacityOverride()


def capacity_of(
    identity: DeviceIdentity, capabilities: tuple[Capability, ...], override: CapacityOverride | None
) -> DeviceCapacity:
    """Tells how much a device carries.

    Args:
        identity: What it is.
        capabilities: What it was seen to do. Empty: not probed yet.
        override: What the operator says, which wins. None: nothing.

    Returns:
        Its limits, where each is from, and its rates. Formulae and sources: docs/placement.md.
    """
    if identity.kind is DeviceKind.CPU:
        return _cpu_capacity(identity, override or _NO_OVERRIDE)
    return _gpu_capacity(identity, capabilities, override or _NO_OVERRIDE)


def capacity_of_host(core_count: int) -> Mapping[Dimension, int]:
    """Tells how much a host carries beside its devices.

    Args:
        core_count: Cores that its processes may use.
    """
    return {Dimension.CORES: core_count * core_rates.CORE}


def shares_session_cap(identity: DeviceIdentity) -> bool:
    """Whether the driver counts a device's encoder sessions together with those of the host's other such devices."""
    row = row_named(identity.table_model) if identity.table_model else None
    return row.geforce_session_cap if row is not None else "geforce" in identity.model.lower()


def default_weights(capacities: Mapping[DeviceId, DeviceCapacity]) -> dict[DeviceId, int]:
    """Gives devices weights in proportion to what they encode, or decode where none encodes.

    Args:
        capacities: Of all devices together: weights are relative.

    Returns:
        100 for the best one, at least 1 for any: only an operator keeps a device from all sessions.
    """
    speeds = {device_id: _encode_speed(capacity) for device_id, capacity in capacities.items()}
    if not any(speeds.values()):
        speeds = {device_id: _decode_speed(capacity) for device_id, capacity in capacities.items()}
    best = max(speeds.values(), default=0)
    if not best:
        return dict.fromkeys(capacities, _BEST_WEIGHT)
    return {device_id: max(1, (2 * _BEST_WEIGHT * speed + best) // (2 * best)) for device_id, speed in speeds.items()}


def _encode_speed(capacity: DeviceCapacity) -> int:
    """Gives pixels of H.264 encoded per second by the whole device."""
    engines = capacity.limits.get(Dimension.ENCODE, capacity.limits.get(Dimension.CORES, 0))
    return engines * capacity.encode_rates[VideoCodec.H264, _REFERENCE_SPEED]


def _decode_speed(capacity: DeviceCapacity) -> int:
    engines = capacity.limits.get(Dimension.DECODE, capacity.limits.get(Dimension.CORES, 0))
    return engines * capacity.decode_rates[VideoCodec.H264]


# ------------------------------------------------------------------------------------------------------------- CPU


def _cpu_capacity(identity: DeviceIdentity, override: CapacityOverride) -> DeviceCapacity:
    cores = max(1, len(identity.cores))
    limits = {Dimension.CORES: cores * core_rates.CORE}
    told = (override.decode_pixels_per_second, override.scale_pixels_per_second, override.encode_pixels_per_second)
    sources = {Dimension.CORES: FigureSource.DEFAULT if told == (None, None, None) else FigureSource.SETTINGS}
    if override.memory_mib is not None:
        limits[Dimension.MEMORY] = override.memory_mib
        sources[Dimension.MEMORY] = FigureSource.SETTINGS
    scale = override.scale_pixels_per_second
    capacity = DeviceCapacity(
        limits=limits,
        sources=sources,
        decode_rates=core_rates.DECODE_RATES,
        encode_rates=core_rates.ENCODE_RATES,
        scale_rate=core_rates.SCALE_RATE if scale is None else max(1, scale // cores),
    )
    return _with_rates(capacity, override, decode_engines=cores, encode_engines=cores)


# ------------------------------------------------------------------------------------------------------------- GPU


def _gpu_capacity(
    identity: DeviceIdentity, capabilities: tuple[Capability, ...], override: CapacityOverride
) -> DeviceCapacity:
    row = row_named(identity.table_model) if identity.table_model else None
    decoders, decoders_source = _engines(
        row.decoder_engines if row and identity.decoder_engines is None else identity.decoder_engines,
        _tried(capabilities, Direction.DECODE),
        override.decode_pixels_per_second,
    )
    encoders, encoders_source = _engines(
        row.encoder_engines if row and identity.encoder_engines is None else identity.encoder_engines,
        _tried(capabilities, Direction.ENCODE),
        override.encode_pixels_per_second,
    )
    limits = {
        Dimension.DECODE: decoders * ENGINE,
        Dimension.SCALE: GPU_SCALE_RATE,
        Dimension.ENCODE: encoders * ENGINE,
    }
    sources = {
        Dimension.DECODE: decoders_source,
        Dimension.SCALE: FigureSource.DEFAULT,
        Dimension.ENCODE: encoders_source,
    }
    if identity.memory_total_mib is not None:
        limits[Dimension.MEMORY] = max(0, identity.memory_total_mib - RESERVED_MEMORY_MIB)
        sources[Dimension.MEMORY] = FigureSource.PROBE
    for dimension, figure in (
        (Dimension.SCALE, override.scale_pixels_per_second),
        (Dimension.MEMORY, override.memory_mib),
        (Dimension.ENCODER_SESSIONS, override.encoder_sessions),
    ):
        if figure is not None:
            limits[dimension] = figure
            sources[dimension] = FigureSource.SETTINGS
    capacity = DeviceCapacity(
        limits=limits,
        sources=sources,
        decode_rates=_decode_rates((row and row.decoder_generation) or identity.architecture, identity),
        encode_rates=_encode_rates((row and row.encoder_generation) or identity.architecture, identity),
        scale_rate=limits[Dimension.SCALE],
    )
    return _with_rates(capacity, override, decode_engines=decoders, encode_engines=encoders)


def _tried(capabilities: Iterable[Capability], direction: Direction) -> bool | None:
    """Tells whether the device's own engines did anything in a direction. None: it was not tried."""
    outcomes = [one.works for one in capabilities if one.hardware and one.direction is direction]
    return any(outcomes) if outcomes else None


def _engines(known: int | None, works: bool | None, told: int | None) -> tuple[int, FigureSource]:
    """Counts engines: as published, but none where nothing worked and at least one where something did."""
    if told is not None:
        return max(1, known or 1), FigureSource.SETTINGS
    if works is False:
        return 0, FigureSource.PROBE
    if known is None:
        return 1, FigureSource.DEFAULT
    if works and not known:
        return 1, FigureSource.PROBE
    return known, FigureSource.TABLE


def _decode_rates(generation: str | None, identity: DeviceIdentity) -> dict[VideoCodec, int]:
    rates = {}
    for codec in (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.VP9, VideoCodec.AV1):
        # A session's bit depth is not known here: the slower of 8 and 10 bits holds for both.
        figures = [_engine_rate("nvdec", name, None, None, generation, identity) for name in (codec, f"{codec}_10")]
        if rate := min((figure for figure in figures if figure), default=0):
            rates[codec] = rate
    slowest = min(rates.values())
    return {codec: rates.get(codec, slowest) for codec in VideoCodec}


def _encode_rates(generation: str | None, identity: DeviceIdentity) -> dict[tuple[VideoCodec, str], int]:
    rates = {}
    for speed in EncodingSpeed:
        for codec in _ENCODED:
            # Pipelines choose the tuning by what the client wants: the slower one holds for both.
            figures = [_engine_rate("nvenc", codec, speed, tuning, generation, identity) for tuning in ("hq", "ll")]
            if rate := min((figure for figure in figures if figure), default=0):
                rates[codec, speed.value] = rate
        slowest = min(rates[codec, speed.value] for codec in _ENCODED if (codec, speed.value) in rates)
        for codec in _ENCODED:
            rates.setdefault((codec, speed.value), slowest)
    return rates


def _engine_rate(
    engine: Engine, codec: str, preset: str | None, tuning: str | None, generation: str | None, identity: DeviceIdentity
) -> int | None:
    """Gives pixels per second of one engine at the device's own clock. None: there is no figure."""
    known = generation is not None and engine_frames_per_second(engine, "h264", "p3", "hq", generation) is not None
    figure = engine_frames_per_second(
        engine, codec, preset, tuning, generation if known and generation else _SLOWEST_GENERATION
    )
    if figure is None:
        return None
    frames_per_second, reference_mhz = figure
    rate = frames_per_second * REFERENCE_PIXELS
    if known and reference_mhz and identity.video_clock_mhz:
        rate = rate * identity.video_clock_mhz // reference_mhz
    return rate


# ------------------------------------------------------------------------------------------------------- overrides


def _with_rates(
    capacity: DeviceCapacity, override: CapacityOverride, *, decode_engines: int, encode_engines: int
) -> DeviceCapacity:
    """Puts the operator's speeds for all engines together in place of the rates of one."""
    told_decode = override.decode_pixels_per_second
    if told_decode is not None:
        known = capacity.decode_rates[VideoCodec.H264] * decode_engines
        rates = {codec: max(1, rate * told_decode // known) for codec, rate in capacity.decode_rates.items()}
        capacity = replace(capacity, decode_rates=rates)
    told_encode = override.encode_pixels_per_second
    if told_encode is not None:
        known = capacity.encode_rates[VideoCodec.H264, _REFERENCE_SPEED] * encode_engines
        encode_rates = {key: max(1, rate * told_encode // known) for key, rate in capacity.encode_rates.items()}
        capacity = replace(capacity, encode_rates=encode_rates)
    return capacity
