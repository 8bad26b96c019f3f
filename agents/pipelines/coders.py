"""Which ffmpeg and which coders a job uses on a device: asked of what the device was proved to do, never assumed.

One job runs in one ffmpeg, so all coders of a job are chosen together: those of the ffmpeg with which least is left to
the host's cores, fewest encoders first of all, then the decoder; the most preferred one of equals. The balancer counts
by the same rule, so that no GPU works on its host's cores unasked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.pipelines.job import Direction, Fit, VideoCodec, VideoEncoding
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason
from gpu_balancer.pictures.limits import hardware_decoder_limit, hardware_encoder_limit, software_encoder_limit
from gpu_balancer.pictures.sizes import PictureSize, fitted_size

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
            have every coder that the job needs.
    """
    for index, rendition in enumerate(job.renditions):
        if isinstance(rendition.video, VideoEncoding) and rendition.video.codec not in _ENCODED:
            raise PipelineError(
                reason=PipelineErrorReason.UNSUPPORTED,
                field=f"renditions[{index}].encode.codec",
                message=f"Cannot encode {rendition.video.codec}: it is an input format only. Try h264, hevc or av1.",
            )
    possible = [coders for build in device.ffmpeg_builds if (coders := _coders(job, device, build)) is not None]
    if not possible:
        raise _missing(job, device)
    return min(possible, key=_left_to_cores)


def decodes_in_hardware(facts: InputFacts, device: PipelineDevice, build: FfmpegBuild) -> bool:
    """Tells whether a device's own engines decode an input.

    NVDEC as ffmpeg uses it takes 4:2:0 only, of certain sizes. A turned picture is decoded in software, because only
    then does ffmpeg turn it upright; frames in device memory keep their turn. An unknown format is decoded in software,
    which always works; an unknown bit depth or chroma of a known format is taken for 8-bit 4:2:0, which nearly all
    streams are.

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
    if facts.width and facts.height and hardware_decoder_limit(facts.video_codec, facts.width, facts.height):
        return False
    return any(
        capability.works and capability.hardware and capability.ffmpeg == build.path
        for capability in _decoders(facts, device)
    )


def _left_to_cores(coders: Coders) -> tuple[int, bool]:
    """Tells what is left to the cores of a GPU's host, the less the better; on a CPU device it is all the same."""
    return sum(not encoder.hardware for encoder in coders.encoders.values()), not coders.hardware_decode


def _coders(job: Job, device: PipelineDevice, build: FfmpegBuild) -> Coders | None:
    """Finds the coders of a job in one ffmpeg; None when one is missing."""
    encoders: dict[str, VideoEncoder] = {}
    for rendition in job.renditions:
        if isinstance(rendition.video, VideoEncoding):
            usable = [
                one
                for one in _encoders(rendition.video, device)
                if one.works and one.ffmpeg == build.path and _may_use(one, rendition.video, job, device)
            ]
            if not usable:
                return None
            best = max(usable, key=lambda capability: capability.hardware)
            encoders[rendition.id] = VideoEncoder(implementation=best.implementation, hardware=best.hardware)
    hardware_decode = bool(encoders) and decodes_in_hardware(job.facts, device, build)
    if encoders and not hardware_decode and _fails_to_decode(job.facts, device, build):
        return None
    return Coders(build=build, hardware_decode=hardware_decode, encoders=encoders)


def _may_use(encoder: Capability, encoding: VideoEncoding, job: Job, device: PipelineDevice) -> bool:
    """Whether an encoder takes the pictures, and the job lets the host's cores encode if that is what it means."""
    if _size_limit(encoder, encoding, job.facts) is not None:
        return False
    return encoder.hardware or device.kind == "cpu" or job.allow_software_encode


def _size_limit(encoder: Capability, encoding: VideoEncoding, facts: InputFacts) -> str | None:
    """Tells why an encoder does not take a rendition's size; None when it does, or nobody can tell."""
    size = _size(encoding, facts)
    if size is None:
        return None
    if encoder.hardware:
        return hardware_encoder_limit(encoding.codec, size.width, size.height)
    return software_encoder_limit(size.width, size.height)


def _size(encoding: VideoEncoding, facts: InputFacts) -> PictureSize | None:
    if not (facts.width and facts.height):
        return None
    source = PictureSize(facts.width, facts.height)
    return fitted_size(source, width=encoding.width, height=encoding.height, stretch=encoding.fit is Fit.STRETCH)


def _fails_to_decode(facts: InputFacts, device: PipelineDevice, build: FfmpegBuild) -> bool:
    """Whether an ffmpeg was seen to fail at decoding an input by the cores; what was never tried may work."""
    tried = [one for one in _decoders(facts, device) if not one.hardware]
    return bool(tried) and not any(one.works and one.ffmpeg == build.path for one in tried)


def _decoders(facts: InputFacts, device: PipelineDevice) -> tuple[Capability, ...]:
    return tuple(
        capability
        for capability in device.capabilities
        if capability.direction is Direction.DECODE
        and capability.codec is facts.video_codec
        and capability.bit_depth == (facts.bit_depth or 8)
    )


def _encoders(encoding: VideoEncoding, device: PipelineDevice) -> tuple[Capability, ...]:
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
        asked = _encoders(rendition.video, device)
        if any(one.works and _may_use(one, rendition.video, job, device) for one in asked):
            continue
        name = f"{rendition.video.bit_depth}-bit {_NAMES[rendition.video.codec]}"
        working = [one for one in asked if one.works]
        limits = (_size_limit(one, rendition.video, job.facts) for one in working if one.hardware or in_software)
        told = next(filter(None, limits), None)
        told = told or next((one.message for one in asked if one.message), "it was not proved to")
        software = not in_software and any(not one.hardware for one in working)
        hint = "allow_software_encode" if software else "another device, size or format"
        return PipelineError(
            reason=PipelineErrorReason.NO_CAPABILITY,
            field=f"renditions[{index}].encode.codec",
            message=f"Cannot encode {name} on {device.id}: {told}. Try {hint}.",
        )
    return PipelineError(
        reason=PipelineErrorReason.NO_CAPABILITY,
        field="renditions",
        message=f"Cannot run the job on {device.id}: no single ffmpeg has every coder that it needs. "
        "Try sessions of one format each.",
    )
