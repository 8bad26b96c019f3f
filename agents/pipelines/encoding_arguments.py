"""The outputs of a command: which streams are mapped, and how each of them is encoded."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from agents.pipelines.audio_encoders import audio_options
from agents.pipelines.capture_input import frame_stretch, rate_text
from agents.pipelines.ffmpeg_features import features_of
from agents.pipelines.formats import wants_hvc1
from agents.pipelines.input_options import is_live
from agents.pipelines.job import AudioCodec, CaptureInput
from agents.pipelines.muxers import plain_arguments, tee_arguments
from agents.pipelines.streams import AudioStream, VideoStream
from agents.pipelines.video_encoders import EncoderSituation, encoder_options, unfelt_peak_bps
from agents.pipelines.video_filters import Branch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.coders import Coders
    from agents.pipelines.job import Job, VideoEncoding
    from agents.pipelines.muxers import Muxer
    from agents.pipelines.streams import Stream
    from agents.pipelines.video_encoders import Options

_UNKNOWN_PIXELS = 1280 * 720


def branches_of(used: tuple[Stream, ...], coders: Coders) -> tuple[Branch, ...]:
    """Gives the way of each encoded video through the filter graph."""
    return tuple(
        Branch(
            label=stream_label(stream),
            encoding=stream.encoding,
            encoder=coders.encoders[stream.rendition],
            scaler_blackens=coders.build.scaler_blackens,
        )
        for stream in used
        if isinstance(stream, VideoStream) and stream.encoding is not None
    )


def stream_label(video: VideoStream) -> str:
    """Names the pad of the filter graph from which a video's encoder takes its pictures."""
    return f"v-{video.rendition}"


def encoder_threads(branches: tuple[Branch, ...], job: Job, device: PipelineDevice) -> Mapping[str, int]:
    """Shares the cores among encoders by their pixels: more threads than cores only cost time and compression."""
    pixels = {branch.label: _pixels(branch.encoding, job) for branch in branches}
    total = sum(pixels.values())
    return {label: max(1, math.ceil(device.core_count * count / total)) for label, count in pixels.items()}


def _pixels(encoding: VideoEncoding, job: Job) -> int:
    facts = job.facts
    whole = (facts.width or 0) * (facts.height or 0) or _UNKNOWN_PIXELS
    width, height = encoding.width, encoding.height
    if width is not None and height is not None:
        return width * height
    if height is not None:
        return height * height * whole // (facts.height or 720) ** 2 or 1
    if width is not None:
        return width * width * whole // (facts.width or 1280) ** 2 or 1
    return whole


def output_arguments(
    group: tuple[Muxer, ...],
    job: Job,
    coders: Coders,
    threads: Mapping[str, int],
    *,
    further: Mapping[str, Options] | None = None,
) -> list[str]:
    """Writes an output of ffmpeg's own, from its maps to its path.

    Args:
        group: The muxers that share it.
        job: The job.
        coders: What encodes.
        threads: Threads of each video's encoder, by label.
        further: Options of videos beyond those of their encoding, by label. None: there are none.

    Returns:
        Its arguments.
    """
    streams = ordered_streams(group)
    arguments: list[str] = []
    for stream in streams:
        arguments += ["-map", _mapped(stream, job)]
    video_index = audio_index = 0
    for stream in streams:
        if isinstance(stream, VideoStream):
            options = _video_options(stream, group, job, coders, threads)
            options += (further or {}).get(stream_label(stream), ())
            arguments += _of_stream(options, f"v:{video_index}")
            video_index += 1
        else:
            arguments += _of_stream(_audio_options(stream, job), f"a:{audio_index}")
            audio_index += 1
    arguments += ["-map_chapters", "-1"]
    return [*arguments, *(plain_arguments(group[0]) if len(group) == 1 else tee_arguments(group, streams))]


def ordered_streams(group: tuple[Muxer, ...]) -> tuple[Stream, ...]:
    """Gives the streams of an output, each once, in the order in which they are mapped: video first."""
    streams = dict.fromkeys(stream for muxer in group for stream in muxer.streams)
    video = [stream for stream in streams if isinstance(stream, VideoStream)]
    return (*video, *(stream for stream in streams if isinstance(stream, AudioStream)))


def _mapped(stream: Stream, job: Job) -> str:
    if isinstance(stream, VideoStream):
        # V: a cover picture is no video.
        return "0:V:0" if stream.encoding is None else f"[{stream_label(stream)}]"
    return "0:a:0" if job.facts.has_audio else "0:a:0?"


def _video_options(
    stream: VideoStream, group: tuple[Muxer, ...], job: Job, coders: Coders, threads: Mapping[str, int]
) -> Options:
    holders = [muxer.format for muxer in group if stream in muxer.streams]
    tag: Options = (("tag", "hvc1"),) if wants_hvc1(stream, job.facts, tuple(holders)) else ()
    if stream.encoding is None:
        return (("c", "copy"), *tag)
    situation = EncoderSituation(
        frame_rate=stream.encoding.frame_rate or job.facts.frame_rate,
        thread_count=threads[stream_label(stream)],
        field=f"renditions[{[one.id for one in job.renditions].index(stream.rendition)}].encode",
        crash_safe=isinstance(job.input, CaptureInput),
    )
    encoding = stream.encoding
    # Of a variant whose rate is not known a master playlist says nothing before the end; a live one has none.
    live = is_live(job.input, job.facts)
    if "hls" in holders and (live or not features_of(coders.build.version).measured_hls_bandwidth):
        encoding = _bounded(encoding, situation, job)
    options = encoder_options(coders.encoders[stream.rendition].implementation, encoding, situation)
    return (*options, *_timing(stream.encoding, job), *tag)


def _timing(encoding: VideoEncoding, job: Job) -> Options:
    if isinstance(job.input, CaptureInput):
        # The grabber leaves out pictures that it is too late for: others stand in for them. See `capture_filters`, too.
        return (("fps_mode", "cfr"), ("r", rate_text(encoding.frame_rate or job.input.frame_rate)))
    # Frames keep their times; without this, tee would have missing ones made up and close ones left out.
    return (("fps_mode", "vfr"),)


def _bounded(encoding: VideoEncoding, situation: EncoderSituation, job: Job) -> VideoEncoding:
    if encoding.bit_rate_bps is not None or encoding.max_bit_rate_bps is not None:
        return encoding
    peak = unfelt_peak_bps(encoding, pixels=_pixels(encoding, job), frame_rate=situation.frame_rate)
    return replace(encoding, max_bit_rate_bps=peak)


def _audio_options(stream: AudioStream, job: Job) -> Options:
    if stream.audio.codec is AudioCodec.COPY:
        return (("c", "copy"),)
    index = next(place for place, one in enumerate(job.renditions) if one.audio == stream.audio)
    if not isinstance(job.input, CaptureInput):
        return audio_options(stream.audio, field=f"renditions[{index}].audio")
    seen = any(rendition.video is not None for rendition in job.renditions)
    stretch = frame_stretch(job.input.frame_rate) if seen else Fraction(1)
    delay = job.input.sound_delay
    return audio_options(stream.audio, field=f"renditions[{index}].audio", captured_delay=delay, stretch=stretch)


def _of_stream(options: Options, specifier: str) -> list[str]:
    return [text for name, value in options for text in (f"-{name}:{specifier}", value)]
