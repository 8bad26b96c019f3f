"""Takes: a recording is captured in stretches, each by an ffmpeg of its own that a pause ends and a resume begins.

A take is a job like any other whose input is the display. What differs is that a file is written to a hidden place of
the take's, so that it can be cut off at any moment, and becomes what was asked for when the takes are joined (see
`recording_files`). HLS goes where it was asked for and goes on in the next take; a push is pushed again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.capture_filters import LATER_OF_TWO_LEFT_OUT, capture_graph, filter_text, takes_rgb
from agents.pipelines.capture_input import capture_arguments
from agents.pipelines.coders import choose_coders
from agents.pipelines.command import Command
from agents.pipelines.command_builder import DEVICE_ARGUMENTS, GENERAL_ARGUMENTS, environment_of, secrets_of
from agents.pipelines.encoding_arguments import branches_of, encoder_threads, output_arguments
from agents.pipelines.ffmpeg_features import features_of
from agents.pipelines.held_command import GRAPH_OPTION
from agents.pipelines.job import (
    AudioCodec,
    CaptureInput,
    FileOutput,
    InputFacts,
    Job,
    Rendition,
    VideoEncoding,
    VideoPassthrough,
)
from agents.pipelines.outputs import plan_outputs
from agents.pipelines.pipeline_error import PipelineError, PipelineErrorReason
from agents.pipelines.recording_files import take_file
from agents.pipelines.streams import streams_of

if TYPE_CHECKING:
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.coders import Coders
    from agents.pipelines.job import JobOutput
    from agents.pipelines.recording import Capture, RecordingJob
    from agents.pipelines.video_encoders import Options
    from agents.pipelines.video_filters import Branch

LONGEST_KEYFRAME_INTERVAL = timedelta(seconds=2)
"""Of a recording, whatever is asked: that much a cut-off file may lose, and a viewer may wait for when seeking."""
FRAME_LINE_FORMAT = "{n} {ni} {t} {ti}"
"""Of the lines about encoded pictures, see `frame_lines`."""

_REPORTED_EVERY = "0.2"
_PIXELS_PER_THREAD_AND_SECOND = 1920 * 1080 * 60
_MOST_FILTER_THREADS = 8
_SILENT_BELOW, _SILENT_FOR = "-50dB", "1"


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplayAccess:
    """How to look at a display and hear it."""

    name: str
    """As X clients know it, ":7"."""
    capture_name: str | None = None
    """As who records it knows it, where pictures that are about to be drawn are waited for. None: by its name."""
    authority: str
    """Absolute path of the file with its cookie."""
    sound_server: str | None
    """PulseAudio address. None: it has no sound."""
    sound_source: str
    """What is recorded of the sound server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakePlaces:
    """Where a take writes. Absolute paths."""

    artifacts_dir: str
    """Folder for outputs with relative paths."""
    progress: str
    """File of how far it is, see `progress`."""
    frames: str
    """File with a line for each encoded picture, see `frame_lines`. An ffmpeg older than 6 does not write it."""
    silence: str
    """File of when it is silent, see `stillness`. Written only when the recording ends on silence."""
    idleness: str
    """File of when the picture stands still, see `stillness`. Written only when the recording ends on idleness."""


def capture_facts(capture: Capture) -> InputFacts:
    """Tells what a display is as an input: raw pictures, which need no decoder, and raw sound."""
    return InputFacts(
        width=capture.width,
        height=capture.height,
        frame_rate=capture.frame_rate,
        bit_depth=8,
        chroma="rgb",
        has_audio=capture.sound,
    )


def build_take(
    job: RecordingJob,
    device: PipelineDevice,
    access: DisplayAccess,
    places: TakePlaces,
    *,
    number: int,
    sound_delay: timedelta = timedelta(),
    resumed_at: timedelta = timedelta(),
) -> Command:
    """Builds the command that captures one take on a device.

    Args:
        job: The recording.
        device: What it is to run on, and what that was proved to do.
        access: The display; it is as large as the capture, and has sound when the capture has.
        places: Where it writes.
        number: Of the take, from 1.
        sound_delay: By how much sound reaches the capture before its picture; negative: after it.
        resumed_at: Where on the timeline of HLS it goes on with what there is.

    Returns:
        The command. Ended by SIGTERM, it completes what it writes. It has no output moves: see `recording_files`.

    Raises:
        PipelineError: When it cannot be recorded, by this device or by any.
    """
    asked = replace(_take_job(job, access, number, sound_delay), resumed_at=resumed_at)
    assert isinstance(asked.input, CaptureInput)
    coders = choose_coders(asked, device)
    features = features_of(coders.build.version)
    outputs = plan_outputs(asked, streams_of(asked), features, artifacts_dir=places.artifacts_dir)
    used = tuple(dict.fromkeys(stream for group in outputs.groups for muxer in group for stream in muxer.streams))
    branches = branches_of(used, coders)
    argv = [coders.build.path, *GENERAL_ARGUMENTS, "-stats_period", _REPORTED_EVERY, "-y", "-progress", places.progress]
    argv += _device_arguments(branches, asked.input, job)
    argv += LATER_OF_TWO_LEFT_OUT if branches else ()
    argv += capture_arguments(asked.input, pictures=bool(branches))
    argv += _picture_arguments(branches, asked.input, job, places, device)
    threads = encoder_threads(branches, asked, device)
    truth = _frame_truth(branches, asked.input, places) if features.encoder_stats else {}
    for group in outputs.groups:
        argv += output_arguments(group, asked, coders, threads, further=truth)
    argv += _silence_watch(job, places)
    return Command(
        argv=tuple(argv),
        env={**environment_of(device, coders), **display_environment(access)},
        directories=outputs.directories,
        presentations=outputs.presentations,
        may_be_held=bool(branches) and features.options_from_files,
        secrets=secrets_of(asked, None),
    )


def display_environment(access: DisplayAccess) -> dict[str, str]:
    """Gives the variables by which a program reaches a display and its sound."""
    sound = {"PULSE_SERVER": access.sound_server} if access.sound_server is not None else {}
    return {"XAUTHORITY": access.authority, **sound}


def recording_coders(job: RecordingJob, device: PipelineDevice) -> Coders:
    """Chooses the ffmpeg and the encoders of a recording, which needs no display yet.

    Raises:
        PipelineError: When no ffmpeg of the device has them all.
    """
    nowhere = DisplayAccess(name=":0", authority="/", sound_server=None, sound_source="")
    return choose_coders(_take_job(job, nowhere, 1, timedelta()), device)


def _take_job(job: RecordingJob, access: DisplayAccess, number: int, sound_delay: timedelta) -> Job:
    capture = job.capture
    return Job(
        session=job.session,
        attempt=job.attempt,
        input=CaptureInput(
            display=access.capture_name or access.name,
            width=capture.width,
            height=capture.height,
            frame_rate=capture.frame_rate,
            show_cursor=capture.show_cursor,
            sound_source=access.sound_source if capture.sound else None,
            sound_delay=sound_delay,
            take=number,
        ),
        facts=capture_facts(capture),
        renditions=tuple(_captured(index, rendition) for index, rendition in enumerate(job.renditions)),
        outputs=tuple(_hidden(index, output, number) for index, output in enumerate(job.outputs)),
        allow_software_encode=job.allow_software_encode,
        continues=job.continues,
    )


def _captured(index: int, rendition: Rendition) -> Rendition:
    """Bounds a rendition's keyframe interval; refuses what there is nothing of to be passed through."""
    if isinstance(rendition.video, VideoPassthrough) or rendition.audio.codec is AudioCodec.COPY:
        raise PipelineError(
            reason=PipelineErrorReason.UNSUPPORTED,
            field=f"renditions[{index}]",
            message="Cannot pass a display's picture or sound through: it is raw. Try a rendition that encodes it.",
        )
    if not isinstance(rendition.video, VideoEncoding):
        return rendition
    interval = min(rendition.video.keyframe_interval, LONGEST_KEYFRAME_INTERVAL)
    return replace(rendition, video=replace(rendition.video, keyframe_interval=interval))


def _hidden(index: int, output: JobOutput, number: int) -> JobOutput:
    if not isinstance(output, FileOutput):
        return output
    return replace(output, path=take_file(index, output.container, number), overwrite=True)


def _device_arguments(branches: tuple[Branch, ...], capture: CaptureInput, job: RecordingJob) -> tuple[str, ...]:
    """Tells of the device where filters work on it. NVENC alone finds it by itself."""
    on_device = any(branch.encoder.hardware for branch in branches)
    return DEVICE_ARGUMENTS if on_device and not takes_rgb(branches, capture, job.watermark) else ()


def _picture_arguments(
    branches: tuple[Branch, ...],
    capture: CaptureInput,
    job: RecordingJob,
    places: TakePlaces,
    device: PipelineDevice,
) -> tuple[str, ...]:
    """Writes what lies between the display and the encoders: the watermark's input and the filter graph."""
    idle_events = places.idleness if job.stop_rules.idle else None
    if not branches:
        if idle_events is not None:
            raise PipelineError(
                reason=PipelineErrorReason.UNSUPPORTED,
                field="stop_rules.idle",
                message="Cannot watch the picture: the recording is of sound alone. Try ending it on silence.",
            )
        return ()
    mark: tuple[str, ...] = ()
    if job.watermark is not None:
        # Said to be a file: a name with ":" in it would be taken for another protocol.
        opened = ("-protocol_whitelist", "file", "-format_whitelist", "png_pipe,jpeg_pipe")
        mark = (*opened, "-i", f"file:{job.watermark.path}")
    graph = capture_graph(branches, capture, watermark=job.watermark, idle_events=idle_events)
    threads = str(_filter_threads(capture, device))
    return (*mark, "-filter_complex_threads", threads, GRAPH_OPTION, graph)


def _filter_threads(capture: CaptureInput, device: PipelineDevice) -> int:
    """As few as keep up: each further thread costs more than it helps."""
    pace = capture.width * capture.height * capture.frame_rate.numerator / capture.frame_rate.denominator
    return min(max(1, math.ceil(pace / _PIXELS_PER_THREAD_AND_SECOND)), device.core_count, _MOST_FILTER_THREADS)


def _frame_truth(branches: tuple[Branch, ...], capture: CaptureInput, places: TakePlaces) -> dict[str, Options]:
    """Has the pictures of one rendition written down: of the first of the capture's own rate, else of the first."""
    whole = [branch for branch in branches if branch.encoding.frame_rate in (None, capture.frame_rate)]
    chosen = [*whole, *branches][:1]
    told: Options = (("stats_enc_pre", places.frames), ("stats_enc_pre_fmt", FRAME_LINE_FORMAT))
    return {branch.label: told for branch in chosen}


def _silence_watch(job: RecordingJob, places: TakePlaces) -> tuple[str, ...]:
    """Writes an output to nowhere that tells when it is silent."""
    if not (job.stop_rules.silence and job.capture.sound):
        return ()
    heard = f"silencedetect=n={_SILENT_BELOW}:d={_SILENT_FOR}"
    told = f"ametadata=mode=print:file={filter_text(places.silence)}:direct=1"
    return ("-map", "0:a:0", "-filter:a", f"{heard},{told}", "-c:a", "pcm_s16le", "-f", "null", "-")
