"""What a session takes of one device and of its host, once it is known which does which part of the work.

On an NVIDIA device decoding is hardware where a probe saw it work on such pictures, else the host's cores do it;
encoding is hardware, or, only if the client allows it, the host's cores. On a CPU device everything is core time, of
the device and of its host alike. Whatever is passed through costs nothing.

A session runs in one ffmpeg: the one with which least is left to the host's cores. Agents choose by the same rule, so
that nothing is placed where it could not start and nothing runs where it was not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from balancer.domain import core_rates
from balancer.domain.capacity import ENGINE, shares_session_cap
from balancer.domain.capture_demand import cannot_capture, with_capture, with_upload
from balancer.domain.decision import Demand, Refusal
from balancer.domain.device import BuildAbilities, DeviceIdentity, DeviceKind, DeviceView, Dimension
from balancer.domain.workload import CostFactors, DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from gpu_balancer.pictures.limits import hardware_decoder_limit, hardware_encoder_limit, software_encoder_limit

GPU_SESSION_MIB = 300
"""CUDA context and program of one ffmpeg process."""
COMPUTE_GPU_SESSION_MIB = 560
"""The same on a chip made for computing, whose many multiprocessors make its contexts large; seen on an H100."""
GPU_DECODE_FRAMES = 28
"""Surfaces of a decoder with its reordering, and those under way to scalers; seen on an H100 at up to 7680x4320."""
GPU_UPLOAD_FRAMES = 8
"""Surfaces of pictures that were decoded by the cores."""
GPU_ENCODE_FRAMES = 40
"""Surfaces of an encoder: scaled input, look-ahead, references, bit streams."""
CPU_SESSION_MIB = 60
CPU_DECODE_FRAMES = 24
CPU_ENCODE_FRAMES: Mapping[VideoCodec, int] = {VideoCodec.H264: 190, VideoCodec.HEVC: 170, VideoCodec.AV1: 280}
"""Frames' worth of memory that an encoder was seen to hold."""

_MIB = 1 << 20
_USUAL_ENCODE = (VideoCodec.H264, EncodingSpeed.FAST.value)
_GPU_DIMENSIONS = (
    Dimension.DECODE,
    Dimension.SCALE,
    Dimension.ENCODE,
    Dimension.ENCODER_SESSIONS,
    Dimension.MEMORY,
)
_NOTHING: Mapping[Dimension, int] = {}
_SOFTWARE_CURE = "; the cores of its host would, if the session allowed it (allow_software_encode)"

__all__ = ["Demand", "demand_on", "nominal_cost"]


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
    capture = workload.capture
    if capture is not None and (refusal := cannot_capture(capture, view)) is not None:
        return refusal
    if view.identity.kind is DeviceKind.CPU:
        demand = _cpu_demand(workload, view, factors)
    else:
        demand = _gpu_demand(workload, view, factors)
    if isinstance(demand, Refusal):
        return demand
    if capture is not None:
        demand = with_capture(demand, capture, workload, view, factors)
    if workload.upload_bits_per_second:
        demand = with_upload(demand, workload.upload_bits_per_second)
    return demand


# ------------------------------------------------------------------------------------------------------------- CPU


def _cpu_demand(workload: Workload, view: DeviceView, factors: CostFactors) -> Demand | Refusal:
    capacity = view.capacity
    encoding = [build for build in view.builds if _encodes_in_software(workload, build)]
    if not encoding:
        return _missing_encoder(workload, view.builds, in_hardware=False)
    core_time = _time(workload.scale_pixels_per_second, capacity.scale_rate)
    memory = decode_pixels = encode_pixels = 0
    for task in workload.encodes:
        if (limit := software_encoder_limit(task.width, task.height)) is not None:
            return _too_large(task, limit)
        core_time += _software_encode_time(task, capacity.encode_rates)
        encode_pixels += _usual_encode_pixels(task, capacity.encode_rates, core_rates.TEN_BIT_ENCODE_FACTOR)
        memory += _frames_bytes(task, CPU_ENCODE_FRAMES[task.codec])
    if (decode := workload.decode) is not None:
        refusals = [_cannot_decode(decode, build) for build in encoding]
        if all(refusals):
            return refusals[0]  # type: ignore[return-value]
        core_time += _time(decode.pixels_per_second, capacity.decode_rates[decode.codec])
        decode_pixels = _usual_decode_pixels(decode, capacity.decode_rates)
        memory += _frames_bytes(decode, CPU_DECODE_FRAMES)
    return Demand(
        cost_pixels_per_second=factors.decode * decode_pixels
        + factors.scale * workload.scale_pixels_per_second
        + factors.encode * encode_pixels,
        device_amounts={Dimension.CORES: core_time, Dimension.MEMORY: CPU_SESSION_MIB - (-memory // _MIB)}
        if core_time
        else _NOTHING,
        host_amounts={Dimension.CORES: core_time} if core_time else _NOTHING,
        largest_amounts=_NOTHING,
    )


def _encodes_in_software(workload: Workload, build: BuildAbilities) -> bool:
    return all((task.codec, task.bit_depth) in build.software_encodes for task in workload.encodes)


# ------------------------------------------------------------------------------------------------------------- GPU


class _Share(NamedTuple):
    """How a GPU and the cores of its host share the work when one ffmpeg does it."""

    left_to_cores: tuple[int, bool]
    """Renditions that the cores encode, and whether they decode; the less the better."""
    demand: Demand


_NOTHING_LEFT = (0, False)


def _gpu_demand(workload: Workload, view: DeviceView, factors: CostFactors) -> Demand | Refusal:
    best: _Share | None = None
    refusal: Refusal | None = None
    for build in view.builds:
        found = _shared(workload, view, factors, build)
        if isinstance(found, Refusal):
            refusal = refusal or found
        elif found is not None and (best is None or found.left_to_cores < best.left_to_cores):
            best = found
            if found.left_to_cores == _NOTHING_LEFT:
                break
    if best is not None:
        return best.demand
    return refusal or _missing_encoder(workload, view.builds, in_hardware=not workload.allow_software_encode)


def _shared(
    workload: Workload, view: DeviceView, factors: CostFactors, build: BuildAbilities
) -> _Share | Refusal | None:
    """Shares the work out between a GPU and the cores of its host, in one ffmpeg.

    It is asked for every device of every decision, so it goes over the renditions once and calls little.

    Returns:
        None: this ffmpeg lacks an encoder.
    """
    rates = view.capacity.encode_rates
    encode_time, longest_encode_time, encode_pixels, hardware_count, surfaces, core_time = 0, 0, 0, 0, 0, 0
    for task in workload.encodes:
        key = (task.codec, task.bit_depth)
        limit = None
        if key in build.hardware_encodes:
            limit = hardware_encoder_limit(task.codec, task.width, task.height)
            if limit is None:
                pixels = task.pixels_per_second
                time = -(-pixels * ENGINE // rates[task.codec, task.speed])
                encode_time += time
                longest_encode_time = max(longest_encode_time, time)
                encode_pixels += _usual_encode_pixels(task, rates)
                hardware_count += 1
                surfaces += _frames_bytes(task, GPU_ENCODE_FRAMES)
                continue
        if not workload.allow_software_encode or key not in build.software_encodes:
            return None if limit is None else _too_large(task, limit)
        if (limit := software_encoder_limit(task.width, task.height)) is not None:
            return _too_large(task, limit)
        core_time += _software_encode_time(task, core_rates.ENCODE_RATES)
    decode = _decode_share(workload.decode, view, build)
    if isinstance(decode, Refusal):
        return decode
    core_time += decode.core_time
    scale_pixels = workload.scale_pixels_per_second
    amounts = _NOTHING
    if decode.engine_time or hardware_count:
        memory = _program_mib(view.identity) - (-(surfaces + decode.surfaces) // _MIB)
        told = (decode.engine_time, scale_pixels, encode_time, hardware_count, memory)
        amounts = {dimension: amount for dimension, amount in zip(_GPU_DIMENSIONS, told, strict=True) if amount}
    else:
        # Frames that never reach the GPU are scaled where they are.
        core_time += _time(scale_pixels, core_rates.SCALE_RATE)
        scale_pixels = 0
    demand = Demand(
        cost_pixels_per_second=factors.decode * decode.pixels
        + factors.scale * scale_pixels
        + factors.encode * encode_pixels,
        device_amounts=amounts,
        host_amounts=_host_amounts(core_time, hardware_count if shares_session_cap(view.identity) else 0),
        largest_amounts={Dimension.DECODE: decode.engine_time, Dimension.ENCODE: longest_encode_time},
    )
    left_to_cores = (len(workload.encodes) - hardware_count, decode.core_time > 0)
    return _Share(left_to_cores=left_to_cores, demand=demand)


def _program_mib(identity: DeviceIdentity) -> int:
    # Chips for computing are those that were given no encoder.
    return COMPUTE_GPU_SESSION_MIB if identity.encoder_engines == 0 else GPU_SESSION_MIB


def _host_amounts(core_time: int, encoder_sessions: int) -> Mapping[Dimension, int]:
    told = ((Dimension.CORES, core_time), (Dimension.ENCODER_SESSIONS, encoder_sessions))
    return {dimension: amount for dimension, amount in told if amount}


class _DecodeShare(NamedTuple):
    """What decoding takes of a GPU and of its host."""

    engine_time: int = 0
    pixels: int = 0
    """Decoded on the GPU, as pixels of 8-bit H.264."""
    core_time: int = 0
    surfaces: int = 0
    """Bytes on the GPU."""


_NO_DECODE = _DecodeShare()


def _decode_share(task: DecodeTask | None, view: DeviceView, build: BuildAbilities) -> _DecodeShare | Refusal:
    if task is None:
        return _NO_DECODE
    pixels = task.pixels_per_second
    if (task.codec, task.bit_depth) in build.hardware_decodes and _fits_decoder(task):
        engine_time = _time(pixels, view.capacity.decode_rates[task.codec])
        usual = _usual_decode_pixels(task, view.capacity.decode_rates)
        return _DecodeShare(engine_time=engine_time, pixels=usual, surfaces=_frames_bytes(task, GPU_DECODE_FRAMES))
    if (refusal := _cannot_decode(task, build)) is not None:
        return refusal
    core_time = _time(pixels, core_rates.DECODE_RATES[task.codec])
    return _DecodeShare(core_time=core_time, surfaces=_frames_bytes(task, GPU_UPLOAD_FRAMES))


def _fits_decoder(task: DecodeTask) -> bool:
    """NVDEC as ffmpeg uses it takes 4:2:0 of certain sizes, and its pictures cannot be turned on the device."""
    return (
        not task.rotated
        and task.chroma in (None, "4:2:0")
        and hardware_decoder_limit(task.codec, task.width, task.height) is None
    )


# ---------------------------------------------------------------------------------------------------------- shared


def _usual_decode_pixels(task: DecodeTask, rates: Mapping[VideoCodec, int]) -> int:
    """Gives the pixels per second of 8-bit H.264 that would keep a decoder as busy as a task does."""
    return task.pixels_per_second * rates[VideoCodec.H264] // rates[task.codec]


def _usual_encode_pixels(task: EncodeTask, rates: Mapping[tuple[VideoCodec, str], int], ten_bit_factor: int = 1) -> int:
    """Gives the pixels per second of 8-bit H.264 at speed "fast" that would keep an encoder as busy as a task does."""
    factor = ten_bit_factor if task.bit_depth > 8 else 1
    return task.pixels_per_second * factor * rates[_USUAL_ENCODE] // rates[task.codec, task.speed]


def _time(pixels_per_second: int, rate: int) -> int:
    """Gives the share of one engine or core in millionths, rounded up."""
    return -(-pixels_per_second * ENGINE // rate)


def _software_encode_time(task: EncodeTask, rates: Mapping[tuple[VideoCodec, str], int]) -> int:
    factor = core_rates.TEN_BIT_ENCODE_FACTOR if task.bit_depth > 8 else 1
    return _time(task.pixels_per_second * factor, rates[task.codec, task.speed])


def _frames_bytes(task: DecodeTask | EncodeTask, frames: int) -> int:
    """Gives the memory of 4:2:0 frames of a size and depth, in bytes."""
    sample_bytes = 2 if task.bit_depth > 8 else 1
    return frames * task.width * task.height * 3 * sample_bytes // 2


def _missing_encoder(workload: Workload, builds: tuple[BuildAbilities, ...], *, in_hardware: bool) -> Refusal:
    """Names the first rendition that no ffmpeg encodes; else it is that none encodes them all."""
    where = " in hardware" if in_hardware else ""
    cure = _SOFTWARE_CURE if in_hardware and any(_encodes_in_software(workload, build) for build in builds) else ""
    for task in workload.encodes:
        key = (task.codec, task.bit_depth)
        if not any(
            key in build.hardware_encodes or (not in_hardware and key in build.software_encodes) for build in builds
        ):
            return _refusal("CAPABILITY", f"It was not seen to encode {_format(task)}{where}{cure}.")
    return _refusal("CAPABILITY", f"None of its ffmpegs was seen to have every encoder of the session{where}{cure}.")


def _cannot_decode(task: DecodeTask, build: BuildAbilities) -> Refusal | None:
    """Refuses only what was tried in vain: formats without a trial, OTHER above all, are left to ffmpeg."""
    if (task.codec, task.bit_depth) not in build.failed_decodes:
        return None
    return _refusal("CAPABILITY", f"Its decoder for {_format(task)} was seen to fail.")


def _too_large(task: EncodeTask, limit: str) -> Refusal:
    return _refusal("RESOLUTION", f"It cannot encode {_format(task)} at {task.width}x{task.height}: {limit}.")


def _refusal(rule: str, message: str) -> Refusal:
    return Refusal(rule=rule, message=message, permanent=True)


def _format(task: DecodeTask | EncodeTask) -> str:
    return f"{task.bit_depth}-bit {task.codec.value}"
