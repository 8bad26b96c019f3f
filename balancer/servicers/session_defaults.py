"""Fills a checked transcode in: names, codecs, intervals, outputs. After it, nothing of it depends on its reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.servicers.output_validation import DEFAULT_SEGMENT, container_of
from balancer.servicers.rendition_validation import DEFAULT_KEYFRAME_INTERVAL, rendition_ids
from balancer.servicers.violations import SECOND
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gpu_balancer.v1.media_pb2 import AudioRendition, Input, Output, Rendition, TranscodeSpec, VideoEncoding

_PUBLISHER_TIMEOUT_S = 60
_AUDIO_BIT_RATE_BPS = 128_000
_AUDIO_SAMPLE_RATE_HZ = 48_000


def fill_in_input(given: Input) -> None:
    """Fills in what the client left open of where the media comes from. What it is stays open.

    Args:
        given: An input without violations. Changed.
    """
    if given.HasField("ingest"):
        ingest = given.ingest
        ingest.protocol = ingest.protocol or media_pb2.INGEST_PROTOCOL_RTMP
        if not ingest.HasField("publisher_timeout"):
            ingest.publisher_timeout.seconds = _PUBLISHER_TIMEOUT_S


def fill_in_ladder(spec: TranscodeSpec) -> None:
    """Fills in what the client left open of renditions and outputs; what follows from the input's size stays open.

    Args:
        spec: A transcode without violations, its profile's renditions in place. Changed; its input plays no part.
    """
    spec.profile = ""
    fill_in_renditions(spec.renditions)
    if not spec.outputs:
        for rendition in spec.renditions:
            output = spec.outputs.add(renditions=[rendition.id])
            output.file.path = f"{rendition.id}.mp4"
    fill_in_outputs(spec.outputs)


def fill_in_renditions(renditions: Sequence[Rendition]) -> None:
    """Fills in what was left open of renditions without violations. They are changed."""
    for name, rendition in zip(rendition_ids(renditions), renditions, strict=True):
        _fill_rendition(rendition, name)


def fill_in_outputs(outputs: Sequence[Output]) -> None:
    """Fills in what was left open of outputs without violations. They are changed."""
    for index, output in enumerate(outputs):
        _fill_output(output, f"output-{index + 1}")


def _fill_rendition(rendition: Rendition, name: str) -> None:
    rendition.id = name
    if rendition.WhichOneof("video") == "encode":
        _fill_encoding(rendition.encode)
    _fill_audio(rendition.audio)


def _fill_encoding(encoding: VideoEncoding) -> None:
    encoding.codec = encoding.codec or media_pb2.VIDEO_CODEC_H264
    encoding.fit = encoding.fit or media_pb2.FIT_CONTAIN
    encoding.speed = encoding.speed or media_pb2.ENCODING_SPEED_FAST
    if not encoding.HasField("keyframe_interval"):
        encoding.keyframe_interval.seconds = DEFAULT_KEYFRAME_INTERVAL // SECOND
    if not encoding.HasField("bit_depth"):
        encoding.bit_depth = 8


def _fill_audio(audio: AudioRendition) -> None:
    audio.codec = audio.codec or media_pb2.AUDIO_CODEC_AAC
    if audio.codec not in (media_pb2.AUDIO_CODEC_AAC, media_pb2.AUDIO_CODEC_OPUS):
        return
    if not audio.HasField("bit_rate_bps"):
        audio.bit_rate_bps = _AUDIO_BIT_RATE_BPS
    if not audio.HasField("sample_rate_hz"):
        audio.sample_rate_hz = _AUDIO_SAMPLE_RATE_HZ


def _fill_output(output: Output, name: str) -> None:
    output.id = output.id or name
    match output.WhichOneof("kind"):
        case "file":
            container = container_of(output.file)
            assert container is not None, "a file without violations has a container"
            output.file.container = container
        case "hls":
            hls = output.hls
            hls.segment_format = hls.segment_format or media_pb2.HLS_SEGMENT_FORMAT_FMP4
            if not hls.HasField("segment_duration"):
                hls.segment_duration.seconds = DEFAULT_SEGMENT // SECOND
        case _:
            pass
