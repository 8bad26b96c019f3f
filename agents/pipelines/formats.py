"""What each container holds: refused before the start, because ffmpeg does not always refuse.

Into a transport stream it writes what it does not know as private data that nobody can play, and ends with 0. Where it
refuses by itself with a clear message (Vorbis in MP4 of an old ffmpeg, for instance) nothing is repeated here.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, assert_never

from agents.pipelines.job import (
    AudioCodec,
    Container,
    FileOutput,
    HlsOutput,
    HlsSegmentFormat,
    JobOutput,
    PushOutput,
    VideoCodec,
)
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason

if TYPE_CHECKING:
    from agents.pipelines.ffmpeg_features import FfmpegFeatures
    from agents.pipelines.job import InputFacts
    from agents.pipelines.streams import RenditionStreams, VideoStream


class Packing(StrEnum):
    """A way to pack streams, by the name that people know."""

    MP4 = "MP4"
    MKV = "Matroska"
    TS = "an MPEG transport stream"
    FLV = "RTMP"
    HLS_FMP4 = "HLS with fragmented MP4"


_ALL_VIDEO = frozenset(VideoCodec)
_FMP4_VIDEO = frozenset({VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1, VideoCodec.VP9})
_VIDEO: dict[Packing, frozenset[VideoCodec]] = {
    Packing.MP4: _ALL_VIDEO - {VideoCodec.VP8},
    Packing.MKV: _ALL_VIDEO,
    Packing.TS: frozenset({VideoCodec.H264, VideoCodec.HEVC, VideoCodec.MPEG2, VideoCodec.MPEG4}),
    Packing.FLV: _FMP4_VIDEO,
    Packing.HLS_FMP4: _FMP4_VIDEO,
}
_TS_AUDIO = frozenset({"aac", "aac_latm", "mp2", "mp3", "ac3", "eac3", "opus", "dts"})
_FLV_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac"})
_FLV_OLD_AUDIO = frozenset({"aac", "mp3"})
_FMP4_AUDIO = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"})
_AUDIO: dict[Packing, frozenset[str]] = {
    Packing.TS: _TS_AUDIO,
    Packing.FLV: _FLV_AUDIO,
    Packing.HLS_FMP4: _FMP4_AUDIO,
}


def packing_of(output: JobOutput) -> Packing:
    """Tells how an output packs its streams."""
    match output:
        case FileOutput():
            return {Container.MP4: Packing.MP4, Container.MKV: Packing.MKV, Container.TS: Packing.TS}[output.container]
        case HlsOutput():
            return Packing.HLS_FMP4 if output.segment_format is HlsSegmentFormat.FMP4 else Packing.TS
        case PushOutput():
            return Packing.TS if output.url.lower().startswith("srt:") else Packing.FLV
        case _:
            assert_never(output)


def codec_of(video: VideoStream, facts: InputFacts) -> VideoCodec | None:
    """Tells the format of a video stream; None when it is passed through and not known."""
    return facts.video_codec if video.encoding is None else video.encoding.codec


def wants_hvc1(video: VideoStream, facts: InputFacts, format_names: tuple[str, ...]) -> bool:
    """Tells whether HEVC is to be tagged "hvc1", without which Apple's players show nothing and HLS names no codec.

    A stream has one tag wherever it goes, and FLV refuses that one.

    Args:
        video: The stream.
        facts: What is known of the input, for what is passed through.
        format_names: ffmpeg's names of the containers that it goes into.
    """
    hevc = codec_of(video, facts) is VideoCodec.HEVC
    return hevc and "flv" not in format_names and ("mp4" in format_names or "hls" in format_names)


def check_fit(
    index: int,
    output: JobOutput,
    renditions: tuple[RenditionStreams, ...],
    facts: InputFacts,
    features: FfmpegFeatures,
) -> None:
    """Refuses what an output cannot hold.

    Args:
        index: The output's place in the job.
        output: The output.
        renditions: What is to go there.
        facts: What is known of the input, for what is passed through.
        features: What the ffmpeg has.

    Raises:
        PipelineError: When a stream does not fit, or a push is to carry several renditions.
    """
    if isinstance(output, PushOutput) and len(renditions) != 1:
        raise PipelineError(
            reason=PipelineErrorReason.UNSUPPORTED,
            field=f"outputs[{index}].renditions",
            message=f"Cannot push {len(renditions)} renditions to one server. Try one push per rendition.",
        )
    packing = packing_of(output)
    for rendition in renditions:
        codec = codec_of(rendition.video, facts) if rendition.video is not None else None
        if codec is not None:
            needs_enhanced = packing is Packing.FLV and codec is not VideoCodec.H264
            if codec not in _VIDEO[packing] or (needs_enhanced and not features.enhanced_flv):
                raise _misfit(index, codec, packing, "H.264")
        sound = _sound_of(rendition, facts)
        if sound is not None:
            known = _AUDIO.get(packing)
            if packing is Packing.FLV and not features.opus_in_flv:
                known = _FLV_OLD_AUDIO
            if known is not None and sound not in known:
                raise _misfit(index, sound, packing, "AAC")


def _sound_of(rendition: RenditionStreams, facts: InputFacts) -> str | None:
    if rendition.audio is None:
        return None
    codec = rendition.audio.audio.codec
    return facts.audio_codec if codec is AudioCodec.COPY else str(codec)


def _misfit(index: int, codec: str, packing: Packing, instead: str) -> PipelineError:
    return PipelineError(
        reason=PipelineErrorReason.UNSUPPORTED,
        field=f"outputs[{index}]",
        message=f"Cannot put {codec} into {packing}: players would not find it there. Try {instead}, or Matroska.",
    )
