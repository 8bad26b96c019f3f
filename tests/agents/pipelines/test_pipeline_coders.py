"""Which ffmpeg and coders a job gets where several would do, and where pictures are beyond the hardware."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pipeline_cases import CLIP, h264, job, mp4, video
from pipeline_devices import NEW_FFMPEG, OLD_FFMPEG, UUID, ada, capability, cpu, software

from agents.pipelines.capability import Capability, FfmpegBuild, PipelineDevice
from agents.pipelines.coders import choose_coders
from agents.pipelines.job import Direction, Fit, InputFacts, Job, VideoCodec, VideoEncoding
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason


def transcode(*encodings: VideoEncoding, facts: InputFacts = CLIP, software_encode: bool = False) -> Job:
    """A job of some renditions."""
    renditions = tuple(video(f"r{number}", encoding) for number, encoding in enumerate(encodings))
    return job("clip.mp4", facts, renditions, (mp4("a.mp4"),), software_encode=software_encode)


def gpu(*capabilities: Capability) -> PipelineDevice:
    """A GPU with two ffmpegs, the newer one preferred."""
    return PipelineDevice(
        kind="nvidia", id=UUID, core_count=2, capabilities=capabilities, ffmpeg_builds=(NEW_FFMPEG, OLD_FFMPEG)
    )


def nvenc(build: FfmpegBuild, codec: VideoCodec = VideoCodec.H264) -> Capability:
    return capability(build, codec, hardware=True)


def decoder(build: FfmpegBuild, *, hardware: bool, codec: VideoCodec = VideoCodec.H264) -> Capability:
    return capability(build, codec, hardware=hardware, direction=Direction.DECODE)


def test_an_older_ffmpeg_that_decodes_on_the_gpu_too_comes_before_a_newer_one_that_does_not() -> None:
    device = gpu(nvenc(NEW_FFMPEG), nvenc(OLD_FFMPEG), decoder(OLD_FFMPEG, hardware=True))
    coders = choose_coders(transcode(h264(180)), device)
    assert (coders.build, coders.hardware_decode) == (OLD_FFMPEG, True)
    both = gpu(*device.capabilities, decoder(NEW_FFMPEG, hardware=True))
    assert choose_coders(transcode(h264(180)), both).build is NEW_FFMPEG


def test_an_encoder_on_the_gpu_weighs_more_than_a_decoder() -> None:
    device = gpu(nvenc(OLD_FFMPEG), *software(NEW_FFMPEG), decoder(NEW_FFMPEG, hardware=True))
    coders = choose_coders(transcode(h264(180), software_encode=True), device)
    assert (coders.build, coders.encoders["r0"].hardware, coders.hardware_decode) == (OLD_FFMPEG, True, False)


@pytest.mark.parametrize("hardware", [True, False])
def test_an_ffmpeg_that_was_seen_to_fail_at_the_input_is_passed_over(hardware: bool) -> None:
    encoders = [capability(build, VideoCodec.H264, hardware=hardware) for build in (NEW_FFMPEG, OLD_FFMPEG)]
    device = gpu(*encoders, decoder(OLD_FFMPEG, hardware=False, codec=VideoCodec.AV1))
    facts = replace(CLIP, video_codec=VideoCodec.AV1)
    assert choose_coders(transcode(h264(180), facts=facts, software_encode=True), device).build is OLD_FFMPEG
    untried = replace(CLIP, video_codec=VideoCodec.OTHER)
    assert choose_coders(transcode(h264(180), facts=untried, software_encode=True), device).build is NEW_FFMPEG


@pytest.mark.parametrize(("width", "height"), [(4112, 2160), (40, 30)])
def test_an_input_beyond_nvdec_is_decoded_by_the_cores(width: int, height: int) -> None:
    facts = replace(CLIP, width=width, height=height)
    assert not choose_coders(transcode(h264(180), facts=facts), ada()).hardware_decode
    assert choose_coders(transcode(h264(180)), ada()).hardware_decode


@pytest.mark.parametrize(
    ("encoding", "told"), [(h264(4098), "ends at 4096x4096"), (h264(72), "begins at 146x50"), (h264(48), "begins at")]
)
def test_a_rendition_beyond_nvenc_is_refused_or_encoded_by_the_cores(encoding: VideoEncoding, told: str) -> None:
    with pytest.raises(PipelineError) as caught:
        choose_coders(transcode(h264(180), encoding), ada())
    assert caught.value.reason is PipelineErrorReason.NO_CAPABILITY
    assert caught.value.field == "renditions[1].encode.codec"
    assert told in caught.value.message
    assert "allow_software_encode" in caught.value.message
    coders = choose_coders(transcode(h264(180), encoding, software_encode=True), ada())
    assert [coders.encoders[name].implementation for name in ("r0", "r1")] == ["h264_nvenc", "libx264"]


def test_a_rendition_beyond_every_encoder_is_refused_with_its_limit() -> None:
    for device in (cpu(), ada()):
        with pytest.raises(PipelineError) as caught:
            choose_coders(
                transcode(VideoEncoding(width=16386, height=16, fit=Fit.STRETCH), software_encode=True), device
            )
        assert "end at" in caught.value.message or "ends at" in caught.value.message
        assert "allow_software_encode" not in caught.value.message
