"""From the contract's messages to jobs. Every mistake is told at once, each with its field's path.

The balancer has filled in profiles, defaults and ids and has checked ranges. What is checked here is what a job cannot
be made without: an agent does not trust, but it does not repeat the balancer's policy either.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.job import (
    AudioCodec,
    AudioRendition,
    Container,
    EncodingSpeed,
    FileOutput,
    Fit,
    FrameRate,
    HlsOutput,
    HlsSegmentFormat,
    IngestInput,
    IngestProtocol,
    InputFacts,
    Job,
    JobInput,
    JobOutput,
    PushOutput,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
    VideoPassthrough,
)
from agents.servicers.request_fields import Mistakes, session_id
from gpu_balancer.v1 import media_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from google.protobuf.duration_pb2 import Duration

    from gpu_balancer.v1 import agent_service_pb2

_CODECS = {
    number: VideoCodec(name.removeprefix("VIDEO_CODEC_").lower())
    for name, number in media_pb2.VideoCodec.items()
    if number != media_pb2.VIDEO_CODEC_UNSPECIFIED
}
_ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
_AUDIO_CODECS: Mapping[int, AudioCodec] = {
    media_pb2.AUDIO_CODEC_UNSPECIFIED: AudioCodec.AAC,
    media_pb2.AUDIO_CODEC_AAC: AudioCodec.AAC,
    media_pb2.AUDIO_CODEC_OPUS: AudioCodec.OPUS,
    media_pb2.AUDIO_CODEC_COPY: AudioCodec.COPY,
    media_pb2.AUDIO_CODEC_NONE: AudioCodec.NONE,
}
_FITS: Mapping[int, Fit] = {
    media_pb2.FIT_UNSPECIFIED: Fit.CONTAIN,
    media_pb2.FIT_CONTAIN: Fit.CONTAIN,
    media_pb2.FIT_STRETCH: Fit.STRETCH,
}
_SPEEDS: Mapping[int, EncodingSpeed] = {
    media_pb2.ENCODING_SPEED_UNSPECIFIED: EncodingSpeed.FAST,
    media_pb2.ENCODING_SPEED_FASTEST: EncodingSpeed.FASTEST,
    media_pb2.ENCODING_SPEED_FAST: EncodingSpeed.FAST,
    media_pb2.ENCODING_SPEED_BALANCED: EncodingSpeed.BALANCED,
    media_pb2.ENCODING_SPEED_THOROUGH: EncodingSpeed.THOROUGH,
}
_CONTAINERS: Mapping[int, Container] = {
    media_pb2.CONTAINER_MP4: Container.MP4,
    media_pb2.CONTAINER_MKV: Container.MKV,
    media_pb2.CONTAINER_TS: Container.TS,
}
_EXTENSIONS = {".mp4": Container.MP4, ".m4v": Container.MP4, ".mkv": Container.MKV, ".ts": Container.TS}
_SEGMENTS: Mapping[int, HlsSegmentFormat] = {
    media_pb2.HLS_SEGMENT_FORMAT_UNSPECIFIED: HlsSegmentFormat.FMP4,
    media_pb2.HLS_SEGMENT_FORMAT_FMP4: HlsSegmentFormat.FMP4,
    media_pb2.HLS_SEGMENT_FORMAT_TS: HlsSegmentFormat.TS,
}
_PROTOCOLS: Mapping[int, IngestProtocol] = {
    media_pb2.INGEST_PROTOCOL_UNSPECIFIED: IngestProtocol.RTMP,
    media_pb2.INGEST_PROTOCOL_RTMP: IngestProtocol.RTMP,
    media_pb2.INGEST_PROTOCOL_SRT: IngestProtocol.SRT,
}

_MOST_RENDITIONS = 16
_MOST_OUTPUTS = 32
"""The contract's bounds. A megabyte would hold hundreds of thousands."""


def job_from_plan(plan: agent_service_pb2.LaunchPlan, *, path: str = "plan") -> Job:
    """Makes a job.

    Args:
        plan: The launch plan.
        path: Where it stands in the request.

    Raises:
        RequestFailure: INVALID_REQUEST with every mistake.
    """
    mistakes = Mistakes()
    spec, where = plan.transcode, f"{path}.transcode"
    if plan.id.attempt < 1:
        mistakes.add(f"{path}.id.attempt", "must be 1 or more.")
    source = _input(spec.input, f"{where}.input", mistakes)
    renditions = renditions_of(spec.renditions, f"{where}.renditions", mistakes)
    outputs = outputs_of(spec.outputs, f"{where}.outputs", mistakes)
    session = session_id(plan.id.session, path=f"{path}.id.session")
    mistakes.refuse()
    assert source is not None
    return Job(
        session=session,
        attempt=plan.id.attempt,
        input=source,
        facts=facts_from_proto(plan.input_facts),
        renditions=renditions,
        outputs=outputs,
        allow_software_encode=spec.allow_software_encode,
        continues=bool(plan.continues),
    )


def renditions_of(messages: Sequence[media_pb2.Rendition], path: str, mistakes: Mistakes) -> tuple[Rendition, ...]:
    """Makes renditions; notes what is wrong with them. Too many are not looked at."""
    mistakes.check_count(path, messages, _MOST_RENDITIONS)
    if len(messages) > _MOST_RENDITIONS:
        return ()
    if not messages:
        mistakes.add(path, "must have at least one; profiles are resolved by the balancer.")
    made = [_rendition(message, f"{path}[{index}]", mistakes) for index, message in enumerate(messages)]
    return tuple(rendition for rendition in made if rendition is not None)


def outputs_of(messages: Sequence[media_pb2.Output], path: str, mistakes: Mistakes) -> tuple[JobOutput, ...]:
    """Makes outputs; notes what is wrong with them. Too many are not looked at."""
    mistakes.check_count(path, messages, _MOST_OUTPUTS)
    if len(messages) > _MOST_OUTPUTS:
        return ()
    if not messages:
        mistakes.add(path, "must have at least one.")
    return _outputs(messages, path, mistakes)


def input_from_proto(message: media_pb2.Input) -> JobInput:
    """Makes a job's input.

    Raises:
        RequestFailure: INVALID_REQUEST with every mistake.
    """
    mistakes = Mistakes()
    source = _input(message, "session.transcode.input", mistakes)
    mistakes.refuse()
    assert source is not None
    return source


def outputs_from_proto(messages: Sequence[media_pb2.Output]) -> tuple[JobOutput, ...]:
    """Makes a job's outputs.

    Raises:
        RequestFailure: INVALID_REQUEST with every mistake.
    """
    mistakes = Mistakes()
    outputs = outputs_of(messages, "session.transcode.outputs", mistakes) if messages else ()
    mistakes.refuse()
    return outputs


def facts_from_proto(message: media_pb2.InputFacts) -> InputFacts:
    """Makes facts of an input; what is unset is unknown."""
    return InputFacts(
        width=message.width or None,
        height=message.height or None,
        frame_rate=_frame_rate(message.frame_rate) if message.HasField("frame_rate") else None,
        video_codec=_CODECS.get(message.video_codec),
        bit_depth=message.bit_depth if message.HasField("bit_depth") else None,
        chroma=message.chroma or None,
        has_audio=message.has_audio if message.HasField("has_audio") else None,
        audio_codec=message.audio_codec or None,
        duration=message.duration.ToTimedelta() if message.HasField("duration") else None,
        format=message.format or None,
        rotation_degrees=message.rotation_degrees if message.HasField("rotation_degrees") else None,
    )


def _input(message: media_pb2.Input, path: str, mistakes: Mistakes) -> JobInput | None:
    duration = _duration(message.duration) if message.HasField("duration") else None
    match message.WhichOneof("source"):
        case "uri":
            return UriInput(
                uri=message.uri,
                start_offset=_duration(message.start_offset) if message.HasField("start_offset") else None,
                duration=duration,
                native_rate=message.native_rate,
                repeat_count=message.repeat_count,
                repeat_forever=message.repeat_forever,
            )
        case "ingest":
            protocol = mistakes.choose(_PROTOCOLS, message.ingest.protocol, f"{path}.ingest.protocol")
            if protocol is None:
                return None
            if not message.ingest.HasField("publisher_timeout"):
                return IngestInput(protocol=protocol, duration=duration)
            timeout = _duration(message.ingest.publisher_timeout)
            return IngestInput(protocol=protocol, publisher_timeout=timeout, duration=duration)
        case "upload":
            mistakes.add(f"{path}.upload", "must be resolved to a path by the balancer.")
        case _:
            mistakes.add(path, "must have one source: uri or ingest.")
    return None


def _rendition(message: media_pb2.Rendition, path: str, mistakes: Mistakes) -> Rendition | None:
    if not message.id:
        mistakes.add(f"{path}.id", "must be filled in.")
    video: VideoEncoding | VideoPassthrough | None = None
    match message.WhichOneof("video"):
        case "encode":
            video = _encoding(message.encode, f"{path}.encode", mistakes)
        case "passthrough":
            video = VideoPassthrough()
        case _:
            pass
    audio = _audio(message.audio, f"{path}.audio", mistakes)
    return None if audio is None else Rendition(id=message.id, video=video, audio=audio)


def _encoding(message: media_pb2.VideoEncoding, path: str, mistakes: Mistakes) -> VideoEncoding | None:
    codec = _CODECS.get(message.codec or media_pb2.VIDEO_CODEC_H264)
    if codec not in _ENCODED:
        mistakes.add(f"{path}.codec", "must be H.264, HEVC or AV1.")
    fit = mistakes.choose(_FITS, message.fit, f"{path}.fit")
    speed = mistakes.choose(_SPEEDS, message.speed, f"{path}.speed")
    if codec is None or fit is None or speed is None:
        return None
    rate = message.WhichOneof("rate_control")
    defaults = VideoEncoding()
    return VideoEncoding(
        codec=codec,
        width=message.width if message.HasField("width") else None,
        height=message.height if message.HasField("height") else None,
        fit=fit,
        frame_rate=_frame_rate(message.frame_rate) if message.HasField("frame_rate") else None,
        bit_rate_bps=message.bit_rate_bps if rate == "bit_rate_bps" else None,
        quality=message.quality if rate == "quality" else None,
        max_bit_rate_bps=message.max_bit_rate_bps if message.HasField("max_bit_rate_bps") else None,
        keyframe_interval=(
            _duration(message.keyframe_interval)
            if message.HasField("keyframe_interval")
            else defaults.keyframe_interval
        ),
        bit_depth=message.bit_depth if message.HasField("bit_depth") else defaults.bit_depth,
        speed=speed,
        low_latency=message.low_latency,
    )


def _audio(message: media_pb2.AudioRendition, path: str, mistakes: Mistakes) -> AudioRendition | None:
    codec = mistakes.choose(_AUDIO_CODECS, message.codec, f"{path}.codec")
    if codec is None:
        return None
    defaults = AudioRendition()
    return AudioRendition(
        codec=codec,
        bit_rate_bps=message.bit_rate_bps if message.HasField("bit_rate_bps") else defaults.bit_rate_bps,
        channels=message.channels if message.HasField("channels") else None,
        sample_rate_hz=message.sample_rate_hz if message.HasField("sample_rate_hz") else defaults.sample_rate_hz,
    )


def _outputs(messages: Iterable[media_pb2.Output], path: str, mistakes: Mistakes) -> tuple[JobOutput, ...]:
    made = [_output(message, f"{path}[{index}]", index, mistakes) for index, message in enumerate(messages)]
    return tuple(output for output in made if output is not None)


def _output(message: media_pb2.Output, path: str, index: int, mistakes: Mistakes) -> JobOutput | None:
    name = message.id or f"output-{index + 1}"
    renditions = tuple(message.renditions)
    match message.WhichOneof("kind"):
        case "file":
            container = _container(message.file, f"{path}.file", mistakes)
            if container is None:
                return None
            overwrite = message.file.overwrite
            return FileOutput(
                id=name, path=message.file.path, container=container, overwrite=overwrite, renditions=renditions
            )
        case "hls":
            return _hls(message.hls, name, renditions, f"{path}.hls", mistakes)
        case "push":
            return PushOutput(id=name, url=message.push.url, renditions=renditions)
        case _:
            mistakes.add(path, "must have one kind: file, hls or push.")
    return None


def _container(message: media_pb2.FileOutput, path: str, mistakes: Mistakes) -> Container | None:
    if message.container != media_pb2.CONTAINER_UNSPECIFIED:
        return mistakes.choose(_CONTAINERS, message.container, f"{path}.container")
    found = re.search(r"\.[A-Za-z0-9]+$", message.path)
    container = _EXTENSIONS.get(found[0].lower()) if found else None
    if container is None:
        mistakes.add(f"{path}.path", "does not tell the container. Try .mp4, .mkv or .ts, or name it.")
    return container


def _hls(
    message: media_pb2.HlsOutput, name: str, renditions: tuple[str, ...], path: str, mistakes: Mistakes
) -> HlsOutput | None:
    segments = mistakes.choose(_SEGMENTS, message.segment_format, f"{path}.segment_format")
    if segments is None:
        return None
    length = _duration(message.segment_duration) if message.HasField("segment_duration") else timedelta(seconds=4)
    return HlsOutput(
        id=name,
        path=message.path,
        segment_format=segments,
        segment_duration=length,
        dvr_window=_duration(message.dvr_window) if message.HasField("dvr_window") else None,
        renditions=renditions,
    )


def _frame_rate(message: media_pb2.FrameRate) -> FrameRate | None:
    if message.numerator == 0 or message.denominator == 0:
        return None
    return FrameRate(numerator=message.numerator, denominator=message.denominator)


def _duration(message: Duration) -> timedelta:
    return message.ToTimedelta()
