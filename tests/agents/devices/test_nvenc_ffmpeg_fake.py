"""The stand-in for cards: whole pipelines for NVIDIA run through it, and it is as strict as a card."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from agents.pipelines.capability import Capability, FfmpegBuild, PipelineDevice
from agents.pipelines.command_builder import build_command
from agents.pipelines.job import (
    Container,
    Direction,
    FileOutput,
    FrameRate,
    HlsOutput,
    InputFacts,
    Job,
    JobOutput,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
)
from fakes.nvenc_ffmpeg import install

pytestmark = pytest.mark.process

UUID = "GPU-7f3c2a10-0001"
REAL = imageio_ffmpeg.get_ffmpeg_exe()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a second of picture and sound."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    picture = [
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x180:rate=30:duration=0.5",
        "-f",
        "lavfi",
        "-i",
        "sine=duration=0.5",
    ]
    coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([REAL, "-v", "error", *picture, *coding, str(path)], check=True)
    return path


def run(program: Path, arguments: list[str], *, uuid: str | None = UUID) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    if uuid is not None:
        environment["CUDA_VISIBLE_DEVICES"] = uuid
    return subprocess.run(
        [str(program), *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
    )


def described(path: Path) -> str:
    return subprocess.run([REAL, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False).stderr


def card(program: Path, *, without: tuple[str, ...] = ()) -> PipelineDevice:
    """A card as its probe would tell of it."""
    able = []
    for codec in (VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1):
        for depth in (8, 10):
            for direction, hardware, name in [
                (Direction.ENCODE, True, f"{codec}_nvenc"),
                (Direction.DECODE, True, f"{codec}_nvdec"),
                (Direction.ENCODE, False, {"h264": "libx264", "hevc": "libx265", "av1": "libsvtav1"}[codec]),
            ]:
                able.append(
                    Capability(
                        codec=codec,
                        direction=direction,
                        bit_depth=depth,
                        implementation=name,
                        works=name not in without,
                        hardware=hardware,
                        ffmpeg=str(program),
                    )
                )
    build = FfmpegBuild(path=str(program), version="9.0.2", candidate=str(program))
    return PipelineDevice(kind="nvidia", id=UUID, core_count=2, capabilities=tuple(able), ffmpeg_builds=(build,))


def transcode(
    film: Path, folder: Path, device: PipelineDevice, renditions: list[Rendition], outputs: list[JobOutput]
) -> subprocess.CompletedProcess[str]:
    """Builds the command of a job as an agent does, and runs it as an agent does."""
    job = Job(
        session="s",
        attempt=1,
        input=UriInput(uri=str(film)),
        facts=InputFacts(
            width=320,
            height=180,
            frame_rate=FrameRate(numerator=30, denominator=1),
            video_codec=VideoCodec.H264,
            bit_depth=8,
            chroma="4:2:0",
            has_audio=True,
            audio_codec="aac",
        ),
        renditions=tuple(renditions),
        outputs=tuple(outputs),
        allow_software_encode=True,
    )
    command = build_command(job, device, artifacts_dir=str(folder), progress_path=str(folder / "progress"))
    for directory in command.directories:
        Path(directory).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, **command.env}
    return subprocess.run(list(command.argv), env=environment, capture_output=True, text=True, check=False, timeout=90)


def rendition(name: str, codec: VideoCodec, height: int, **more: object) -> Rendition:
    return Rendition(id=name, video=VideoEncoding(codec=codec, height=height, **more))  # type: ignore[arg-type]


def test_a_ladder_of_every_codec_and_depth_runs_in_cuda_memory(film: Path, tmp_path: Path) -> None:
    device = card(install(tmp_path))
    ladder = [
        rendition("a", VideoCodec.H264, 144, bit_rate_bps=500_000),
        rendition("b", VideoCodec.HEVC, 120, bit_depth=10),
        rendition("c", VideoCodec.AV1, 96, max_bit_rate_bps=400_000),
        rendition("d", VideoCodec.H264, 72, low_latency=True, frame_rate=FrameRate(numerator=15, denominator=1)),
    ]
    outputs: list[JobOutput] = [
        FileOutput(id=one.id, path=f"{one.id}.mp4", container=Container.MP4, renditions=(one.id,)) for one in ladder
    ]
    run = transcode(film, tmp_path, device, ladder, outputs)
    assert run.returncode == 0, run.stderr
    assert re.search(r"Video: h264.*256x144", described(tmp_path / "a.mp4"))
    assert re.search(r"Video: hevc.*yuv420p10le.*214x120", described(tmp_path / "b.mp4"))
    assert re.search(r"Video: av1.*170x96", described(tmp_path / "c.mp4"))
    assert re.search(r"Video: h264.*128x72.* 15 fps", described(tmp_path / "d.mp4"))


def test_hls_and_a_file_come_from_one_encoder(film: Path, tmp_path: Path) -> None:
    device = card(install(tmp_path))
    ladder = [rendition("a", VideoCodec.H264, 144), rendition("b", VideoCodec.H264, 72)]
    outputs: list[JobOutput] = [
        HlsOutput(id="hls", path="hls"),
        FileOutput(id="file", path="a.mkv", container=Container.MKV, renditions=("a",)),
    ]
    run = transcode(film, tmp_path, device, ladder, outputs)
    assert run.returncode == 0, run.stderr
    assert "144" in described(tmp_path / "a.mkv")
    assert list((tmp_path / "hls").rglob("*.m3u8"))


def test_a_card_without_nvenc_scales_while_its_host_encodes(film: Path, tmp_path: Path) -> None:
    program = install(tmp_path, lacking={UUID: ["h264_nvenc"]})
    outputs: list[JobOutput] = [FileOutput(id="o", path="a.mp4", container=Container.MP4)]
    ladder = [rendition("a", VideoCodec.H264, 144)]
    wrong = transcode(film, tmp_path, card(program), ladder, outputs)
    assert wrong.returncode != 0
    assert "unsupported device" in wrong.stderr
    right = transcode(film, tmp_path, card(program, without=("h264_nvenc",)), ladder, outputs)
    assert right.returncode == 0, right.stderr
    assert "256x144" in described(tmp_path / "a.mp4")


def test_an_input_that_nvdec_cannot_decode_is_decoded_by_the_host_and_uploaded(film: Path, tmp_path: Path) -> None:
    program = install(tmp_path, lacking={UUID: ["h264_nvdec"]})
    outputs: list[JobOutput] = [FileOutput(id="o", path="a.mp4", container=Container.MP4)]
    ladder = [rendition("a", VideoCodec.HEVC, 144)]
    assert transcode(film, tmp_path, card(program), ladder, outputs).returncode != 0
    right = transcode(film, tmp_path, card(program, without=("h264_nvdec",)), ladder, outputs)
    assert right.returncode == 0, right.stderr
    assert "hevc" in described(tmp_path / "a.mp4")


CUDA = ["-hwaccel", "cuda", "-hwaccel_output_format", "cuda"]


@pytest.mark.parametrize(
    ("before", "filters", "encoder", "words"),
    [
        (CUDA, "scale=160:90", "h264_nvenc", "Impossible to convert"),
        (CUDA, "scale_cuda=160:90", "libx264", "Impossible to convert"),
        (CUDA, "hwupload_cuda,scale_cuda=160:90", "h264_nvenc", "already"),
        ([], "scale_cuda=160:90", "h264_nvenc", "needs pictures in CUDA memory"),
        ([], "hwdownload,format=nv12", "h264_nvenc", "needs pictures in CUDA memory"),
    ],
)
def test_pictures_in_the_wrong_memory_are_refused(
    film: Path, tmp_path: Path, before: list[str], filters: str, encoder: str, words: str
) -> None:
    output = [str(tmp_path / "o.mp4")]
    ended = run(install(tmp_path), [*before, "-i", str(film), "-vf", filters, "-c:v", encoder, *output])
    assert (ended.returncode != 0, words in ended.stderr) == (True, True), ended.stderr
    graph = ["-filter_complex", f"[0:v]{filters}[out]", "-map", "[out]"]
    ended = run(install(tmp_path), [*before, "-i", str(film), *graph, "-c:v", encoder, *output])
    assert (ended.returncode != 0, words in ended.stderr) == (True, True), ended.stderr


@pytest.mark.parametrize("uuid", [None, "0", "1"])
def test_a_card_is_chosen_by_uuid_only(film: Path, tmp_path: Path, uuid: str | None) -> None:
    ended = run(install(tmp_path), [*CUDA, "-i", str(film), "-c:v", "h264_nvenc", str(tmp_path / "o.mp4")], uuid=uuid)
    assert ended.returncode != 0
    assert "no CUDA-capable device" in ended.stderr


def test_what_needs_no_card_goes_to_the_real_ffmpeg(film: Path, tmp_path: Path) -> None:
    name = str(tmp_path / "named_cuda_and_h264_nvenc.mkv")
    ended = run(install(tmp_path), ["-v", "error", "-i", str(film), "-c", "copy", name], uuid=None)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "ffmpeg version" in run(install(tmp_path), ["-version"], uuid=None).stdout
