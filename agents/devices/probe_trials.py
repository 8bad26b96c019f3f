"""What the golden probe tries: each trial with its ffmpeg arguments. Pure.

A trial is judged by its pictures, not by its exit code alone: the same moving test picture that went in is compared
with what comes out (peak signal-to-noise ratio), because hardware has been seen to give green frames and exit 0. The
arguments for NVIDIA are those of real pipelines in small: pictures stay in CUDA memory until they are compared.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agents.pipelines.job import Direction, VideoCodec

if TYPE_CHECKING:
    from agents.devices.identity import DeviceKind

FRAMES = 25
_FEWEST_FRAMES = 20  # decoders may keep a few at the ends
_LEAST_PSNR_DB = 20.0  # good codecs give 33 to 43 here, wrong pictures below 12
_SIZE = "320x192"  # above the smallest that any NVENC takes (145x49 for H.264, 192x128 for AV1)
_SCALED = (640, 384)
_SOURCE = f"testsrc2=size={_SIZE}:rate={FRAMES}:duration=1"
_QUIET = ("-hide_banner", "-nostdin", "-y", "-xerror")
_ERRORS = ("-loglevel", "level+error")
_INFORMATION = ("-loglevel", "level+info")

# Samples for decoders, and the software encoders themselves. Arguments make them quick, not good.
_SOFTWARE_ENCODERS: dict[VideoCodec, tuple[str, ...]] = {
    VideoCodec.H264: ("libx264", "-preset", "veryfast"),
    VideoCodec.HEVC: ("libx265", "-preset", "veryfast"),
    VideoCodec.AV1: ("libsvtav1", "-preset", "8"),
    VideoCodec.VP8: ("libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M"),
    VideoCodec.VP9: ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "2M"),
    VideoCodec.MPEG2: ("mpeg2video", "-b:v", "2M"),
    VideoCodec.MPEG4: ("mpeg4", "-b:v", "2M"),
    VideoCodec.MJPEG: ("mjpeg", "-q:v", "3"),
}
_ENCODED = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1)
_TEN_BIT = (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1, VideoCodec.VP9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One thing that is tried for real."""

    codec: VideoCodec
    direction: Direction
    bit_depth: int
    implementation: str
    """ffmpeg's name of the encoder; of a decoder what it is called before it was run."""
    hardware: bool

    @property
    def name(self) -> str:
        """Unique among the trials of a device, the same in every version."""
        return f"{self.direction}-{self.codec}-{self.bit_depth}-{self.implementation}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What a comparing run told."""

    ok: bool
    message: str
    """Why not. Empty when it is ok."""
    decoder: str | None
    """Name of the decoder that ffmpeg took."""
    ten_bit: bool
    """Whether the pictures in the stream have 10 bits per sample."""


def trials_of(kind: DeviceKind) -> tuple[Trial, ...]:
    """Lists what is tried on a kind of device: on a GPU its engines first, then the software of its host."""
    software = _trials(hardware=False)
    return (*_trials(hardware=True), *software) if kind == "nvidia" else software


def encode_arguments(trial: Trial, output_path: str) -> list[str]:
    """Makes ffmpeg's arguments for encoding one second of the test picture into a file."""
    options = _nvenc_options(trial) if trial.hardware else _software_options(trial)
    before, after = options
    return [*_QUIET, *_ERRORS, *before, "-f", "lavfi", "-i", _SOURCE, *after, "-f", "matroska", output_path]


def sample_trial(codec: VideoCodec, bit_depth: int) -> Trial:
    """Tells the software encoder that makes a sample of a format."""
    return Trial(
        codec=codec,
        direction=Direction.ENCODE,
        bit_depth=bit_depth,
        implementation=_SOFTWARE_ENCODERS[codec][0],
        hardware=False,
    )


def compare_arguments(path: str, *, nvdec: Trial | None = None) -> list[str]:
    """Makes ffmpeg's arguments for decoding a file and comparing it with the test picture.

    Args:
        path: What an encoder made of the test picture.
        nvdec: The hardware trial to decode by. None: in software.

    Returns:
        Arguments whose output `judge_comparison` reads.
    """
    if nvdec is None:
        before: list[str] = []
        decoded, reference = "[0:v]format=yuv420p", "[1:v]format=yuv420p"
    else:
        # hwdownload refuses pictures that are not in CUDA memory: falling back to software cannot pass for hardware.
        # No decoder is named, as in pipelines: an ffmpeg that takes one without hardware (for AV1) must not pass.
        before = ["-init_hw_device", "cuda=gpu:0", "-hwaccel", "cuda", "-hwaccel_device", "gpu"]
        before += ["-hwaccel_output_format", "cuda"]
        width, height = _SCALED
        pixels = "p010le" if nvdec.bit_depth > 8 else "nv12"
        scaled = f"scale_cuda=w={width}:h={height}:format={pixels}"
        decoded = f"[0:v]{scaled},hwdownload,format={pixels},format=yuv420p"
        reference = f"[1:v]scale={width}:{height},format=yuv420p"
    graph = f"{decoded}[decoded];{reference}[reference];[decoded][reference]psnr=shortest=1"
    return [
        *_QUIET,
        *_INFORMATION,
        *before,
        "-i",
        path,
        "-f",
        "lavfi",
        "-i",
        _SOURCE,
        "-lavfi",
        graph,
        "-f",
        "null",
        "-",
    ]


def judge_comparison(exit_code: int | None, output: str) -> Comparison:
    """Reads what a comparing run printed.

    Args:
        exit_code: Of ffmpeg. None: it was killed at its deadline.
        output: What it printed.

    Returns:
        The verdict.
    """
    decoder = re.search(r"Stream #0:0 \((\w+)\) ->", output)
    ten_bit = re.search(r"Stream #0:0.*Video: .*\b(?:\w+10[lb]e)\b", output) is not None
    return Comparison(
        ok=not (message := _comparison_failure(exit_code, output)),
        message=message,
        decoder=None if decoder is None else decoder[1],
        ten_bit=ten_bit,
    )


def failure_line(exit_code: int | None, output: str) -> str:
    """Picks the line of ffmpeg's output that says why it failed: the first error, which later ones follow from.

    Args:
        exit_code: Of ffmpeg. None: it was killed at its deadline.
        output: What it printed with `level+` log lines.

    Returns:
        One line without addresses, never empty.
    """
    if exit_code is None:
        return "did not end in time and was killed"
    for line in output.splitlines():
        match = re.search(r"\[(?:error|fatal|panic)\] (.*\S)", line)
        if match:
            return match[1]
    last = next((line.strip() for line in reversed(output.splitlines()) if line.strip()), "")
    if exit_code < 0:
        return f"was ended by signal {-exit_code}" + (f" after: {last}" if last else "")
    return last or f"ended with exit code {exit_code} and no message"


def _trials(*, hardware: bool) -> tuple[Trial, ...]:
    trials = []
    for codec in _SOFTWARE_ENCODERS:
        for bit_depth in (8, 10) if codec in _TEN_BIT else (8,):
            for direction in (Direction.ENCODE, Direction.DECODE):
                if direction is Direction.ENCODE and codec not in _ENCODED:
                    continue
                implementation = _implementation(codec, direction, hardware=hardware)
                trials.append(
                    Trial(
                        codec=codec,
                        direction=direction,
                        bit_depth=bit_depth,
                        implementation=implementation,
                        hardware=hardware,
                    )
                )
    return tuple(trials)


def _implementation(codec: VideoCodec, direction: Direction, *, hardware: bool) -> str:
    if direction is Direction.ENCODE:
        return f"{codec}_nvenc" if hardware else _SOFTWARE_ENCODERS[codec][0]
    # ffmpeg's own names of its NVDEC acceleration: "h264_nvdec" and so on.
    return f"{codec}_nvdec" if hardware else "mpeg2video" if codec is VideoCodec.MPEG2 else str(codec)


def _software_options(trial: Trial) -> tuple[list[str], list[str]]:
    encoder, *options = _SOFTWARE_ENCODERS[trial.codec]
    pixels = "yuv420p10le" if trial.bit_depth > 8 else "yuvj420p" if trial.codec is VideoCodec.MJPEG else "yuv420p"
    return [], ["-pix_fmt", pixels, "-c:v", encoder, *options, "-threads", "2"]


def _nvenc_options(trial: Trial) -> tuple[list[str], list[str]]:
    pixels = "p010le" if trial.bit_depth > 8 else "nv12"
    device = ["-init_hw_device", "cuda=gpu:0", "-filter_hw_device", "gpu"]
    return device, ["-vf", f"format={pixels},hwupload_cuda", "-c:v", trial.implementation, "-b:v", "2M"]


def _comparison_failure(exit_code: int | None, output: str) -> str:
    if exit_code != 0:
        return failure_line(exit_code, output)
    ratio = re.search(r"PSNR .*average:(inf|[\d.]+)", output)
    frames = [int(number) for number in re.findall(r"frame=\s*(\d+)", output)]
    if ratio is None or not frames:
        return "gave no picture to compare"
    if frames[-1] < _FEWEST_FRAMES:
        return f"gave {frames[-1]} of {FRAMES} pictures"
    if float(ratio[1]) < _LEAST_PSNR_DB:
        return f"gave wrong pictures: {float(ratio[1]):.1f} dB from what went in, where {_LEAST_PSNR_DB:.0f} is little"
    return ""
