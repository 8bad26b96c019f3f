"""What may be typed to describe a transcode; `transcode` and `plan` share it, and `record` what is not about inputs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

import typer

from gpu_balancer.cli.completions import complete_profile
from gpu_balancer.cli.restart_options import RestartOptions


class IngestChoice(StrEnum):
    """Protocols on which an agent awaits a publisher."""

    RTMP = "rtmp"
    SRT = "srt"


class PriorityChoice(StrEnum):
    """What matters more when both cannot be had."""

    LIVE = "live"
    BATCH = "batch"


class CodecChoice(StrEnum):
    """Video formats that can be made."""

    H264 = "h264"
    HEVC = "hevc"
    AV1 = "av1"


class SpeedChoice(StrEnum):
    """Work per picture."""

    FASTEST = "fastest"
    FAST = "fast"
    BALANCED = "balanced"
    THOROUGH = "thorough"


class FitChoice(StrEnum):
    """How a picture is fitted into width and height."""

    CONTAIN = "contain"
    STRETCH = "stretch"


class AudioChoice(StrEnum):
    """What becomes of the sound."""

    AAC = "aac"
    OPUS = "opus"
    COPY = "copy"
    NONE = "none"


class SegmentChoice(StrEnum):
    """How HLS segments are packed."""

    FMP4 = "fmp4"
    TS = "ts"


WaitOption = Annotated[
    str | None,
    typer.Option(
        "--wait-for-device",
        metavar="TIME",
        help="Queue when no device has room, this long at most. Default: be refused then.",
    ),
]
LabelOption = Annotated[list[str], typer.Option("--label", metavar="KEY=VALUE", help="A note of your own. Repeatable.")]
SoftwareEncodeOption = Annotated[
    bool, typer.Option("--allow-software-encode", help="Let the host's cores encode for a GPU that cannot.")
]


@dataclass(frozen=True, slots=True, kw_only=True)
class InputOptions:
    """Where the media comes from."""

    source: Annotated[
        str | None, typer.Argument(metavar="INPUT", help="A file, or an http, rtmp, rtsp or srt URL.")
    ] = None
    native_rate: Annotated[bool, typer.Option("--native-rate", help="Read no faster than real time.")] = False
    start: Annotated[
        str | None, typer.Option("--start", metavar="TIME", help="Skip this much: 10, 1:30 or 00:01:30.5.")
    ] = None
    duration: Annotated[
        str | None, typer.Option("--duration", metavar="TIME", help="End after this much of the input.")
    ] = None
    loop: Annotated[bool, typer.Option("--loop", help="Play the file over and over until stopped.")] = False
    repeat: Annotated[
        int, typer.Option("--repeat", metavar="N", min=0, max=1_000_000, help="Play the file N further times.")
    ] = 0
    ingest: Annotated[
        IngestChoice | None,
        typer.Option("--ingest", help="Await a publisher instead of an INPUT; needs --input-facts."),
    ] = None
    publisher_timeout: Annotated[
        str | None, typer.Option("--publisher-timeout", metavar="TIME", help="How long to await it. Default: 60.")
    ] = None
    input_facts: Annotated[
        str | None,
        typer.Option("--input-facts", metavar="WxH@RATE[:CODEC]", help="What the input is, such as 1280x720@30."),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenditionOptions:
    """What is made of it."""

    rendition: Annotated[
        list[str],
        typer.Option(
            "--rendition",
            "-r",
            metavar="[NAME=]SIZE[:CODEC[:RATE]]",
            help="1280x720, 720p, source or copy; then h264, hevc or av1; then 2500k, 2.5M or q23. Repeatable. "
            "Default: source.",
        ),
    ] = field(default_factory=list)
    profile: Annotated[
        str,
        typer.Option(
            "--profile",
            "-p",
            metavar="NAME",
            help="A ladder of the daemon's settings instead.",
            autocompletion=complete_profile,
        ),
    ] = ""
    codec: Annotated[CodecChoice, typer.Option("--codec", help="For renditions that name none.")] = CodecChoice.H264
    speed: Annotated[SpeedChoice | None, typer.Option("--speed", help="Work per picture. Default: fast.")] = None
    frame_rate: Annotated[
        str | None, typer.Option("--frame-rate", metavar="RATE", help="30, 29.97 or 30000/1001. Default: the input's.")
    ] = None
    keyframe_interval: Annotated[
        str | None, typer.Option("--keyframe-interval", metavar="TIME", help="Between keyframes. Default: 2.")
    ] = None
    bit_depth: Annotated[int | None, typer.Option("--bit-depth", metavar="8|10", min=8, max=10, help="Default: 8.")] = (
        None
    )
    fit: Annotated[
        FitChoice | None, typer.Option("--fit", help="Keep the aspect ratio inside WxH, or not. Default: contain.")
    ] = None
    low_latency: Annotated[
        bool, typer.Option("--low-latency", help="Give up look-ahead and reordering for less delay.")
    ] = False
    audio: Annotated[AudioChoice | None, typer.Option("--audio", help="What becomes of the sound. Default: aac.")] = (
        None
    )
    audio_bit_rate: Annotated[str | None, typer.Option("--audio-bit-rate", metavar="RATE", help="Default: 128k.")] = (
        None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputOptions:
    """Where it goes."""

    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="OUT",
            help="A local .mp4, .mkv or .ts, or a folder for HLS. Several renditions: OUT-NAME.mp4, or {rendition} "
            "in OUT.",
        ),
    ] = None
    hls: Annotated[
        str | None, typer.Option("--hls", metavar="DIR", help="Fetch an HLS presentation into this local folder.")
    ] = None
    hls_segments: Annotated[
        SegmentChoice | None, typer.Option("--hls-segments", help="How segments are packed. Default: fmp4.")
    ] = None
    segment_duration: Annotated[
        str | None, typer.Option("--segment-duration", metavar="TIME", help="Of HLS segments. Default: 4.")
    ] = None
    dvr_window: Annotated[
        str | None, typer.Option("--dvr-window", metavar="TIME", help="Keep only this much HLS. Default: all.")
    ] = None
    push: Annotated[
        list[str],
        typer.Option("--push", metavar="[RENDITION=]URL", help="Push to an rtmp or srt server. Repeatable."),
    ] = field(default_factory=list)
    server_output: Annotated[
        list[str],
        typer.Option(
            "--server-output",
            metavar="PATH",
            help="A file or HLS folder under the daemon's own output roots. Repeatable.",
        ),
    ] = field(default_factory=list)
    overwrite: Annotated[bool, typer.Option("--overwrite", "-y", help="Replace existing files.")] = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions(RestartOptions):
    """What the session is like besides."""

    priority: Annotated[
        PriorityChoice | None, typer.Option("--priority", help="Default: live for live inputs, else batch.")
    ] = None
    wait_for_device: WaitOption = None
    preemptible: Annotated[
        bool,
        typer.Option(
            "--preemptible", help="Let live work stop it to get its room; it is queued again. For batch only."
        ),
    ] = False
    reserved_speed: Annotated[
        str | None,
        typer.Option(
            "--reserved-speed",
            metavar="X",
            help="Keep this speed free for it whatever else comes: 0.5 is half real time. For batch only. "
            "Default: what its device has left.",
        ),
    ] = None
    label: LabelOption = field(default_factory=list)
    max_duration: Annotated[
        str | None, typer.Option("--max-duration", metavar="TIME", help="Stop after this much time of running.")
    ] = None
    allow_software_encode: SoftwareEncodeOption = False
