"""From a job and a device to the command that does it: one ffmpeg, which decodes once and encodes each stream once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.pipelines.coders import choose_coders
from agents.pipelines.command import Command
from agents.pipelines.encoding_arguments import branches_of, encoder_threads, ordered_streams, output_arguments
from agents.pipelines.ffmpeg_features import features_of
from agents.pipelines.holding import hold_of
from agents.pipelines.input_options import input_arguments, is_live
from agents.pipelines.job import PushOutput, UriInput
from agents.pipelines.muxers import tee_text
from agents.pipelines.outputs import plan_outputs
from agents.pipelines.streams import VideoStream, is_encoded, streams_of
from agents.pipelines.video_filters import Branch, FrameSource, filter_graph
from gpu_balancer.runtime.redaction import url_secrets

if TYPE_CHECKING:
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.coders import Coders
    from agents.pipelines.job import Job
    from agents.pipelines.muxers import Muxer

# -nostats: the progress file tells the same for programs. Warnings are kept because they explain what fails later.
GENERAL_ARGUMENTS = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+warning")
"""Of every ffmpeg."""
# Seconds between reports. What may be held at a speed tells more often how far it is.
_REPORTED_EVERY, _HELD_REPORTED_EVERY = "1", "0.1"
DEVICE_ARGUMENTS = ("-init_hw_device", "cuda=gpu:0", "-filter_hw_device", "gpu")
"""Where filters work in the device's memory."""
_DECODING_ON_DEVICE = ("-hwaccel", "cuda", "-hwaccel_device", "gpu", "-hwaccel_output_format", "cuda")
# Surfaces for frames that wait between decoder and scaler, besides those that the format itself keeps.
_DEVICE_SURFACES = ("-extra_hw_frames", "8", "-threads", "1")
_MOST_DECODER_THREADS = 16


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
    branches = branches_of(used, coders)
    source = _frame_source(branches, coders, device)
    threads = encoder_threads(branches, job, device)
    on_device = source is not FrameSource.MEMORY
    graph = filter_graph(branches, source=source, facts=job.facts) if branches else None
    period = _REPORTED_EVERY if hold_of(job) is None else _HELD_REPORTED_EVERY
    argv: list[str] = [coders.build.path, *GENERAL_ARGUMENTS, "-stats_period", period, "-y", "-progress", progress_path]
    argv += DEVICE_ARGUMENTS if on_device else ()
    argv += _decoding(source, device, decoded=bool(branches))
    argv += input_arguments(
        job.input, ingest_url=ingest_url, live=is_live(job.input, job.facts), untagged=_untagged(outputs.groups)
    )
    if graph is not None:
        argv += ["-filter_complex_threads", str(min(device.core_count, _MOST_DECODER_THREADS))]
        argv += ["-filter_complex", graph]
    for group in outputs.groups:
        argv += output_arguments(group, job, coders, threads)
    return Command(
        argv=tuple(argv),
        env=environment_of(device, coders),
        directories=outputs.directories,
        output_moves=outputs.moves,
        presentations=outputs.presentations,
        files=outputs.files,
        secrets=secrets_of(job, ingest_url),
    )


def _untagged(groups: tuple[tuple[Muxer, ...], ...]) -> tuple[str, ...]:
    """Kinds of streams that are copied to several muxers at once."""
    shared = [stream for group in groups if len(group) > 1 for stream in ordered_streams(group)]
    copied = [stream for stream in shared if not is_encoded(stream)]
    return tuple(dict.fromkeys("v" if isinstance(stream, VideoStream) else "a" for stream in copied))


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


def environment_of(device: PipelineDevice, coders: Coders) -> dict[str, str]:
    """Gives the variables that lead an ffmpeg to its device."""
    # By UUID: CUDA's numbers are not NVML's. The GPU is then number 0, the only one that ffmpeg sees.
    environment = {"CUDA_VISIBLE_DEVICES": device.id} if device.kind == "nvidia" else {}
    if any(encoder.implementation == "libsvtav1" for encoder in coders.encoders.values()):
        environment["SVT_LOG"] = "2"  # warnings; it writes past ffmpeg's levels
    return environment


def secrets_of(job: Job, ingest_url: str | None) -> tuple[str, ...]:
    """Gives what must not be shown of a job's command, longest first."""
    urls = [output.url for output in job.outputs if isinstance(output, PushOutput)]
    urls += [job.input.uri] if isinstance(job.input, UriInput) else []
    urls += [ingest_url] if ingest_url else []
    found = [secret for url in urls for secret in url_secrets(url)]
    shown = dict.fromkeys(form for secret in found for form in (secret, tee_text(secret)))
    return tuple(sorted(shown, key=len, reverse=True))
