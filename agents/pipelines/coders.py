"""Which ffmpeg and which coders a job uses on a device: asked of what the device was proved to do, never assumed.

One job runs in one ffmpeg, so the ffmpeg is chosen first: the most preferred one in which every encoder of the job
works. Hardware encoders come before software ones even when that means a less preferred ffmpeg, because a GPU that
encodes on its host's cores costs what placement did not count, unless the job allows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.pipelines.job import Direction, VideoCodec, VideoEncoding
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agents.pipelines.capability import Capability, FfmpegBuild, PipelineDevice
    from agents.pipelines.job import InputFacts, Job

_ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
_NAMES = {VideoCodec.H264: "H.264", VideoCodec.HEVC: "HEVC", VideoCodec.AV1: "AV1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEncoder:
    """The encoder of one rendition."""

    implementation: str
    """ffmpeg's name of it."""
    hardware: bool
    """Whether it takes frames in device memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Coders:
    """The programs and coders of a job."""

    build: FfmpegBuild
    hardware_decode: bool
    encoders: Mapping[str, VideoEncoder]
    """By rendition id; only renditions that are encoded."""


def choose_coders(job: Job, device: PipelineDevice) -> Coders:
    """Chooses the ffmpeg, the decoder and the encoders of a job.

    Args:
        job: The job.
        device: What it is to run on.

    Returns:
        The choice.

    Raises:
        PipelineError: When a rendition asks for a format that nothing encodes, or no ffmpeg of the device was proved to
            have every encoder that the job needs.
    """
    for index, rendition in enumerate(job.renditions):
        if isinstance(rendition.video, VideoEncoding) and rendition.video.codec not in _ENCODED:
            raise PipelineError(
                reason=PipelineErrorReason.UNSUPPORTED,
                field=f"renditions[{index}].encode.codec",
                message=f"Cannot encode {rendition.video.codec}: it is an input format only. Try h264, hevc or av1.",
            )
    preferences = (True, False) if device.kind == "nvidia" and job.allow_software_encode else (device.kind == "nvidia",)
    for hardware_only in preferences:
        for build in device.ffmpeg_builds:
            encoders = _encoders(job, device, build, hardware_only=hardware_only)
            if encoders is not None:
                decoded = bool(encoders) and decodes_in_hardware(job.facts, device, build)
                return Coders(build=build, hardware_decode=decoded, encoders=encoders)
    raise _missing(job, device)


def decodes_in_hardware(facts: InputFacts, device: PipelineDevice, build: FfmpegBuild) -> bool:
    """Tells whether a device's own engines decode an input.

    NVDEC as ffmpeg uses it takes 4:2:0 only. A turned picture is decoded in software, because only then does ffmpeg
    turn it upright; frames in device memory keep their turn. An unknown format is decoded in software, which always
    works; an unknown bit depth or chroma of a known format is taken for 8-bit 4:2:0, which nearly all streams are.

    Args:
        facts: What is known of the input.
        device: The device.
        build: The ffmpeg that would do it.

    Returns:
        True when a real run has shown that they do.
    """
    if device.kind != "nvidia" or facts.video_codec is None or facts.rotation_degrees:
        return False
    if (facts.chroma or "4:2:0") != "4:2:0":
        return False
    return any(
        capability.works
        and capability.hardware
        and capability.direction is Direction.DECODE
        and capability.codec is facts.video_codec
        and capability.bit_depth == (facts.bit_depth or 8)
        and capability.ffmpeg == build.path
        for capability in device.capabilities
    )


def _encoders(
    job: Job, device: PipelineDevice, build: FfmpegBuild, *, hardware_only: bool
) -> dict[str, VideoEncoder] | None:
    """Finds an encoder for every encoded rendition; None when one has none. Hardware encoders come first."""
    found: dict[str, VideoEncoder] = {}
    for rendition in job.renditions:
        if not isinstance(rendition.video, VideoEncoding):
            continue
        usable = [
            capability
            for capability in _candidates(rendition.video, device)
            if capability.works and capability.ffmpeg == build.path and (capability.hardware or not hardware_only)
        ]
        if not usable:
            return None
        best = min(usable, key=lambda capability: not capability.hardware)
        found[rendition.id] = VideoEncoder(implementation=best.implementation, hardware=best.hardware)
    return found


def _candidates(encoding: VideoEncoding, device: PipelineDevice) -> tuple[Capability, ...]:
    return tuple(
        capability
        for capability in device.capabilities
        if capability.direction is Direction.ENCODE
        and capability.codec is encoding.codec
        and capability.bit_depth == encoding.bit_depth
    )


def _missing(job: Job, device: PipelineDevice) -> PipelineError:
    """Words why no ffmpeg of the device will do: the first rendition that none can encode, or their combination."""
    in_software = device.kind == "cpu" or job.allow_software_encode
    for index, rendition in enumerate(job.renditions):
        if not isinstance(rendition.video, VideoEncoding):
            continue
        asked = _candidates(rendition.video, device)
        if any(capability.works and (capability.hardware or in_software) for capability in asked):
            continue
        name = f"{rendition.video.bit_depth}-bit {_NAMES[rendition.video.codec]}"
        told = next((capability.message for capability in asked if capability.message), "it was not proved to")
        software = any(capability.works and not capability.hardware for capability in asked)
        hint = "allow_software_encode" if software else "another device or format"
        return PipelineError(
            reason=PipelineErrorReason.NO_CAPABILITY,
            field=f"renditions[{index}].encode.codec",
            message=f"Cannot encode {name} on {device.id}: {told}. Try {hint}.",
        )
    return PipelineError(
        reason=PipelineErrorReason.NO_CAPABILITY,
        field="renditions",
        message=f"Cannot run the job on {device.id}: no single ffmpeg has every encoder that it needs. "
        "Try sessions of one format each.",
    )
