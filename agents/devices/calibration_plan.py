"""What a calibration measures, in which order, and with which ffmpeg arguments. Pure.

The order is that of use: when the time is up, what few sessions need is what was not measured. Arguments are those of
sessions: the encoders' options are the pipelines' own, and on a GPU whole pipelines are. What comes in is made once by
ffmpeg itself: a fractal zoom at full motion with light noise, which is at the slow end of what cameras give, so that a
figure promises rather too little.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from agents.pipelines.job import Direction, EncodingSpeed, FrameRate, VideoCodec, VideoEncoding
from agents.pipelines.video_encoders import EncoderSituation, encoder_options
from gpu_balancer.pictures.sizes import PictureSize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.devices.identity import DeviceKind
    from agents.pipelines.capability import Capability, FfmpegBuild


class Work(StrEnum):
    """A kind of work; the value is the name of the contract's dimension."""

    DECODE = "DECODE"
    SCALE = "SCALE"
    ENCODE = "ENCODE"


TIME_UP = "the time was up before it was measured"
FRAMES_PER_SECOND = 30
INPUT_FRAMES = 40
"""Frames of an input, which is played over and over. Kept raw they take 55 MB on disk, and as much in each run."""
FIRST_FRAMES = {Work.DECODE: 80, Work.SCALE: 80, Work.ENCODE: 17}
"""Pictures of a short run on cores, one of them apart: for encoders a whole pyramid of 16 that refer to one another."""
CORES_SIZE = PictureSize(width=1280, height=720)
ENGINES_SIZE = PictureSize(width=1920, height=1080)
SCALED_SIZE = PictureSize(width=854, height=480)
ENGINE_SCALED_SIZE = PictureSize(width=1280, height=720)

_SOURCE = "mandelbrot=size={size}:rate=30:maxiter=200:end_pts=120:end_scale=0.01,noise=alls=4:allf=t,format=yuv420p"
_QUIET = ("-hide_banner", "-nostdin", "-nostats", "-y", "-loglevel", "level+error")
_SAMPLE_RATE_BPS = {CORES_SIZE: 6_000_000, ENGINES_SIZE: 12_000_000}
_SAMPLE_ENCODERS: dict[VideoCodec, tuple[str, ...]] = {
    VideoCodec.H264: ("libx264", "-preset", "veryfast"),
    VideoCodec.HEVC: ("libx265", "-preset", "veryfast", "-x265-params", "log-level=1"),
    VideoCodec.AV1: ("libsvtav1", "-preset", "10"),
    VideoCodec.VP8: ("libvpx", "-deadline", "realtime", "-cpu-used", "8"),
    VideoCodec.VP9: ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8"),
    VideoCodec.MPEG2: ("mpeg2video",),
    VideoCodec.MPEG4: ("mpeg4",),
    VideoCodec.MJPEG: ("mjpeg",),
}
_ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
_SPEEDS = (EncodingSpeed.FAST, EncodingSpeed.FASTEST, EncodingSpeed.BALANCED, EncodingSpeed.THOROUGH)
_NAMES = {VideoCodec.H264: "H.264", VideoCodec.MPEG2: "MPEG-2", VideoCodec.MPEG4: "MPEG-4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationStep:
    """One thing that is measured."""

    work: Work
    codec: VideoCodec | None = None
    """None for scaling."""
    speed: EncodingSpeed | None = None
    """None unless encoding."""
    implementation: str = ""
    """ffmpeg's name of the encoder. Empty unless encoding."""

    def __str__(self) -> str:
        if self.codec is None:
            return "scaling"
        name = _NAMES.get(self.codec, self.codec.value.upper())
        return f"decoding {name}" if self.speed is None else f"encoding {name}, {self.speed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigure:
    """What came of a step."""

    step: CalibrationStep
    pixels_per_second: int | None = None
    """Of the whole device. None: it could not be measured."""
    streams: int = 0
    """Streams that ran side by side then; 0 when not even one kept real time."""
    stream_size: PictureSize | None = None
    problem: str = ""
    """Why there is no figure, or why it may be too low. Empty: all went well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationProgress:
    """How far a calibration is."""

    step: int
    step_count: int
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationResult:
    """What a calibration came to."""

    end_time: datetime
    build: FfmpegBuild
    driver_version: str | None
    figures: tuple[CalibrationFigure, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationBounds:
    """How long a calibration measures."""

    window: timedelta
    """One measurement, about."""
    rounds: int
    """Times that everything is measured."""
    limit: timedelta
    """The whole calibration, at most."""


def best_build(
    kind: DeviceKind, builds: Sequence[FfmpegBuild], capabilities: Sequence[Capability]
) -> FfmpegBuild | None:
    """Chooses the ffmpeg that is measured: the one that does most on the device; of equals the most preferred.

    Returns:
        The build. None: nothing works with any.
    """
    counts = {
        build.path: sum(
            one.works and one.hardware == (kind == "nvidia") and one.ffmpeg == build.path for one in capabilities
        )
        for build in builds
    }
    best = max(builds, key=lambda build: counts[build.path], default=None)
    return best if best is not None and counts[best.path] else None


def steps_of(kind: DeviceKind, build: FfmpegBuild, capabilities: Sequence[Capability]) -> tuple[CalibrationStep, ...]:
    """Lists what is measured: whatever the device itself was seen to do with the build in 8 bits.

    Args:
        kind: What the device is made of.
        build: The ffmpeg that is measured.
        capabilities: What was tried on the device.

    Returns:
        Steps, the most useful first.
    """
    own = [
        one
        for one in capabilities
        if one.works and one.bit_depth == 8 and one.hardware == (kind == "nvidia") and one.ffmpeg == build.path
    ]
    encoders = {one.codec: one.implementation for one in own if one.direction is Direction.ENCODE}
    decode = [
        CalibrationStep(work=Work.DECODE, codec=codec)
        for codec in _SAMPLE_ENCODERS
        if any(one.direction is Direction.DECODE and one.codec is codec for one in own)
    ]
    encode = [
        CalibrationStep(work=Work.ENCODE, codec=codec, speed=speed, implementation=encoders[codec])
        for codec in _ENCODED
        for speed in _SPEEDS
        if codec in encoders
    ]
    # NVIDIA's scaler is fed by its decoder; without one nothing is scaled there either.
    scale = [CalibrationStep(work=Work.SCALE)] if decode else []
    common = [step for step in decode if step.codec in _ENCODED[:2]]
    rarer = [step for step in decode if step not in common]
    return (*common[:1], *scale, *encode[:4], *common[1:], *encode[4:], *rarer)


# ------------------------------------------------------------------------------------------------------------ inputs


def picture_arguments(size: PictureSize, path: str) -> list[str]:
    """Makes ffmpeg's arguments for writing the moving picture, raw."""
    source = _SOURCE.format(size=f"{size.width}x{size.height}")
    return [*_QUIET, "-f", "lavfi", "-i", source, "-frames:v", str(INPUT_FRAMES), "-f", "rawvideo", path]


def sample_arguments(codec: VideoCodec, size: PictureSize, *, picture: str, path: str) -> list[str]:
    """Makes ffmpeg's arguments for writing the moving picture in a format, for decoders.

    Args:
        codec: The format.
        size: Of the picture.
        picture: Path of the picture, raw.
        path: Where to write.
    """
    encoder, *options = _SAMPLE_ENCODERS[codec]
    pixels = "yuvj420p" if codec is VideoCodec.MJPEG else "yuv420p"
    coding = ["-pix_fmt", pixels, "-c:v", encoder, *options, "-b:v", str(_SAMPLE_RATE_BPS[size]), "-threads", "2"]
    return [*_QUIET, *_raw(size), "-i", picture, *coding, "-f", "matroska", path]


def _raw(size: PictureSize) -> tuple[str, ...]:
    shape = ("-video_size", f"{size.width}x{size.height}", "-framerate", str(FRAMES_PER_SECOND))
    return ("-f", "rawvideo", "-pixel_format", "yuv420p", *shape)


# ------------------------------------------------------------------------------------------------------------- cores


def core_arguments(step: CalibrationStep, path: str, *, frames: int, threads: int) -> list[str]:
    """Makes ffmpeg's arguments for doing a step's work on cores, a certain number of times.

    Args:
        step: What to do.
        path: Of the raw picture for scaling and encoding, of the sample for decoding.
        frames: How many pictures.
        threads: That decoder, filters or encoder may use.

    Returns:
        Arguments of a run that writes nothing.
    """
    thread_count = str(threads)
    end = ["-frames:v", str(frames)]
    null = ["-f", "null", "-"]
    if step.work is Work.DECODE:
        return [*_QUIET, "-threads", thread_count, "-stream_loop", "-1", "-i", path, *end, *null]
    # Read once and shown again and again from memory: reading would cost as much as the fastest encoder.
    again = f"loop=loop=-1:size={INPUT_FRAMES}"
    start = [*_QUIET, "-filter_threads", thread_count, *_raw(CORES_SIZE), "-i", path, "-vf"]
    if step.work is Work.SCALE:
        return [*start, f"{again},scale=w={SCALED_SIZE.width}:h={SCALED_SIZE.height}", *end, *null]
    assert step.codec is not None
    assert step.speed is not None
    encoding = VideoEncoding(codec=step.codec, speed=step.speed)
    situation = EncoderSituation(
        frame_rate=FrameRate(numerator=FRAMES_PER_SECOND, denominator=1), thread_count=threads, field="calibration"
    )
    options = encoder_options(step.implementation, encoding, situation)
    coding = [text for name, value in options for text in (f"-{name}:v", value)]
    return [*start, again, *end, *coding, *null]


def core_step_pixels(step: CalibrationStep) -> int:
    """Tells how many pixels one picture of a step on cores is."""
    size = SCALED_SIZE if step.work is Work.SCALE else CORES_SIZE
    return size.width * size.height
