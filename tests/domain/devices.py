"""Devices and workloads to place, as agents and clients would describe them."""

from __future__ import annotations

from fractions import Fraction

from balancer.domain.capacity import CapacityOverride, capacity_of
from balancer.domain.device import (
    Capability,
    DeviceIdentity,
    DeviceKind,
    DeviceState,
    DeviceView,
    Direction,
)
from balancer.domain.ids import DeviceId
from balancer.domain.workload import DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from gpu_balancer.hardware import model_row

ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
SIZES = {1080: (1920, 1080), 720: (1280, 720), 480: (854, 480), 360: (640, 360), 2160: (3840, 2160)}


def capability(
    codec: VideoCodec, direction: Direction, *, hardware: bool, works: bool = True, bit_depth: int = 8
) -> Capability:
    """Makes the outcome of a trial."""
    return Capability(
        codec=codec,
        direction=direction,
        bit_depth=bit_depth,
        works=works,
        hardware=hardware,
        implementation=f"{codec}_{'nv' if hardware else 'sw'}",
    )


def software_encoders(*codecs: VideoCodec) -> tuple[Capability, ...]:
    """Makes trials of software encoders that worked, 8 and 10 bits."""
    return tuple(
        capability(codec, Direction.ENCODE, hardware=False, bit_depth=depth) for codec in codecs for depth in (8, 10)
    )


def nvenc(*codecs: VideoCodec, works: bool = True) -> tuple[Capability, ...]:
    """Makes trials of NVENC."""
    return tuple(capability(codec, Direction.ENCODE, hardware=True, works=works) for codec in codecs)


def nvdec(*codecs: VideoCodec, works: bool = True) -> tuple[Capability, ...]:
    """Makes trials of NVDEC."""
    return tuple(capability(codec, Direction.DECODE, hardware=True, works=works) for codec in codecs)


def gpu_identity(
    model: str, device_id: str = "GPU-1", *, clock_mhz: int | None = None, memory_mib: int | None = 16384
) -> DeviceIdentity:
    """Describes a GPU as its agent would."""
    row = model_row(model)
    return DeviceIdentity(
        id=DeviceId(device_id),
        kind=DeviceKind.NVIDIA,
        model=model,
        architecture=row.architecture if row else None,
        memory_total_mib=memory_mib,
        encoder_engines=row.encoder_engines if row else None,
        decoder_engines=row.decoder_engines if row else None,
        video_clock_mhz=clock_mhz,
        table_model=row.model if row else None,
    )


def gpu(
    model: str = "NVIDIA L4",
    device_id: str = "GPU-1",
    *,
    weight: int = 100,
    capabilities: tuple[Capability, ...] | None = None,
    override: CapacityOverride | None = None,
    state: DeviceState = DeviceState.READY,
    state_message: str = "",
    memory_mib: int | None = 16384,
    ffmpeg_paths: tuple[str, ...] = (),
) -> DeviceView:
    """Makes a GPU that was probed; by default it encodes all formats and decodes H.264 and HEVC."""
    if capabilities is None:
        capabilities = (*nvenc(*ENCODED), *nvdec(VideoCodec.H264, VideoCodec.HEVC), *software_encoders(*ENCODED))
    identity = gpu_identity(model, device_id, memory_mib=memory_mib)
    return DeviceView(
        identity=identity,
        state=state,
        state_message=state_message,
        weight=weight,
        capabilities=capabilities,
        capacity=capacity_of(identity, capabilities, override),
        ffmpeg_paths=ffmpeg_paths,
    )


def cpu(
    core_count: int = 2,
    device_id: str = "cpu-0",
    *,
    weight: int = 100,
    capabilities: tuple[Capability, ...] | None = None,
    override: CapacityOverride | None = None,
) -> DeviceView:
    """Makes a CPU device that was probed; by default it encodes all formats."""
    identity = DeviceIdentity(id=DeviceId(device_id), kind=DeviceKind.CPU, model="CPU", cores=tuple(range(core_count)))
    capabilities = software_encoders(*ENCODED) if capabilities is None else capabilities
    return DeviceView(
        identity=identity,
        state=DeviceState.READY,
        state_message="",
        weight=weight,
        capabilities=capabilities,
        capacity=capacity_of(identity, capabilities, override),
    )


def encode(
    height: int = 720,
    *,
    codec: VideoCodec = VideoCodec.H264,
    frames_per_second: int = 30,
    bit_depth: int = 8,
    speed: EncodingSpeed = EncodingSpeed.FAST,
    size: tuple[int, int] | None = None,
) -> EncodeTask:
    """Describes one encoded rendition."""
    width, height = size or SIZES[height]
    return EncodeTask(
        codec=codec,
        width=width,
        height=height,
        bit_depth=bit_depth,
        speed=speed,
        pixels_per_second=width * height * frames_per_second,
    )


def decode(
    height: int = 720,
    *,
    codec: VideoCodec = VideoCodec.H264,
    frames_per_second: int = 30,
    bit_depth: int = 8,
    chroma: str | None = "4:2:0",
    size: tuple[int, int] | None = None,
    rotated: bool = False,
) -> DecodeTask:
    """Describes the decoding of an input."""
    width, height = size or SIZES[height]
    return DecodeTask(
        codec=codec,
        width=width,
        height=height,
        bit_depth=bit_depth,
        chroma=chroma,
        pixels_per_second=width * height * frames_per_second,
        rotated=rotated,
    )


def workload(
    *encodes: EncodeTask,
    input_task: DecodeTask | None = None,
    real_time: bool = True,
    allow_software_encode: bool = False,
    reserved_speed: Fraction | None = None,
) -> Workload:
    """Makes a session's workload; renditions of another size than the input's are scaled."""
    return Workload(
        decode=input_task,
        scale_pixels_per_second=sum(
            task.pixels_per_second
            for task in encodes
            if input_task and (task.width, task.height) != (input_task.width, input_task.height)
        ),
        encodes=encodes,
        real_time=real_time,
        allow_software_encode=allow_software_encode,
        reserved_speed=reserved_speed,
    )


def ladder(**changes: bool) -> Workload:
    """Makes the usual three rungs of H.264 out of 720p30."""
    return workload(encode(720), encode(480), encode(360), input_task=decode(720), **changes)
