"""What a session takes of one device and of its host, once it is known which does which part of the work.

On an NVIDIA device decoding is hardware where a probe saw it work and the picture fits the decoder, else the host's
cores do it; encoding is hardware, or, only if the client allows it, the host's cores. On a CPU device everything is
core time, of the device and of its host alike. Whatever is passed through costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from balancer.domain import core_rates
from balancer.domain.capacity import ENGINE
from balancer.domain.decision import Refusal
from balancer.domain.device import Abilities, DeviceKind, DeviceView, Dimension
from balancer.domain.picture_limits import decoder_takes, hardware_encoder_limit, software_encoder_limit
from balancer.domain.workload import CostFactors, DecodeTask, EncodeTask, VideoCodec, Workload

GPU_SESSION_MIB = 300
"""CUDA context and program of one ffmpeg process."""
GPU_DECODE_FRAMES = 24
"""Surfaces of a decoder with its reordering, and those under way to scalers."""
GPU_UPLOAD_FRAMES = 8
"""Surfaces of pictures that were decoded by the cores."""
GPU_ENCODE_FRAMES = 40
"""Surfaces of an encoder: scaled input, look-ahead, references, bit streams."""
CPU_SESSION_MIB = 60
CPU_DECODE_FRAMES = 24
CPU_ENCODE_FRAMES: Mapping[VideoCodec, int] = {VideoCodec.H264: 190, VideoCodec.HEVC: 170, VideoCodec.AV1: 280}
"""Frames' worth of memory that an encoder was seen to hold."""

_MIB = 1 << 20
_GPU_DIMENSIONS = (
    Dimension.DECODE,
    Dimension.SCALE,
    Dimension.ENCODE,
    Dimension.ENCODER_SESSIONS,
    Dimension.MEMORY,
)
_NOTHING: Mapping[Dimension, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a session takes."""

    cost_pixels_per_second: int
    """Factors times what the device itself does."""
    device_amounts: Mapping[Dimension, int]
    """In the dimensions' units."""
    host_amounts: Mapping[Dimension, int]
    largest_amounts: Mapping[Dimension, int]
    """Engine time of the largest single stream: one stream runs on one engine, however many there are."""


def nominal_cost(workload: Workload, factors: CostFactors) -> int:
    """Gives the cost of a session all of whose work is done on its device, in pixels per second."""
    return (
        factors.decode * workload.decode_pixels_per_second
        + factors.scale * workload.scale_pixels_per_second
        + factors.encode * workload.encode_pixels_per_second
    )


def demand_on(workload: Workload, view: DeviceView, factors: CostFactors) -> Demand | Refusal:
    """Tells what a session would take of a device.

    Args:
        workload: The session.
        view: The device.
        factors: How much a pixel of each kind of work weighs.

    Returns:
        What it takes, or why the device cannot do it however empty it is (CAPABILITY, RESOLUTION).
    """
    if view.identity.kind is DeviceKind.CPU:
        return _cpu_demand(workload, view, factors)
    return _gpu_demand(workload, view, factors)


# ------------------------------------------------------------------------------------------------------------- CPU


def _cpu_demand(workload: Workload, view: DeviceView, factors: CostFactors) -> Demand | Refusal:
    abilities = view.abilities
    capacity = view.capacity
    refusal = _cannot_decode(workload.decode, abilities)
    core_time = _time(workload.scale_pixels_per_second, capacity.scale_rate)
    memory = 0
    if workload.decode is not None:
        core_time += _time(workload.decode.pixels_per_second, capacity.decode_rates[workload.decode.codec])
        memory += _frames_bytes(workload.decode, CPU_DECODE_FRAMES)
    for task in workload.encodes:
        refusal = refusal or _cannot_encode_in_software(task, abilities)
        core_time += _software_encode_time(task, capacity.encode_rates)
        memory += _frames_bytes(task, CPU_ENCODE_FRAMES.get(task.codec, 0))
    if refusal is not None:
        return refusal
    amounts = {Dimension.CORES: core_time} if core_time else {}
    if core_time:
        amounts[Dimension.MEMORY] = CPU_SESSION_MIB + -(-memory // _MIB)
    return Demand(
        cost_pixels_per_second=nominal_cost(workload, factors),
        device_amounts=amounts,
        host_amounts={Dimension.CORES: core_time} if core_time else {},
        largest_amounts={},
    )


# ------------------------------------------------------------------------------------------------------------- GPU


def _gpu_demand(workload: Workload, view: DeviceView, factors: CostFactors) -> Demand | Refusal:
    """Shares the work out between a GPU and the cores of its host.

    It is asked for every device of every decision, so it goes over the renditions once and calls little.
    """
    abilities, rates = view.abilities, view.capacity.encode_rates
    encode_time, longest_encode_time, encode_pixels, hardware_count, surfaces, core_time = 0, 0, 0, 0, 0, 0
    for task in workload.encodes:
        refusal = _cannot_encode_in_hardware(task, abilities)
        if refusal is None:
            pixels = task.pixels_per_second
            time = -(-pixels * ENGINE // rates[task.codec, task.speed])
            encode_time += time
            longest_encode_time = max(longest_encode_time, time)
            encode_pixels += pixels
            hardware_count += 1
            surfaces += _frames_bytes(task, GPU_ENCODE_FRAMES)
            continue
        if workload.allow_software_encode:
            refusal = _cannot_encode_in_software(task, abilities)
        if refusal is not None:
            return refusal
        core_time += _software_encode_time(task, core_rates.ENCODE_RATES)
    decode, decode_time, decode_pixels = workload.decode, 0, 0
    if decode is not None:
        if _decodes_in_hardware(decode, abilities):
            decode_pixels = decode.pixels_per_second
            decode_time = _time(decode_pixels, view.capacity.decode_rates[decode.codec])
            surfaces += _frames_bytes(decode, GPU_DECODE_FRAMES)
        else:
            if (refusal := _cannot_decode(decode, abilities)) is not None:
                return refusal
            core_time += _time(decode.pixels_per_second, core_rates.DECODE_RATES[decode.codec])
            surfaces += _frames_bytes(decode, GPU_UPLOAD_FRAMES)
    amounts: dict[Dimension, int] = {}
    scale_pixels = workload.scale_pixels_per_second
    if not decode_time and not hardware_count:
        # Frames that never reach the GPU are scaled where they are.
        core_time += _time(scale_pixels, core_rates.SCALE_RATE)
        scale_pixels = 0
    else:
        told = (decode_time, scale_pixels, encode_time, hardware_count, GPU_SESSION_MIB - (-surfaces // _MIB))
        amounts = {dimension: amount for dimension, amount in zip(_GPU_DIMENSIONS, told, strict=True) if amount}
    return Demand(
        cost_pixels_per_second=factors.decode * decode_pixels
        + factors.scale * scale_pixels
        + factors.encode * encode_pixels,
        device_amounts=amounts,
        host_amounts={Dimension.CORES: core_time} if core_time else _NOTHING,
        largest_amounts={Dimension.DECODE: decode_time, Dimension.ENCODE: longest_encode_time},
    )


# ---------------------------------------------------------------------------------------------------------- shared


def _time(pixels_per_second: int, rate: int) -> int:
    """Gives the share of one engine or core in millionths, rounded up."""
    return -(-pixels_per_second * ENGINE // rate)


def _software_encode_time(task: EncodeTask, rates: Mapping[tuple[VideoCodec, str], int]) -> int:
    factor = core_rates.TEN_BIT_ENCODE_FACTOR if task.bit_depth > 8 else 1
    # A format that no encoder here makes was refused; the rate of another stands in until that is said.
    rate = rates.get((task.codec, task.speed)) or rates[VideoCodec.HEVC, task.speed]
    return _time(task.pixels_per_second * factor, rate)


def _frames_bytes(task: DecodeTask | EncodeTask, frames: int) -> int:
    """Gives the memory of 4:2:0 frames of a size and depth, in bytes."""
    sample_bytes = 2 if task.bit_depth > 8 else 1
    return frames * task.width * task.height * 3 * sample_bytes // 2


def _decodes_in_hardware(task: DecodeTask, abilities: Abilities) -> bool:
    return (task.codec, task.bit_depth) in abilities.hardware_decodes and decoder_takes(task)


def _cannot_encode_in_hardware(task: EncodeTask, abilities: Abilities) -> Refusal | None:
    if (task.codec, task.bit_depth) not in abilities.hardware_encodes:
        return _refusal("CAPABILITY", f"It was not seen to encode {_format(task)} in hardware.")
    return _too_large(hardware_encoder_limit(task), task)


def _cannot_encode_in_software(task: EncodeTask, abilities: Abilities) -> Refusal | None:
    if (task.codec, task.bit_depth) not in abilities.software_encodes:
        return _refusal("CAPABILITY", f"No encoder for {_format(task)} was seen to work on its host's cores.")
    return _too_large(software_encoder_limit(task), task)


def _cannot_decode(task: DecodeTask | None, abilities: Abilities) -> Refusal | None:
    """Refuses only what was tried in vain: formats without a probe, OTHER above all, are left to ffmpeg."""
    if task is None or (task.codec, task.bit_depth) not in abilities.failed_decodes:
        return None
    return _refusal("CAPABILITY", f"Its decoder for {_format(task)} was seen to fail.")


def _too_large(limit: str | None, task: EncodeTask) -> Refusal | None:
    if limit is None:
        return None
    return _refusal("RESOLUTION", f"It cannot encode {_format(task)} at {task.width}x{task.height}: {limit}.")


def _refusal(rule: str, message: str) -> Refusal:
    return Refusal(rule=rule, message=message, permanent=True)


def _format(task: DecodeTask | EncodeTask) -> str:
    return f"{task.bit_depth}-bit {task.codec.value}"
