"""Devices for tests of pipelines: what a golden probe would have told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.pipelines.capability import Capability, FfmpegBuild, PipelineDevice
from agents.pipelines.job import Direction, VideoCodec

if TYPE_CHECKING:
    from collections.abc import Iterable

NEW_FFMPEG = FfmpegBuild(
    path="/opt/ffmpeg-9", version="n9.0.2-17-g2a571b6068-20260930", candidate="bundled", scaler_blackens=True
)
OLD_FFMPEG = FfmpegBuild(path="/opt/ffmpeg-5", version="5.1.9-0+deb12u1", candidate="/usr/bin/ffmpeg")
ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
SOFTWARE = {VideoCodec.H264: "libx264", VideoCodec.HEVC: "libx265", VideoCodec.AV1: "libsvtav1"}
ADA_ENCODES = (
    (VideoCodec.H264, 8),
    (VideoCodec.HEVC, 8),
    (VideoCodec.HEVC, 10),
    (VideoCodec.AV1, 8),
    (VideoCodec.AV1, 10),
)
ADA_DECODES = (
    (VideoCodec.H264, 8),
    (VideoCodec.HEVC, 8),
    (VideoCodec.HEVC, 10),
    (VideoCodec.AV1, 8),
    (VideoCodec.MPEG2, 8),
)
TURING_ENCODES = ((VideoCodec.H264, 8), (VideoCodec.HEVC, 8), (VideoCodec.HEVC, 10))
UUID = "GPU-7f3c2a10-1b5d-4e0a-9c1f-0123456789ab"


def capability(
    build: FfmpegBuild,
    codec: VideoCodec,
    *,
    bit_depth: int = 8,
    direction: Direction = Direction.ENCODE,
    hardware: bool = False,
    works: bool = True,
    message: str = "",
) -> Capability:
    """Makes the outcome of one trial."""
    if direction is Direction.DECODE:
        implementation = f"{codec}_nvdec" if hardware else str(codec)
    else:
        implementation = f"{codec}_nvenc" if hardware else SOFTWARE[codec]
    return Capability(
        codec=codec,
        direction=direction,
        bit_depth=bit_depth,
        implementation=implementation,
        works=works,
        hardware=hardware,
        ffmpeg=build.path,
        message=message,
    )


def software(build: FfmpegBuild) -> list[Capability]:
    """Makes what every machine can do."""
    return [capability(build, codec, bit_depth=depth) for codec in ENCODED for depth in (8, 10)]


def cpu(build: FfmpegBuild = NEW_FFMPEG, *, core_count: int = 8) -> PipelineDevice:
    """Makes a CPU device."""
    return PipelineDevice(
        kind="cpu", id="cpu-0", core_count=core_count, capabilities=tuple(software(build)), ffmpeg_builds=(build,)
    )


def nvidia(
    encodes: Iterable[tuple[VideoCodec, int]],
    decodes: Iterable[tuple[VideoCodec, int]] = ADA_DECODES,
    build: FfmpegBuild = NEW_FFMPEG,
) -> PipelineDevice:
    """Makes a GPU that encodes and decodes what is given, in a host that encodes everything in software."""
    encoders = [capability(build, codec, bit_depth=depth, hardware=True) for codec, depth in encodes]
    decoders = [
        capability(build, codec, bit_depth=depth, hardware=True, direction=Direction.DECODE) for codec, depth in decodes
    ]
    return PipelineDevice(
        kind="nvidia",
        id=UUID,
        core_count=16,
        capabilities=(*encoders, *decoders, *software(build)),
        ffmpeg_builds=(build,),
    )


def ada(build: FfmpegBuild = NEW_FFMPEG) -> PipelineDevice:
    """Makes a GPU with all three encoders."""
    return nvidia(ADA_ENCODES, build=build)


def hopper() -> PipelineDevice:
    """Makes a GPU that decodes and scales but has no encoder, as an H200."""
    return nvidia(())
