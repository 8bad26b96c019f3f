"""From a job and a device to the command that does it: one ffmpeg, which decodes once and encodes each stream once."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from agents.pipelines.audio_encoders import audio_options
from agents.pipelines.coders import choose_coders
from agents.pipelines.command import Command
from agents.pipelines.ffmpeg_features import features_of
from agents.pipelines.formats import wants_hvc1
from agents.pipelines.holding import hold_of
from agents.pipelines.input_options import input_arguments
from agents.pipelines.job import AudioCodec, PushOutput, UriInput
from agents.pipelines.muxers import plain_arguments, tee_arguments, tee_text
from agents.pipelines.outputs import plan_outputs
from agents.pipelines.streams import AudioStream, VideoStream, is_encoded, streams_of
from agents.pipelines.video_encoders import EncoderSituation, encoder_options, unfelt_peak_bps
from agents.pipelines.video_filters import Branch, FrameSource, filter_graph
from gpu_balancer.runtime.redaction import url_secrets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.coders import Coders
    from agents.pipelines.job import Job, VideoEncoding
    from agents.pipelines.muxers import Muxer
    from agents.pipelines.streams import Stream
    from agents.pipelines.video_encoders import Options

# -nostats: the progress file tells the same for programs. Warnings are kept because they explain what fails later.
_GENERAL = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+warning")
# Seconds between reports. What may be held at a speed tells more often how far it is.
_REPORTED_EVERY, _HELD_REPORTED_EVERY = "1", "0.1"
_DEVICE = ("-init_hw_device", "cuda=gpu:0", "-filter_hw_device", "gpu")
_DECODING_ON_DEVICE = ("-hwaccel", "cuda", "-hwaccel_device", "gpu", "-hwaccel_output_format", "cuda")
# Surfaces for frames that wait between decoder and scaler, besides those that the format itself keeps.
_DEVICE_SURFACES = ("-extra_hw_frames", "8", "-threads", "1")
_MOST_DECODER_THREADS = 16
_UNKNOWN_PIXELS = 1280 * 720


def build_command(
    job: Job, device: PipelineDevice, *, artifacts_dir: str, progress_path: str, ingest_url: str | None = None
) -> Command:
    """Builds the command that does a job on a device.

    Args:
        job: The job.
        device: What it is to run on, and what that was proved to do.
        artifacts_dir: Absolute path of the folder for outputs with relative paths; the attempt's own.
        progress_path: Absolute path of the file to which ffmpeg writes how far it is.
        ingest_url: Where the publisher comes, as the publisher is told it. None unless the input is an ingest.

    Returns:
        The command. `-y` is in it: part paths and artifacts belong to one attempt only, and whether a file may be
        replaced is decided by the output moves.

    Raises:
        PipelineError: When the job cannot be done, by this device or by any.
    """
    coders = choose_coders(job, device)
    streams = streams_of(job)
    outputs = plan_outputs(job, streams, features_of(coders.build.version), artifacts_dir=artifacts_dir)
    used = tuple(dict.fromkeys(stream for group in outputs.groups for muxer in group for stream in muxer.streams))
    branches = _branches(used, coders)
    source = _frame_source(branches, coders, device)
    threads = _encoder_threads(branches, job, device)
    on_device = source is not FrameSource.MEMORY
    graph = filter_graph(branches, source=source, source_bit_depth=job.facts.bit_depth) if branches else None
    period = _REPORTED_EVERY if hold_of(job) is None else _HELD_REPORTED_EVERY
    argv: list[str] = [coders.build.path, *_GENERAL, "-stats_period", period, "-y", "-progress", progress_path]
    argv += _DEVICE if on_device else ()
    argv += _decoding(source, device, decoded=bool(branches))
    argv += input_arguments(job.input, ingest_url=ingest_url, untagged=_untagged(outputs.groups))
    if graph is not None:
        argv += ["-filter_complex_threads", str(min(device.core_count, _MOST_DECODER_THREADS))]
        argv += ["-filter_complex", graph]
    for group in outputs.groups:
        argv += _output(group, job, coders, threads)
    return Command(
        argv=tuple(argv),
        env=_environment(device, coders),
        directories=outputs.directories,
        output_moves=outputs.moves,
        secrets=_secrets(job, ingest_url),
    )


def _branches(used: tuple[Stream, ...], coders: Coders) -> tuple[Branch, ...]:
    return tuple(
        Branch(label=_label(stream), encoding=stream.encoding, encoder=coders.encoders[stream.rendition])
        for stream in used
        if isinstance(stream, VideoStream) and stream.encoding is not None
    )


def _untagged(groups: tuple[tuple[Muxer, ...], ...]) -> tuple[str, ...]:
    """Kinds of streams that are copied to several muxers at once."""
    copied = [stream for group in groups for stream in _ordered(group) if len(group) > 1 and not is_encoded(stream)]
    return tuple(dict.fromkeys("v" if isinstance(stream, VideoStream) else "a" for stream in copied))


def _label(video: VideoStream) -> str:
    return f"v-{video.rendition}"


def _frame_source(branches: tuple[Branch, ...], coders: Coders, device: PipelineDevice) -> FrameSource:
    if device.kind == "nvidia" and branches:
        if coders.hardware_decode:
            return FrameSource.DEVICE
        if any(branch.encoder.hardware for branch in branches):
            return FrameSource.UPLOADED
    return FrameSource.MEMORY


def _decoding(source: FrameSource, device: PipelineDevice, *, decoded: bool) -> tuple[str, ...]:
    if source is FrameSource.DEVICE:
        return (*_DECODING_ON_DEVICE, *_DEVICE_SURFACES)
    return ("-threads", str(min(device.core_count, _MOST_DECODER_THREADS))) if decoded else ()


def _encoder_threads(branches: tuple[Branch, ...], job: Job, device: PipelineDevice) -> Mapping[str, int]:
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


def _output(group: tuple[Muxer, ...], job: Job, coders: Coders, threads: Mapping[str, int]) -> list[str]:
    streams = _ordered(group)
    arguments: list[str] = []
    for stream in streams:
        arguments += ["-map", _mapped(stream, job)]
    video_index = audio_index = 0
    for stream in streams:
        if isinstance(stream, VideoStream):
            options = _video_options(stream, group, job, coders, threads)
            arguments += _of_stream(options, f"v:{video_index}")
            video_index += 1
        else:
            arguments += _of_stream(_audio_options(stream, job), f"a:{audio_index}")
            audio_index += 1
    arguments += ["-map_chapters", "-1"]
    return [*arguments, *(plain_arguments(group[0]) if len(group) == 1 else tee_arguments(group, streams))]


def _ordered(group: tuple[Muxer, ...]) -> tuple[Stream, ...]:
    streams = dict.fromkeys(stream for muxer in group for stream in muxer.streams)
    video = [stream for stream in streams if isinstance(stream, VideoStream)]
    return (*video, *(stream for stream in streams if isinstance(stream, AudioStream)))


def _mapped(stream: Stream, job: Job) -> str:
    if isinstance(stream, VideoStream):
        # V: a cover picture is no video.
        return "0:V:0" if stream.encoding is None else f"[{_label(stream)}]"
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
        thread_count=threads[_label(stream)],
        field=f"renditions[{[one.id for one in job.renditions].index(stream.rendition)}].encode",
    )
    encoding = stream.encoding
    if "hls" in holders and not features_of(coders.build.version).measured_hls_bandwidth:
        encoding = _bounded(encoding, situation, job)
    options = encoder_options(coders.encoders[stream.rendition].implementation, encoding, situation)
    # Frames keep their times; without this, tee would have missing ones made up and close ones left out.
    return (*options, ("fps_mode", "vfr"), *tag)


def _bounded(encoding: VideoEncoding, situation: EncoderSituation, job: Job) -> VideoEncoding:
    if encoding.bit_rate_bps is not None or encoding.max_bit_rate_bps is not None:
        return encoding
    peak = unfelt_peak_bps(encoding, pixels=_pixels(encoding, job), frame_rate=situation.frame_rate)
    return replace(encoding, max_bit_rate_bps=peak)


def _audio_options(stream: AudioStream, job: Job) -> Options:
    if stream.audio.codec is AudioCodec.COPY:
        return (("c", "copy"),)
    index = next(place for place, one in enumerate(job.renditions) if one.audio == stream.audio)
    return audio_options(stream.audio, field=f"renditions[{index}].audio")


def _of_stream(options: Options, specifier: str) -> list[str]:
    return [text for name, value in options for text in (f"-{name}:{specifier}", value)]


def _environment(device: PipelineDevice, coders: Coders) -> dict[str, str]:
    # By UUID: CUDA's numbers are not NVML's. The GPU is then number 0, the only one that ffmpeg sees.
    environment = {"CUDA_VISIBLE_DEVICES": device.id} if device.kind == "nvidia" else {}
    if any(encoder.implementation == "libsvtav1" for encoder in coders.encoders.values()):
        environment["SVT_LOG"] = "2"  # warnings; it writes past ffmpeg's levels
    return environment


def _secrets(job: Job, ingest_url: str | None) -> tuple[str, ...]:
    urls = [output.url for output in job.outputs if isinstance(output, PushOutput)]
    urls += [job.input.uri] if isinstance(job.input, UriInput) else []
    urls += [ingest_url] if ingest_url else []
    found = [secret for url in urls for secret in url_secrets(url)]
    shown = dict.fromkeys(form for secret in found for form in (secret, tee_text(secret)))
    return tuple(sorted(shown, key=len, reverse=True))
