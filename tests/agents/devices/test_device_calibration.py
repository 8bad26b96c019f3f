"""What is measured in which order, how the number of streams is found, and real runs on the stand-in for a card."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from agents.devices.calibration import NothingToCalibrateError, calibrate_device
from agents.devices.calibration_cores import CoreCalibration, agreeing
from agents.devices.calibration_engines import EngineCalibration
from agents.devices.calibration_plan import (
    TIME_UP,
    CalibrationBounds,
    CalibrationFigure,
    CalibrationProgress,
    CalibrationStep,
    Work,
    best_build,
    core_arguments,
    steps_of,
)
from agents.devices.calibration_search import Found, Level, find_carried
from agents.devices.identity import DeviceIdentity
from agents.pipelines.capability import Capability, FfmpegBuild, PipelineDevice
from agents.pipelines.job import Direction, EncodingSpeed, VideoCodec
from fakes.nvenc_ffmpeg import install
from gpu_balancer.runtime.clock import SystemClock

UUID = "GPU-7f3c2a10-0001"
OLD = FfmpegBuild(path="/usr/bin/ffmpeg", version="5.1", candidate="/usr/bin/ffmpeg")
NEW = FfmpegBuild(path="/opt/ffmpeg", version="9.0", candidate="bundled")
H264_FAST = CalibrationStep(
    work=Work.ENCODE, codec=VideoCodec.H264, speed=EncodingSpeed.FAST, implementation="h264_nvenc"
)
DECODE = CalibrationStep(work=Work.DECODE, codec=VideoCodec.H264)
SCALE = CalibrationStep(work=Work.SCALE)


def works(
    codec: VideoCodec, direction: Direction, build: FfmpegBuild = NEW, *, hardware: bool = False, bit_depth: int = 8
) -> Capability:
    name = f"{codec}_nvenc" if hardware else f"lib{codec}"
    return Capability(
        codec=codec,
        direction=direction,
        bit_depth=bit_depth,
        implementation=name,
        works=True,
        hardware=hardware,
        ffmpeg=build.path,
    )


def test_the_most_useful_is_measured_first_and_only_what_works() -> None:
    seen = [
        works(VideoCodec.VP9, Direction.DECODE),
        works(VideoCodec.HEVC, Direction.DECODE),
        works(VideoCodec.H264, Direction.DECODE),
        works(VideoCodec.H264, Direction.ENCODE),
        works(VideoCodec.H264, Direction.ENCODE, bit_depth=10),
        works(VideoCodec.AV1, Direction.ENCODE, OLD),
    ]
    assert [str(step) for step in steps_of("cpu", NEW, seen)] == [
        "decoding H.264",
        "scaling",
        "encoding H.264, fast",
        "encoding H.264, fastest",
        "encoding H.264, balanced",
        "encoding H.264, thorough",
        "decoding HEVC",
        "decoding VP9",
    ]


def test_a_gpu_is_measured_for_what_its_own_engines_do() -> None:
    seen = [works(VideoCodec.H264, Direction.DECODE), works(VideoCodec.H264, Direction.ENCODE, hardware=True)]
    steps = steps_of("nvidia", NEW, seen)
    assert {step.work for step in steps} == {Work.ENCODE}, "its host's decoder is not its own"


def test_the_build_that_does_most_is_measured_and_the_preferred_one_of_equals() -> None:
    h264, hevc = works(VideoCodec.H264, Direction.ENCODE, OLD), works(VideoCodec.HEVC, Direction.ENCODE, OLD)
    assert best_build("cpu", (NEW, OLD), (h264, hevc, works(VideoCodec.H264, Direction.ENCODE))) == OLD
    assert best_build("cpu", (NEW, OLD), (h264, works(VideoCodec.H264, Direction.ENCODE))) == NEW
    assert best_build("cpu", (NEW,), ()) is None


def test_cores_encode_with_the_options_of_sessions() -> None:
    step = CalibrationStep(
        work=Work.ENCODE, codec=VideoCodec.HEVC, speed=EncodingSpeed.BALANCED, implementation="libx265"
    )
    argv = core_arguments(step, "/picture", frames=50, threads=2)
    assert argv[argv.index("-preset:v") + 1] == "medium"
    assert "pools=2" in argv[argv.index("-x265-params:v") + 1]
    assert argv[argv.index("-frames:v") + 1] == "50"


async def found(capacity: int, *, refused_from: int = 999, single: int = 10**9) -> tuple[Found, list[int]]:
    """Searches on a device that does so many streams in real time; one alone does at most `single`."""
    tried: list[int] = []

    async def measure(streams: int) -> Level:
        tried.append(streams)
        if streams >= refused_from:
            return Level(streams=streams, failure="OpenEncodeSessionEx failed: out of memory (10)")
        pixels = min(capacity, streams * single)
        return Level(streams=streams, pixels_per_second=pixels * 100, slowest_speed=pixels / streams)

    return await find_carried(measure, most=64), tried


async def test_a_search_ends_as_soon_as_more_streams_bring_no_more_pixels() -> None:
    outcome, tried = await found(40, single=15)
    assert tried == [1, 2, 4, 8]
    assert outcome.best is not None
    assert outcome.best.pixels_per_second == 4000


async def test_a_search_halves_the_gap_where_real_time_ends_before_the_device_is_full() -> None:
    outcome, tried = await found(11, single=1)
    assert tried == [1, 2, 4, 8, 16, 12, 10, 11]
    assert outcome.best is not None
    assert (outcome.best.streams, outcome.best.carried) == (11, True)


async def test_a_device_on_which_one_stream_is_slower_than_real_time_is_told_of_with_what_it_did() -> None:
    outcome, _ = await found(0)
    assert outcome.best is not None
    assert not outcome.best.carried


async def test_a_refused_encoder_session_ends_the_search_at_what_ran_before() -> None:
    outcome, _ = await found(100, single=1, refused_from=6)
    assert outcome.best is not None
    assert outcome.best.streams == 5
    assert outcome.first_failure is not None
    assert "out of memory" in outcome.first_failure.failure


async def test_nothing_is_found_where_nothing_runs() -> None:
    outcome, tried = await found(9, refused_from=1)
    assert (outcome.best, tried) == (None, [1])


async def test_what_was_not_measured_when_the_time_was_up_says_so(tmp_path: Path) -> None:
    bounds = CalibrationBounds(window=timedelta(seconds=1), rounds=3, limit=timedelta(0))
    cores = CoreCalibration("/none", core_count=2, work=tmp_path, bounds=bounds, clock=SystemClock())
    engines = EngineCalibration(card(Path("/none")), work=tmp_path, bounds=bounds, clock=SystemClock())
    for figures in (await cores.measure([DECODE], ignore), await engines.measure([DECODE], ignore)):
        assert figures == (CalibrationFigure(step=DECODE, problem=TIME_UP),)


async def test_a_program_that_cannot_be_started_is_told_of(tmp_path: Path) -> None:
    bounds = CalibrationBounds(window=timedelta(seconds=1), rounds=1, limit=timedelta(seconds=9))
    cores = CoreCalibration("/none", core_count=2, work=tmp_path, bounds=bounds, clock=SystemClock())
    (figure,) = await cores.measure([SCALE], ignore)
    assert figure.pixels_per_second is None
    assert "/none does not exist" in figure.problem


def test_as_many_samples_as_there_are_rounds_have_to_agree_and_the_nearest_count() -> None:
    assert agreeing([100.0], 1) == [100]
    assert agreeing([96.0, 100.0, 98.0], 3) == [96, 98, 100]
    assert agreeing([94.0, 100.0, 98.0], 3) is None
    assert agreeing([100.0, 100.0], 3) is None
    assert agreeing([50.0, 60.0, 70.0, 100.0, 80.0, 99.0, 101.0], 3) == [99, 100, 101], "most were disturbed"


def burning(folder: Path, script: str) -> CoreCalibration:
    """Calibrates with a program that takes 2 ms of core time for each picture, times a factor that a script sets."""
    program, runs = folder / "program", folder / "runs"
    program.write_text(
        f"#!{sys.executable} -S\n"
        "import sys, time\n"
        "pictures = int(sys.argv[sys.argv.index('-frames:v') + 1])\n"
        f"with open({str(runs)!r}, 'a+') as runs:\n"
        "    runs.write('.' if pictures > 80 else '')\n"
        "    full = runs.tell()\n"
        "    factor = 1.0\n"
        f"    {script}\n"
        "until = time.process_time() + pictures * 0.002 * factor\n"
        "while time.process_time() < until:\n"
        "    pass\n"
    )
    program.chmod(0o755)
    bounds = CalibrationBounds(window=timedelta(seconds=0.5), rounds=2, limit=timedelta(seconds=60))
    return CoreCalibration(str(program), core_count=1, work=folder, bounds=bounds, clock=SystemClock())


TRUE = 854 * 480 / 0.002


@pytest.mark.process
async def test_what_does_not_agree_is_measured_again(tmp_path: Path) -> None:
    heard: list[CalibrationProgress] = []
    (figure,) = await burning(tmp_path, "factor = 1.5 if full == 2 else 1.0").measure([SCALE], heard.append)
    assert len((tmp_path / "runs").read_text()) >= 3
    assert [one.message for one in heard[:3]] == [
        "scaling, 1 of 2",
        "scaling, 2 of 2",
        "scaling, once more: its figures do not agree",
    ]
    assert all(one.step < one.step_count for one in heard)
    assert figure.pixels_per_second == pytest.approx(TRUE, rel=0.2)
    assert figure.problem == ""


@pytest.mark.process
async def test_what_never_agrees_says_so(tmp_path: Path) -> None:
    (figure,) = await burning(tmp_path, "factor = 1.2**full").measure([SCALE], ignore)
    assert figure.pixels_per_second is not None
    assert figure.problem.startswith("6 samples are up to 2.")


@pytest.mark.process
async def test_a_run_that_fails_later_takes_no_figure_away(tmp_path: Path) -> None:
    """The first full run is well, the second takes longer, and the third fails, as do those after it."""
    script = "sys.exit(1) if full > 2 else None; factor = 1.0 + full / 4"
    (figure,) = await burning(tmp_path, script).measure([SCALE], ignore)
    assert figure.pixels_per_second == pytest.approx(TRUE / 1.375, rel=0.2)
    assert "2 samples are up to 1." in figure.problem


@pytest.mark.process
async def test_a_figure_that_rests_on_too_few_samples_says_so(tmp_path: Path) -> None:
    (figure,) = await burning(tmp_path, "sys.exit(1) if full > 1 else None").measure([SCALE], ignore)
    assert figure.pixels_per_second == pytest.approx(TRUE, rel=0.2)
    assert figure.problem == "measured 1 times instead of 2"


@pytest.mark.process
async def test_a_start_that_was_disturbed_once_spoils_no_figure(tmp_path: Path) -> None:
    """The first run of one picture takes as long as most of a full one."""
    script = "factor = 150.0 if pictures == 1 and full == 0 and not runs.write(' ') else 1.0"
    (figure,) = await burning(tmp_path, script).measure([SCALE], ignore)
    assert figure.pixels_per_second == pytest.approx(TRUE, rel=0.35)


async def test_a_device_that_does_nothing_is_not_calibrated(tmp_path: Path) -> None:
    device = PipelineDevice(kind="cpu", id="cpu-0", core_count=1, capabilities=(), ffmpeg_builds=(NEW,))
    with pytest.raises(NothingToCalibrateError, match="nothing was seen to work"):
        await calibrate_device(
            DeviceIdentity(id="cpu-0", kind="cpu", model="CPU"),
            device,
            work=tmp_path / "work",
            window=timedelta(seconds=1),
            rounds=1,
            clock=SystemClock(),
            report=ignore,
        )
    assert not (tmp_path / "work").exists()


def ignore(_: CalibrationProgress) -> None:
    """Hears of progress and does nothing."""


def card(program: Path) -> PipelineDevice:
    """A card that decodes and encodes H.264 with a program."""
    build = FfmpegBuild(path=str(program), version="9.0", candidate=str(program))
    seen = [works(VideoCodec.H264, direction, build, hardware=True) for direction in Direction]
    return PipelineDevice(kind="nvidia", id=UUID, core_count=2, capabilities=tuple(seen), ffmpeg_builds=(build,))


@pytest.mark.process
async def test_a_card_is_measured_by_real_pipelines_side_by_side(tmp_path: Path) -> None:
    device = card(install(tmp_path, lacking={UUID: ["hevc_nvenc"]}))
    told: list[CalibrationProgress] = []
    bounds = CalibrationBounds(window=timedelta(seconds=0.1), rounds=1, limit=timedelta(seconds=60))
    calibration = EngineCalibration(device, work=tmp_path, bounds=bounds, clock=SystemClock())
    lacking = CalibrationStep(
        work=Work.ENCODE, codec=VideoCodec.HEVC, speed=EncodingSpeed.FAST, implementation="hevc_nvenc"
    )
    scale, encode, missing = await calibration.measure([SCALE, H264_FAST, lacking], told.append)
    for figure in (scale, encode):
        assert figure.pixels_per_second, figure
        assert figure.stream_size
    assert missing.pixels_per_second is None
    assert missing.problem
    assert {progress.step for progress in told} == {0, 1, 2}
    assert any("1 side by side" in progress.message for progress in told)
