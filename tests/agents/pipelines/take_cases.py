"""Recordings for tests of takes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from pipeline_cases import NONE, OPUS, SECOND, mp4
from pipeline_devices import NEW_FFMPEG, OLD_FFMPEG, ada, cpu, hopper

from agents.pipelines.job import (
    Container,
    FileOutput,
    FrameRate,
    HlsOutput,
    PushOutput,
    Rendition,
    VideoCodec,
    VideoEncoding,
)
from agents.pipelines.recording import Capture, Corner, PageSource, RecordingJob, StartGate, StopRules, Watermark
from agents.pipelines.takes import DisplayAccess, TakePlaces

if TYPE_CHECKING:
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.job import JobOutput

ACCESS = DisplayAccess(
    name=":7", authority="/run/d7/authority", sound_server="unix:/run/d7/sound", sound_source="output.monitor"
)
PLACES = TakePlaces(
    artifacts_dir="/session/artifacts",
    progress="/session/progress",
    frames="/session/frames",
    silence="/session/silence",
    idleness="/session/idleness",
)
HALF_RATE = FrameRate(numerator=15, denominator=1)


def whole(name: str = "whole", **more: object) -> Rendition:
    """Makes a rendition of the display's own size."""
    return Rendition(id=name, video=replace(VideoEncoding(keyframe_interval=timedelta(seconds=5)), **more))


def recording(
    *outputs: JobOutput, renditions: tuple[Rendition, ...] = (), capture: Capture | None = None, **more: object
) -> RecordingJob:
    """Makes a recording of a page, into "recording.mp4" unless something else is said."""
    job = RecordingJob(
        session="s1",
        attempt=2,
        source=PageSource(url="https://a.example"),
        capture=capture or Capture(),
        gate=StartGate(),
        stop_rules=StopRules(),
        renditions=renditions or (whole(),),
        outputs=outputs or (mp4("recording.mp4"),),
    )
    return replace(job, **more)


CASES: dict[str, tuple[RecordingJob, dict[str, PipelineDevice]]] = {
    "plain": (recording(), {"cpu": cpu(core_count=4), "cpu-old": cpu(OLD_FFMPEG), "ada": ada(NEW_FFMPEG)}),
    "ladder": (
        recording(
            mp4("all.mp4"),
            FileOutput(id="kept", path="/srv/out/kept.mkv", container=Container.MKV, renditions=("whole",)),
            FileOutput(id="ts", path="some/out.ts", container=Container.TS, renditions=("small",)),
            HlsOutput(id="hls", path="hls"),
            PushOutput(id="push", url="rtmp://live.example/app/streamkey", renditions=("whole",)),
            renditions=(whole(), whole("small", height=360, frame_rate=HALF_RATE)),
            capture=Capture(show_cursor=True),
            watermark=Watermark(path="/media/mark.png", corner=Corner.TOP_LEFT, margin=4, opacity=0.5),
            stop_rules=StopRules(silence=SECOND * 5, idle=SECOND * 5),
        ),
        {"cpu": cpu(), "ada": ada()},
    ),
    "newer-formats": (
        recording(
            mp4("hevc.mp4", "hevc"),
            mp4("av1.mp4", "av1"),
            renditions=(
                replace(whole("hevc", codec=VideoCodec.HEVC, bit_depth=10), audio=OPUS),
                replace(whole("av1", codec=VideoCodec.AV1), audio=NONE),
            ),
            capture=Capture(sound=False),
        ),
        {"cpu": cpu(), "ada": ada()},
    ),
    "two-rates-unscaled": (
        recording(renditions=(whole(), whole("slow", frame_rate=HALF_RATE))),
        {"ada": ada()},
    ),
    "host-encodes": (recording(allow_software_encode=True), {"hopper": hopper()}),
    "sound-alone": (
        recording(
            FileOutput(id="o", path="o.mkv", container=Container.MKV), renditions=(Rendition(id="a", video=None),)
        ),
        {"cpu": cpu()},
    ),
}
