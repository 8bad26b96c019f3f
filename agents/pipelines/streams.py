"""The streams that a job makes, each once, however many outputs it goes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.pipelines.job import AudioCodec, AudioRendition, Rendition, VideoEncoding
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason

if TYPE_CHECKING:
    from agents.pipelines.job import Job, JobOutput


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoStream:
    """The video of one rendition."""

    rendition: str
    """Id of the rendition. Two renditions are two streams, even when they ask for the same."""
    encoding: VideoEncoding | None
    """None: passed through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioStream:
    """One distinct setting of sound; renditions that ask for the same share it."""

    audio: AudioRendition


Stream = VideoStream | AudioStream


@dataclass(frozen=True, slots=True, kw_only=True)
class RenditionStreams:
    """What a rendition consists of; at least one of the two."""

    rendition: Rendition
    video: VideoStream | None
    audio: AudioStream | None


def is_encoded(stream: Stream) -> bool:
    """Tells whether a stream costs work, so that it should be made only once."""
    if isinstance(stream, VideoStream):
        return stream.encoding is not None
    return stream.audio.codec is not AudioCodec.COPY


def streams_of(job: Job) -> dict[str, RenditionStreams]:
    """Tells which streams each rendition consists of.

    An input of which it is unknown whether it has sound is taken to have some: nearly all have, and where that is
    wrong a file simply gets none (an HLS presentation, which must know, fails and says so). Silently leaving out sound
    that is there would be worse.

    Args:
        job: The job.

    Returns:
        By rendition id.

    Raises:
        PipelineError: When a rendition would consist of nothing.
    """
    return {rendition.id: _streams(index, rendition, job) for index, rendition in enumerate(job.renditions)}


def output_streams(index: int, output: JobOutput, streams: dict[str, RenditionStreams]) -> tuple[RenditionStreams, ...]:
    """Gives the renditions that go to an output, in the output's order.

    Args:
        index: The output's place in the job, for errors.
        output: The output.
        streams: Of every rendition.

    Raises:
        PipelineError: When it names a rendition that is not there.
    """
    chosen = []
    for name in output.renditions or tuple(streams):
        if name not in streams:
            raise PipelineError(
                reason=PipelineErrorReason.UNSUPPORTED,
                field=f"outputs[{index}].renditions",
                message=f'Cannot send rendition "{name}" to an output: there is none of that id. '
                f"Try one of {', '.join(streams)}.",
            )
        if streams[name] not in chosen:
            chosen.append(streams[name])
    return tuple(chosen)


def _streams(index: int, rendition: Rendition, job: Job) -> RenditionStreams:
    video = None
    if rendition.video is not None:
        encoding = rendition.video if isinstance(rendition.video, VideoEncoding) else None
        video = VideoStream(rendition=rendition.id, encoding=encoding)
    audible = job.facts.has_audio is not False and rendition.audio.codec is not AudioCodec.NONE
    audio = AudioStream(audio=_distinct(rendition.audio)) if audible else None
    if video is None and audio is None:
        silent = job.facts.has_audio is False
        raise PipelineError(
            reason=PipelineErrorReason.INPUT_INVALID if silent else PipelineErrorReason.UNSUPPORTED,
            field=f"renditions[{index}]",
            message=f'Cannot make rendition "{rendition.id}": it has no video, '
            + ("and the input has no sound." if silent else "and no sound is asked for.")
            + " Try a rendition with video.",
        )
    return RenditionStreams(rendition=rendition, video=video, audio=audio)


def _distinct(audio: AudioRendition) -> AudioRendition:
    """Strips what does not matter to sound that is copied, so that all copies are one stream."""
    return AudioRendition(codec=AudioCodec.COPY) if audio.codec is AudioCodec.COPY else audio
