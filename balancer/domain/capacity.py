"""How much a device carries: from the settings, else a calibration, else the published tables, else low defaults.

A probe says what a device can do, not how fast; so it corrects the number of engines only where it contradicts it: an
encoder that worked is there, and none is where every trial failed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from balancer.domain import capacity_sentences as sentences
from balancer.domain import core_rates
from balancer.domain.calibration import Calibration, calibrated_decode_rates, calibrated_encode_rates
from balancer.domain.device import (
    Capability,
    DeviceCapacity,
    DeviceIdentity,
    DeviceKind,
    Dimension,
    Direction,
    FigureSource,
    RecordingAbility,
)
from balancer.domain.engine_rates import engine_decode_rates, engine_encode_rates
from balancer.domain.ids import DeviceId
from balancer.domain.workload import EncodingSpeed, VideoCodec
from gpu_balancer.hardware import row_named

ENGINE = 1_000_000
"""One engine that is kept wholly busy, in the unit of Dimension.DECODE and Dimension.ENCODE."""

GPU_SCALE_RATE = 2_000_000_000
"""Output pixels per second of a GPU. Nothing is published; scaling is bound by memory, and at 15 bytes moved per output
pixel (a 3:1 reduction of NV12 reads 13.5 and writes 1.5) this is 30 GB/s, a third of the slowest supported card's."""

RESERVED_MEMORY_MIB = 512
"""What is left to the driver and to others on a GPU."""

_REFERENCE = (VideoCodec.H264, EncodingSpeed.FAST.value)
_BEST_WEIGHT = 100
_CALIBRATED = frozenset({Dimension.DECODE, Dimension.SCALE, Dimension.ENCODE, Dimension.CORES})
_BEST_FIRST = (FigureSource.SETTINGS, FigureSource.CALIBRATION, FigureSource.DEFAULT)


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
    identity: DeviceIdentity,
    capabilities: tuple[Capability, ...],
    override: CapacityOverride | None,
    calibration: Calibration | None = None,
    *,
    ignored: str = "",
) -> DeviceCapacity:
    """Tells how much a device carries.

    Args:
        identity: What it is.
        capabilities: What it was seen to do. Empty: not probed yet.
        override: What the operator says, which wins. None: nothing.
        calibration: What real runs showed, which comes next. None: nothing.
        ignored: Why a calibration that there is does not count, as the part of a sentence. Empty: there is none.

    Returns:
        Its limits and rates, and where each is from. Formulae and sources: docs/placement.md.
    """
    told = override or _NO_OVERRIDE
    if identity.kind is DeviceKind.CPU:
        capacity = _cpu_capacity(identity, told, calibration)
    else:
        capacity = _gpu_capacity(identity, capabilities, told, calibration)
    if not ignored:
        return capacity
    note = f" There is a calibration, which does not count: {ignored}."
    explanations = {
        dimension: text + note if dimension in _CALIBRATED else text
        for dimension, text in capacity.explanations.items()
    }
    return replace(capacity, explanations=explanations)


def with_displays(capacity: DeviceCapacity, ability: RecordingAbility | None) -> DeviceCapacity:
    """Adds the displays that a device's agent offers. None: it has not told what it records."""
    if ability is None or not ability.available:
        return capacity
    return _with_limit(capacity, Dimension.DISPLAYS, ability.display_count, FigureSource.PROBE, sentences.DISPLAYS)


def capacity_of_host(
    core_count: int, *, memory_mib: int | None = None, upload_bits_per_second: int | None = None
) -> Mapping[Dimension, int]:
    """Tells how much a host carries beside its devices.

    Args:
        core_count: Cores that its processes may use.
        memory_mib: Memory that recordings may book. None: not limited.
        upload_bits_per_second: What pushes may take. None: not limited.
    """
    told = {
        Dimension.CORES: core_count * core_rates.CORE,
        Dimension.MEMORY: memory_mib,
        Dimension.UPLOAD: upload_bits_per_second,
    }
    return {dimension: amount for dimension, amount in told.items() if amount is not None}


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
    return engines * capacity.encode_rates[_REFERENCE]


def _decode_speed(capacity: DeviceCapacity) -> int:
    engines = capacity.limits.get(Dimension.DECODE, capacity.limits.get(Dimension.CORES, 0))
    return engines * capacity.decode_rates[VideoCodec.H264]


# ------------------------------------------------------------------------------------------------------------- CPU


def _cpu_capacity(
    identity: DeviceIdentity, override: CapacityOverride, calibration: Calibration | None
) -> DeviceCapacity:
    cores = max(1, len(identity.cores))
    capacity = DeviceCapacity(
        limits={Dimension.CORES: cores * core_rates.CORE},
        sources={Dimension.CORES: FigureSource.DEFAULT},
        decode_rates=core_rates.DECODE_RATES,
        encode_rates=core_rates.ENCODE_RATES,
        scale_rate=core_rates.SCALE_RATE,
        decode_sources=dict.fromkeys(core_rates.DECODE_RATES, FigureSource.DEFAULT),
        encode_sources=dict.fromkeys(core_rates.ENCODE_RATES, FigureSource.DEFAULT),
    )
    capacity = _calibrated(capacity, calibration, decode_parts=cores, encode_parts=cores)
    if calibration is not None and (scaled := calibration.scaled()):
        rate = max(1, scaled // cores)
        capacity = replace(capacity, scale_rate=rate, scale_source=FigureSource.CALIBRATION)
    capacity = _with_rates(capacity, override, decode_engines=cores, encode_engines=cores)
    if override.scale_pixels_per_second is not None:
        rate = max(1, override.scale_pixels_per_second // cores)
        capacity = replace(capacity, scale_rate=rate, scale_source=FigureSource.SETTINGS)
    speeds = (
        capacity.decode_sources[VideoCodec.H264],
        capacity.encode_sources[_REFERENCE],
        capacity.scale_source,
    )
    # All speeds are of core time: the limit is from the best source that any of them is from.
    source = next(one for one in _BEST_FIRST if one in speeds)
    explanation = sentences.of_cores(cores, capacity, calibration)
    capacity = replace(capacity, sources={Dimension.CORES: source}, explanations={Dimension.CORES: explanation})
    return _with_limit(capacity, Dimension.MEMORY, override.memory_mib)


# ------------------------------------------------------------------------------------------------------------- GPU


def _gpu_capacity(
    identity: DeviceIdentity,
    capabilities: tuple[Capability, ...],
    override: CapacityOverride,
    calibration: Calibration | None,
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
    decode = engine_decode_rates((row and row.decoder_generation) or identity.architecture, identity)
    encode = engine_encode_rates((row and row.encoder_generation) or identity.architecture, identity)
    capacity = DeviceCapacity(
        limits={
            Dimension.DECODE: decoders * ENGINE,
            Dimension.SCALE: GPU_SCALE_RATE,
            Dimension.ENCODE: encoders * ENGINE,
        },
        sources={
            Dimension.DECODE: decoders_source,
            Dimension.SCALE: FigureSource.DEFAULT,
            Dimension.ENCODE: encoders_source,
        },
        decode_rates=decode.rates,
        encode_rates=encode.rates,
        scale_rate=GPU_SCALE_RATE,
        decode_sources=decode.sources,
        encode_sources=encode.sources,
        explanations={Dimension.SCALE: sentences.DEFAULT_SCALE},
    )
    capacity = _calibrated(capacity, calibration, decode_parts=decoders, encode_parts=encoders)
    capacity = _with_rates(capacity, override, decode_engines=decoders, encode_engines=encoders)
    engines = {
        Dimension.DECODE: sentences.Engines(
            count=decoders,
            count_source=decoders_source,
            row=row.model if row else None,
            published=decode.reference,
            told_pixels_per_second=override.decode_pixels_per_second,
        ),
        Dimension.ENCODE: sentences.Engines(
            count=encoders,
            count_source=encoders_source,
            row=row.model if row else None,
            published=encode.reference,
            told_pixels_per_second=override.encode_pixels_per_second,
        ),
    }
    told = {dimension: sentences.of_engines(dimension, one, calibration) for dimension, one in engines.items()}
    capacity = replace(capacity, explanations={**capacity.explanations, **told})
    return _with_gpu_limits(capacity, identity, override, calibration)


def _with_gpu_limits(
    capacity: DeviceCapacity,
    identity: DeviceIdentity,
    override: CapacityOverride,
    calibration: Calibration | None,
) -> DeviceCapacity:
    """Adds what is not engine time: memory, scaling and encoder sessions."""
    if identity.memory_total_mib is not None:
        memory = max(0, identity.memory_total_mib - RESERVED_MEMORY_MIB)
        told = sentences.of_memory(identity.memory_total_mib, RESERVED_MEMORY_MIB)
        capacity = _with_limit(capacity, Dimension.MEMORY, memory, FigureSource.PROBE, told)
    if calibration is not None and (scaled := calibration.scaled()):
        told = sentences.of_calibrated_scale(scaled, calibration)
        capacity = _with_limit(capacity, Dimension.SCALE, scaled, FigureSource.CALIBRATION, told)
    capacity = _with_limit(capacity, Dimension.SCALE, override.scale_pixels_per_second)
    capacity = _with_limit(capacity, Dimension.MEMORY, override.memory_mib)
    capacity = _with_limit(capacity, Dimension.ENCODER_SESSIONS, override.encoder_sessions)
    scale = Dimension.SCALE
    return replace(capacity, scale_rate=capacity.limits[scale], scale_source=capacity.sources[scale])


def _tried(capabilities: Iterable[Capability], direction: Direction) -> bool | None:
    """Tells whether the device's own engines did anything in a direction. None: it was not tried."""
    outcomes = [one.works for one in capabilities if one.hardware and one.direction is direction]
    return any(outcomes) if outcomes else None


def _engines(known: int | None, works: bool | None, told: int | None) -> tuple[int, FigureSource]:
    """Counts engines: as published, but none where nothing worked and at least one where something did."""
    if told is not None:
        return max(1, known or 1), FigureSource.SETTINGS
    if works is False:
        return 0, FigureSource.PROBE if known != 0 else FigureSource.TABLE
    if known is None:
        return 1, FigureSource.DEFAULT
    if works and not known:
        return 1, FigureSource.PROBE
    return known, FigureSource.TABLE


# --------------------------------------------------------------------------------------- calibrations and overrides


def _calibrated(
    capacity: DeviceCapacity, calibration: Calibration | None, *, decode_parts: int, encode_parts: int
) -> DeviceCapacity:
    """Puts what was measured in place of what is published. Engines that do not work stay without."""
    if calibration is None:
        return capacity
    sources = dict(capacity.sources)
    decoded, encoded = calibration.decoded(), calibration.encoded()
    if decoded and decode_parts:
        capacity = replace(
            capacity,
            decode_rates=calibrated_decode_rates(capacity.decode_rates, decoded, decode_parts),
            decode_sources=dict.fromkeys(capacity.decode_rates, FigureSource.CALIBRATION),
        )
        if Dimension.DECODE in sources and sources[Dimension.DECODE] is not FigureSource.SETTINGS:
            sources[Dimension.DECODE] = FigureSource.CALIBRATION
    if encoded and encode_parts:
        capacity = replace(
            capacity,
            encode_rates=calibrated_encode_rates(capacity.encode_rates, encoded, encode_parts),
            encode_sources=dict.fromkeys(capacity.encode_rates, FigureSource.CALIBRATION),
        )
        if Dimension.ENCODE in sources and sources[Dimension.ENCODE] is not FigureSource.SETTINGS:
            sources[Dimension.ENCODE] = FigureSource.CALIBRATION
    return replace(capacity, sources=sources)


def _with_rates(
    capacity: DeviceCapacity, override: CapacityOverride, *, decode_engines: int, encode_engines: int
) -> DeviceCapacity:
    """Puts the operator's speeds for all engines together in place of the rates of one."""
    told_decode = override.decode_pixels_per_second
    if told_decode is not None:
        known = capacity.decode_rates[VideoCodec.H264] * decode_engines
        rates = {codec: max(1, rate * told_decode // known) for codec, rate in capacity.decode_rates.items()}
        capacity = replace(capacity, decode_rates=rates, decode_sources=dict.fromkeys(rates, FigureSource.SETTINGS))
    told_encode = override.encode_pixels_per_second
    if told_encode is not None:
        known = capacity.encode_rates[_REFERENCE] * encode_engines
        encode_rates = {key: max(1, rate * told_encode // known) for key, rate in capacity.encode_rates.items()}
        encode_sources = dict.fromkeys(encode_rates, FigureSource.SETTINGS)
        capacity = replace(capacity, encode_rates=encode_rates, encode_sources=encode_sources)
    return capacity


def _with_limit(
    capacity: DeviceCapacity,
    dimension: Dimension,
    limit: int | None,
    source: FigureSource = FigureSource.SETTINGS,
    explanation: str = sentences.SETTINGS_LIMIT,
) -> DeviceCapacity:
    """Puts a limit in place of what was there. None: leaves it."""
    if limit is None:
        return capacity
    return replace(
        capacity,
        limits={**capacity.limits, dimension: limit},
        sources={**capacity.sources, dimension: source},
        explanations={**capacity.explanations, dimension: explanation},
    )
