"""The command of one run of a GPU's calibration. Pure.

Encoding is a session's own command, made by the pipelines; decoding and scaling alone, which no session is, are made
here of the same options.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.devices.calibration_plan import (
    ENGINE_SCALED_SIZE,
    ENGINES_SIZE,
    FRAMES_PER_SECOND,
    CalibrationStep,
    Work,
)
from agents.pipelines.command_builder import build_command
from agents.pipelines.job import (
    AudioCodec,
    AudioRendition,
    Container,
    FileOutput,
    FrameRate,
    InputFacts,
    Job,
    Rendition,
    UriInput,
    VideoEncoding,
)

if TYPE_CHECKING:
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.job import VideoCodec

RUN_STATISTICS_S = 0.2
"""How often a run says how far it is."""
_BIT_RATE_BPS = 6_000_000
_ON_DEVICE = ("-init_hw_device", "cuda=gpu:0", "-filter_hw_device", "gpu", "-hwaccel", "cuda", "-hwaccel_device", "gpu")
_KEPT_THERE = ("-hwaccel_output_format", "cuda", "-extra_hw_frames", "8", "-threads", "1")

_NOWHERE = ("-c:v", "wrapped_avframe", "-f", "null", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """One ffmpeg of a calibration."""

    argv: tuple[str, ...]
    env: dict[str, str]
    progress_path: str
    streams: int
    """Streams that it carries; each has as many frames as its progress says."""
    directories: tuple[str, ...] = ()
    discarded: tuple[str, ...] = ()
    """Paths that it writes to and that are to lead nowhere."""


def engine_run(
    step: CalibrationStep, codec: VideoCodec, device: PipelineDevice, *, path: str, folder: str, streams: int
) -> EngineRun:
    """Makes the command of a run, which goes on until it is called off.

    Args:
        step: What it shows.
        codec: Format of the input.
        device: The device, with the one ffmpeg that is measured.
        path: Of the input.
        folder: Of its own.
        streams: How many streams it is to carry.

    Raises:
        PipelineError: When the device cannot do it after all.
    """
    progress = f"{folder}/progress"
    if step.work is Work.ENCODE:
        return _encoding(step, codec, device, path=path, folder=folder, streams=streams)
    statistics = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+warning", "-y")
    told = ("-stats_period", str(RUN_STATISTICS_S), "-progress", progress)
    source = (*_ON_DEVICE, *_KEPT_THERE, "-stream_loop", "-1", "-i", path)
    mapped = ("-map", "0:V:0") if step.work is Work.DECODE else _scaling(streams)
    return EngineRun(
        argv=(device.ffmpeg_builds[0].path, *statistics, *told, *source, *mapped, *_NOWHERE),
        env={"CUDA_VISIBLE_DEVICES": device.id},
        progress_path=progress,
        streams=streams,
    )


def _scaling(streams: int) -> tuple[str, ...]:
    width, height = ENGINE_SCALED_SIZE
    pads = "".join(f"[s{number}]" for number in range(streams))
    chains = [f"[s{n}]scale_cuda=w={width}:h={height}:format=nv12:passthrough=0[o{n}]" for n in range(streams)]
    graph = ";".join([f"[0:V:0]split={streams}{pads}", *chains])
    maps = tuple(text for number in range(streams) for text in ("-map", f"[o{number}]"))
    return ("-filter_complex", graph, *maps)


def _encoding(
    step: CalibrationStep, codec: VideoCodec, device: PipelineDevice, *, path: str, folder: str, streams: int
) -> EngineRun:
    assert step.codec is not None
    assert step.speed is not None
    silent = AudioRendition(codec=AudioCodec.NONE)
    encoding = VideoEncoding(codec=step.codec, speed=step.speed, bit_rate_bps=_BIT_RATE_BPS)
    renditions = tuple(Rendition(id=f"r{number}", video=encoding, audio=silent) for number in range(streams))
    width, height = ENGINES_SIZE
    job = Job(
        session="calibration",
        attempt=1,
        input=UriInput(uri=path, repeat_forever=True),
        facts=InputFacts(
            width=width,
            height=height,
            frame_rate=FrameRate(numerator=FRAMES_PER_SECOND, denominator=1),
            video_codec=codec,
            bit_depth=8,
            chroma="4:2:0",
            has_audio=False,
        ),
        renditions=renditions,
        outputs=tuple(
            FileOutput(id=f"o-{one.id}", path=f"{one.id}.mkv", container=Container.MKV, renditions=(one.id,))
            for one in renditions
        ),
    )
    artifacts = f"{folder}/artifacts"
    command = build_command(job, device, artifacts_dir=artifacts, progress_path=f"{folder}/progress")
    argv = list(command.argv)
    argv[argv.index("-stats_period") + 1] = str(RUN_STATISTICS_S)
    return EngineRun(
        argv=tuple(argv),
        env=dict(command.env),
        progress_path=f"{folder}/progress",
        streams=streams,
        directories=(artifacts, *command.directories),
        discarded=tuple(f"{artifacts}/{one.id}.mkv" for one in renditions),
    )
