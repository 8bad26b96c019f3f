"""Pictures of a real NVIDIA GPU beside those of the host's cores, by the pipelines' own commands.

What is compared is what encoders would get: the command of a session is cut off where its outputs begin.
"""

from __future__ import annotations

import math
import os
import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import imageio_ffmpeg
import pytest

from agents.pipelines.capability import PipelineDevice
from agents.pipelines.coders import VideoEncoder
from agents.pipelines.command_builder import build_command
from agents.pipelines.input_description import parse_input_description
from agents.pipelines.job import (
    AudioCodec,
    AudioRendition,
    Container,
    Direction,
    FileOutput,
    Fit,
    InputFacts,
    Job,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
)
from agents.pipelines.video_filters import Branch, FrameSource, filter_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.devices.golden_probe import ProbeResult
    from agents.devices.identity import DeviceIdentity

pytestmark = [pytest.mark.gpu, pytest.mark.process, pytest.mark.timeout(120)]

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FRAMES = 30
EXACT = math.inf
ENCODERS: dict[VideoCodec, tuple[str, ...]] = {
    VideoCodec.H264: ("libx264", "-preset", "veryfast"),
    VideoCodec.HEVC: ("libx265", "-preset", "ultrafast", "-x265-params", "log-level=1"),
    VideoCodec.AV1: ("libsvtav1", "-preset", "10"),
    VideoCodec.VP8: ("libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "6M"),
    VideoCodec.VP9: ("libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "6M"),
    VideoCodec.MPEG2: ("mpeg2video", "-b:v", "8M", "-bf", "2"),
    VideoCodec.MPEG4: ("mpeg4", "-b:v", "8M", "-bf", "2"),
    VideoCodec.MJPEG: ("mjpeg", "-q:v", "3"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format of inputs, and how like the card's pictures are to the cores' in it."""

    codec: VideoCodec
    bit_depth: int = 8
    psnr_db: float = EXACT
    """Unscaled. The older formats leave decoders some freedom."""

    def __str__(self) -> str:
        return f"{self.codec}-{self.bit_depth}"


FORMATS = (
    *(Format(codec=codec, bit_depth=depth) for codec in (VideoCodec.H264, VideoCodec.HEVC) for depth in (8, 10)),
    *(Format(codec=codec, bit_depth=depth) for codec in (VideoCodec.VP9, VideoCodec.AV1) for depth in (8, 10)),
    Format(codec=VideoCodec.VP8),
    *(Format(codec=codec, psnr_db=45) for codec in (VideoCodec.MPEG2, VideoCodec.MPEG4, VideoCodec.MJPEG)),
)
SCALED_DB = 35.0
"""The card rounds down, and its filter is another than swscale's."""


def ffmpeg(*arguments: str | Path, env: dict[str, str] | None = None) -> str:
    """Runs ffmpeg and gives what it says."""
    run = subprocess.run(
        [FFMPEG, "-hide_banner", "-nostdin", "-y", *map(str, arguments)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr
    return run.stderr


def make(path: Path, kind: Format, size: str = "1280x720", *, pixel_shape: str = "1") -> Path:
    """Makes a moving picture of a format."""
    pixels = "yuvj420p" if kind.codec is VideoCodec.MJPEG else "yuv420p10le" if kind.bit_depth > 8 else "yuv420p"
    source = f"mandelbrot=size={size}:rate=30:maxiter=200:end_scale=0.01:end_pts=60,setsar={pixel_shape}"
    coding = ("-frames:v", str(FRAMES), "-pix_fmt", pixels, "-c:v", *ENCODERS[kind.codec])
    ffmpeg("-f", "lavfi", "-i", source, *coding, path)
    return path


def facts_of(path: Path) -> InputFacts:
    """Finds out what a file is, as an agent does."""
    told = subprocess.run([FFMPEG, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False).stderr
    return parse_input_description(told).facts


def pictures(path: Path, device: PipelineDevice, renditions: Sequence[VideoEncoding], work: Path) -> list[Path]:
    """Has a session's command make what its encoders would get; gives a lossless file for each rendition."""
    names = [f"r{number}" for number in range(len(renditions))]
    silent = AudioRendition(codec=AudioCodec.NONE)
    job = Job(
        session="s",
        attempt=1,
        input=UriInput(uri=str(path)),
        facts=facts_of(path),
        renditions=tuple(
            Rendition(id=name, video=one, audio=silent) for name, one in zip(names, renditions, strict=True)
        ),
        outputs=tuple(
            FileOutput(id=name, path=f"{name}.mkv", container=Container.MKV, renditions=(name,)) for name in names
        ),
        allow_software_encode=True,
    )
    work.mkdir()
    command = build_command(job, device, artifacts_dir=str(work), progress_path=str(work / "progress"))
    argv = list(command.argv[1 : command.argv.index("-map")])
    files = [work / f"{name}.mkv" for name in names]
    for name, file in zip(names, files, strict=True):
        argv += ["-map", f"[v-{name}]", "-fps_mode:v", "vfr", "-c:v", "ffv1", str(file)]
    ffmpeg(*argv, env=dict(command.env))
    return files


def likeness(made: Path, reference: Path) -> tuple[float, int]:
    """Gives the least PSNR of a picture, and how many pictures were made."""
    told = ffmpeg("-i", made, "-i", reference, "-lavfi", "psnr", "-f", "null", "-")
    frames = [re.findall(r"frame=\s*(\d+)", ffmpeg("-i", one, "-f", "null", "-"))[-1] for one in (made, reference)]
    assert frames[0] == frames[1]
    return float(re.findall(r"PSNR .* min:(\S+)", told)[-1]), int(frames[0])


@pytest.fixture(scope="module")
def card(gpu: DeviceIdentity, probed: ProbeResult) -> PipelineDevice:
    """The GPU, with encoding left to the host's cores."""
    return PipelineDevice(
        kind="nvidia",
        id=gpu.id,
        core_count=len(os.sched_getaffinity(0)),
        capabilities=tuple(
            one for one in probed.capabilities if not (one.hardware and one.direction is Direction.ENCODE)
        ),
        ffmpeg_builds=probed.ffmpeg_builds,
    )


@pytest.fixture(scope="module")
def cores(card: PipelineDevice) -> PipelineDevice:
    """The same without anything that the GPU does."""
    return replace(card, capabilities=tuple(one for one in card.capabilities if not one.hardware))


def decodes(device: PipelineDevice, kind: Format) -> bool:
    return any(
        one.works and one.hardware and (one.codec, one.bit_depth) == (kind.codec, kind.bit_depth)
        for one in device.capabilities
    )


@pytest.mark.parametrize("kind", FORMATS, ids=str)
def test_the_card_decodes_every_picture_as_the_cores_do_and_scales_alike(
    card: PipelineDevice, cores: PipelineDevice, kind: Format, tmp_path: Path
) -> None:
    if not decodes(card, kind):
        pytest.skip(f"the card does not decode {kind}")
    source = make(tmp_path / "source.mkv", kind)
    deep = {"codec": VideoCodec.HEVC, "bit_depth": 10} if kind.bit_depth > 8 else {}
    asked = [VideoEncoding(**deep), VideoEncoding(height=480, **deep), VideoEncoding(height=240)]
    on_card = pictures(source, card, asked, tmp_path / "card")
    on_cores = pictures(source, cores, asked, tmp_path / "cores")
    for number, least_db in enumerate((kind.psnr_db, SCALED_DB, SCALED_DB)):
        found_db, frames = likeness(on_card[number], on_cores[number])
        assert frames == FRAMES
        assert found_db >= least_db, asked[number]


@pytest.mark.parametrize("size", ["853x480", "854x479"])
@pytest.mark.parametrize("codec", [VideoCodec.VP9, VideoCodec.MJPEG])
def test_pictures_of_odd_sides_come_out_right(
    card: PipelineDevice, cores: PipelineDevice, codec: VideoCodec, size: str, tmp_path: Path
) -> None:
    """By the cores: the card gives black or shifted pictures of them."""
    source = make(tmp_path / "source.mkv", Format(codec=codec), size)
    asked = [VideoEncoding(), VideoEncoding(height=240)]
    made = pictures(source, card, asked, tmp_path / "card")
    for one, reference in zip(made, pictures(source, cores, asked, tmp_path / "cores"), strict=True):
        assert likeness(one, reference) == (EXACT, FRAMES)


@pytest.mark.parametrize("size", ["853x480", "854x479", "853x479"])
def test_pictures_of_odd_sides_are_brought_to_the_card_whole(
    card: PipelineDevice, cores: PipelineDevice, size: str, tmp_path: Path
) -> None:
    """As for an encoder of the card; here they are fetched back instead."""
    source = make(tmp_path / "source.mkv", Format(codec=VideoCodec.VP9), size)
    branch = Branch(
        label="v", encoding=VideoEncoding(height=240), encoder=VideoEncoder(implementation="libx264", hardware=False)
    )
    graph = filter_graph((branch,), source=FrameSource.UPLOADED, facts=facts_of(source))
    made = tmp_path / "made.mkv"
    on_card = ("-init_hw_device", "cuda=gpu:0", "-filter_hw_device", "gpu")
    written = ("-map", "[v]", "-c:v", "ffv1", made)
    ffmpeg(*on_card, "-i", source, "-filter_complex", graph, *written, env={"CUDA_VISIBLE_DEVICES": card.id})
    (reference,) = pictures(source, cores, [VideoEncoding(height=240)], tmp_path / "cores")
    found_db, frames = likeness(made, reference)
    assert frames == FRAMES
    assert found_db >= SCALED_DB


@pytest.mark.parametrize(
    ("pixel_shape", "asked"),
    [
        ("8/9", VideoEncoding()),
        *[("1", VideoEncoding(width=w, height=h, fit=Fit.STRETCH)) for w, h in ((640, 480), (240, 480), (720, 360))],
    ],
    ids=["a DVD's pixels", "narrower", "a third as wide", "lower"],
)
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_a_picture_of_which_only_one_side_shrinks_is_not_black(
    card: PipelineDevice, cores: PipelineDevice, pixel_shape: str, asked: VideoEncoding, bit_depth: int, tmp_path: Path
) -> None:
    """As the scaler of ffmpeg 9.0 makes it, unless it is asked otherwise."""
    source = make(tmp_path / "source.mkv", Format(codec=VideoCodec.H264), "720x480", pixel_shape=pixel_shape)
    wanted = replace(asked, codec=VideoCodec.HEVC if bit_depth > 8 else VideoCodec.H264, bit_depth=bit_depth)
    (made,) = pictures(source, card, [wanted], tmp_path / "card")
    (reference,) = pictures(source, cores, [wanted], tmp_path / "cores")
    found_db, frames = likeness(made, reference)
    assert frames == FRAMES
    assert found_db >= SCALED_DB


def test_a_stream_that_changes_its_size_goes_on(card: PipelineDevice, cores: PipelineDevice, tmp_path: Path) -> None:
    parts = [make(tmp_path / f"{size}.ts", Format(codec=VideoCodec.H264), size) for size in ("1280x720", "640x360")]
    source = tmp_path / "source.ts"
    source.write_bytes(b"".join(part.read_bytes() for part in parts))
    asked = [VideoEncoding(width=320, height=180)]
    (made,) = pictures(source, card, asked, tmp_path / "card")
    (reference,) = pictures(source, cores, asked, tmp_path / "cores")
    found_db, frames = likeness(made, reference)
    assert frames == 2 * FRAMES
    assert found_db >= SCALED_DB
