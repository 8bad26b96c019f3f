"""A real NVIDIA GPU: what its driver tells, what it is proved to do, and a session through the daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imageio_ffmpeg
import pytest

from agents.devices.calibration_engines import EngineCalibration
from agents.devices.calibration_plan import CalibrationBounds, best_build, steps_of
from agents.pipelines.capability import PipelineDevice
from agents.pipelines.command_builder import build_command
from agents.pipelines.job import (
    Container,
    Direction,
    FileOutput,
    InputFacts,
    Job,
    Rendition,
    UriInput,
    VideoCodec,
    VideoEncoding,
)
from gpu_balancer.client import Client
from gpu_balancer.hardware import model_row
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.v1 import device_pb2, media_pb2, placement_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agents.devices.golden_probe import ProbeResult
    from agents.devices.identity import DeviceIdentity

pytestmark = [pytest.mark.gpu, pytest.mark.process, pytest.mark.timeout(300)]

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
FACTS = InputFacts(
    width=1280, height=720, video_codec=VideoCodec.H264, bit_depth=8, chroma="4:2:0", has_audio=True, audio_codec="aac"
)


def does(probed: ProbeResult, codec: VideoCodec, direction: Direction) -> bool:
    """Whether the GPU's own engines were seen to do something in 8 bits."""
    return any(
        one.works and one.hardware and (one.codec, one.direction, one.bit_depth) == (codec, direction, 8)
        for one in probed.capabilities
    )


def likeness_db(made: Path, original: Path) -> float:
    """Gives the average PSNR of luminance of a film and its original, scaled to its size."""
    graph = "[1:v][0:v]scale2ref[b][a];[a][b]psnr"
    run = subprocess.run(
        [FFMPEG, "-hide_banner", "-i", str(made), "-i", str(original), "-lavfi", graph, "-f", "null", "-"],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return float(re.findall(r"PSNR y:(\S+)", run.stderr)[-1].replace("inf", "100"))


def size_and_codec(path: Path) -> tuple[str, str]:
    """Reads a film's size and format."""
    told = subprocess.run([FFMPEG, "-hide_banner", "-i", str(path)], capture_output=True, text=True, check=False).stderr
    found = re.search(r"Video: (\w+).*?, (\d+x\d+)", told)
    assert found, told
    return found[2], found[1]


# ------------------------------------------------------------------------------------------------------- inspection


def test_the_driver_names_the_card_wholly(gpu: DeviceIdentity) -> None:
    assert re.fullmatch(r"GPU-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", gpu.id)
    assert gpu.pci_address is not None
    assert re.fullmatch(r"[0-9a-f]{8}:[0-9a-f]{2}:[0-9a-f]{2}\.0", gpu.pci_address)
    assert gpu.driver_version is not None
    assert gpu.driver_version[0].isdigit()
    assert gpu.model != "unknown NVIDIA GPU"
    row = model_row(gpu.model)
    assert gpu.encoder_engines == (row.encoder_engines if row else None)


def test_a_probe_agrees_with_the_table_of_models(gpu: DeviceIdentity, probed: ProbeResult) -> None:
    """A card whose driver is too old for every ffmpeg that was tried says so, and proves nothing against the table."""
    assert probed.fault_message is None
    assert does(probed, VideoCodec.H264, Direction.DECODE)
    assert does(probed, VideoCodec.HEVC, Direction.DECODE)
    row = model_row(gpu.model)
    if row is None or row.encoder_engines is None:
        pytest.skip(f"the table does not know {gpu.model}")
    assert does(probed, VideoCodec.AV1, Direction.DECODE) == row.av1_decode
    trials = [one for one in probed.capabilities if one.hardware and one.direction is Direction.ENCODE]
    if row.encoder_engines and any("driver" in one.message.lower() for one in trials):
        pytest.skip(f"driver {gpu.driver_version} suits none of the ffmpegs")
    assert does(probed, VideoCodec.H264, Direction.ENCODE) == bool(row.encoder_engines)
    assert does(probed, VideoCodec.AV1, Direction.ENCODE) == bool(row.encoder_engines and row.av1_encode)
    for one in trials:
        assert one.works or one.message, f"{one.implementation} failed without a word"


async def test_a_calibration_finds_what_the_table_promises_within_reason(
    gpu: DeviceIdentity, probed: ProbeResult, tmp_path: Path
) -> None:
    """Decoding, scaling and one encoder: streams in device memory, side by side, until the card is full."""
    build = best_build("nvidia", probed.ffmpeg_builds, probed.capabilities)
    assert build is not None
    device = PipelineDevice(
        kind="nvidia",
        id=gpu.id,
        core_count=len(os.sched_getaffinity(0)),
        capabilities=tuple(one for one in probed.capabilities if one.ffmpeg == build.path),
        ffmpeg_builds=(build,),
    )
    steps = steps_of("nvidia", build, device.capabilities)[:3]
    bounds = CalibrationBounds(window=timedelta(seconds=0.5), rounds=3, limit=timedelta(seconds=200))
    figures = await EngineCalibration(device, work=tmp_path, bounds=bounds, clock=SystemClock()).measure(
        steps, lambda _: None
    )
    for figure in figures:
        assert figure.pixels_per_second, figure
        assert figure.streams, figure
        assert figure.pixels_per_second > 100_000_000, "no card is as slow as a few cores"


# -------------------------------------------------------------------------------------------------------- pipelines


def test_the_card_decodes_and_scales_while_the_host_encodes(
    gpu: DeviceIdentity, probed: ProbeResult, film: Path, tmp_path: Path
) -> None:
    """As on a card without NVENC, whatever this one has."""
    device = PipelineDevice(
        kind="nvidia",
        id=gpu.id,
        core_count=len(os.sched_getaffinity(0)),
        capabilities=tuple(
            one for one in probed.capabilities if not (one.hardware and one.direction is Direction.ENCODE)
        ),
        ffmpeg_builds=probed.ffmpeg_builds,
    )
    job = Job(
        session="s",
        attempt=1,
        input=UriInput(uri=str(film)),
        facts=FACTS,
        renditions=(
            Rendition(id="eight", video=VideoEncoding(height=360)),
            Rendition(id="ten", video=VideoEncoding(height=240, codec=VideoCodec.HEVC, bit_depth=10)),
        ),
        outputs=tuple(
            FileOutput(id=name, path=f"{name}.mp4", container=Container.MP4, renditions=(name,))
            for name in ("eight", "ten")
        ),
        allow_software_encode=True,
    )
    command = build_command(job, device, artifacts_dir=str(tmp_path), progress_path=str(tmp_path / "progress"))
    assert "-hwaccel_output_format" in command.argv
    run = subprocess.run(
        command.argv,
        env={**os.environ, **command.env},
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert size_and_codec(tmp_path / "eight.mp4") == ("640x360", "h264")
    assert size_and_codec(tmp_path / "ten.mp4") == ("426x240", "hevc")
    assert likeness_db(tmp_path / "eight.mp4", film) > 25
    assert likeness_db(tmp_path / "ten.mp4", film) > 25


# -------------------------------------------------------------------------------------------------------- the daemon


@pytest.fixture(scope="module")
def daemon(
    gpu: DeviceIdentity, candidates: list[str], film: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A client of a daemon whose GPUs are ready; it places on the one of the tests only."""
    folder = tmp_path_factory.mktemp("daemon")
    settings = folder / "balancer.toml"
    settings.write_text(
        '[server]\nlisten = ["unix:{state_dir}/balancer.sock"]\nhttp = ""\n'
        f'[inputs]\nroots = ["{film.parent}"]\n[ffmpeg]\ncandidates = {json.dumps(candidates)}\n'
        f'[[devices]]\nmatch = "{gpu.id}"\n[[devices]]\nmatch = "*"\nweight = 0\n'
    )
    command = [sys.executable, "-m", "balancer", "--config", str(settings), "--state-dir", str(folder / "state")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    with Client(f"unix:{folder / 'state'}/balancer.sock") as client:
        try:
            _await_ready(client, process, folder / "log")
            yield client
        finally:
            if process.poll() is None:
                client.shutdown(stop_sessions=True)
            process.wait(60)


def _await_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + 200
    while time.monotonic() < deadline_s:
        assert process.poll() is None, log.read_text()
        try:
            devices = list(client.list_devices())
        except RequestFailure:
            continue
        if devices and all(device.state == device_pb2.DEVICE_STATE_READY for device in devices):
            return
        time.sleep(0.2)
    pytest.fail(log.read_text())


def session(film: Path, *, software: bool, **encoding: Any) -> session_pb2.Session:
    """A transcode into two sizes."""
    renditions = [
        media_pb2.Rendition(id=f"{height}p", encode=media_pb2.VideoEncoding(height=height, **encoding))
        for height in (480, 360)
    ]
    outputs = [
        media_pb2.Output(renditions=[one.id], file=media_pb2.FileOutput(path=f"{one.id}.mp4")) for one in renditions
    ]
    spec = media_pb2.TranscodeSpec(
        input=media_pb2.Input(uri=str(film)), renditions=renditions, outputs=outputs, allow_software_encode=software
    )
    return session_pb2.Session(transcode=spec)


def test_the_daemon_measures_the_card(daemon: Client, gpu: DeviceIdentity) -> None:
    deadline_s = time.monotonic() + 20
    while not (device := daemon.get_device(gpu.id)).HasField("measurements"):
        assert time.monotonic() < deadline_s, "nothing was measured"
        time.sleep(0.2)
    assert device.identity.model == gpu.model
    if device.measurements.HasField("temperature_celsius"):
        assert 0 < device.measurements.temperature_celsius < 120
    if device.measurements.HasField("memory_used_mib") and gpu.memory_total_mib is not None:
        assert device.measurements.memory_used_mib <= gpu.memory_total_mib


def own_memory_mib(daemon: Client, gpu: DeviceIdentity) -> int | None:
    """Device memory that others do not use: the driver's and our own. None: not told now."""
    told = daemon.get_device(gpu.id).measurements
    known = told.HasField("memory_used_mib") and told.HasField("foreign_memory_used_mib")
    return told.memory_used_mib - told.foreign_memory_used_mib if known else None


def own_memory_over(daemon: Client, gpu: DeviceIdentity, *, seconds: float) -> list[int]:
    """Gives what our processes hold of the card, a few times."""
    seen = [0 if (used := own_memory_mib(daemon, gpu)) is None else used]
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(0.5)
        if (used := own_memory_mib(daemon, gpu)) is not None:
            seen.append(used)
    return seen


def test_a_session_takes_about_the_device_memory_that_is_booked_for_it(
    daemon: Client, gpu: DeviceIdentity, probed: ProbeResult, film: Path
) -> None:
    asked = session(film, software=True)
    asked.transcode.input.repeat_forever = asked.transcode.input.native_rate = True
    (verdict,) = [one for one in daemon.plan_session(asked).placement.verdicts if one.device == f"devices/{gpu.id}"]
    (booked,) = [
        one.needed for one in verdict.needs if one.dimension == placement_pb2.DIMENSION_MEMORY and not one.host
    ]
    if own_memory_mib(daemon, gpu) is None:
        pytest.skip("this driver does not tell memory by process")
    # What ended just before may still be counted: measurements are a second old.
    before = min(own_memory_over(daemon, gpu, seconds=4))
    name = daemon.create_session(asked).name
    seen: list[int] = []
    end_s = time.monotonic() + 15
    while len(seen) < 20 and time.monotonic() < end_s:
        time.sleep(0.5)
        running = daemon.get_session(name).state == session_pb2.SESSION_STATE_RUNNING
        if running and (used := own_memory_mib(daemon, gpu)) is not None and used > before:
            seen.append(used - before)
    daemon.stop_session(name)
    daemon.wait(name)
    assert seen, "nothing was seen of it"
    assert max(seen) <= 1.1 * booked
    if does(probed, VideoCodec.H264, Direction.ENCODE):
        return  # what encoders hold is estimated for the largest of them
    assert max(seen) >= 0.5 * booked


@pytest.mark.parametrize("turned", [False, True])
def test_a_session_is_transcoded_with_the_engines_that_the_card_has(
    daemon: Client, gpu: DeviceIdentity, probed: ProbeResult, film: Path, tmp_path: Path, turned: bool
) -> None:
    """A turned film is decoded by the host's cores, because only they turn it upright."""
    source = film
    if turned:
        source = film.with_name("turned.mp4")
        command = [FFMPEG, "-loglevel", "error", "-y", "-display_rotation", "90", "-i", str(film), "-c", "copy"]
        subprocess.run([*command, str(source)], check=True, stdin=subprocess.DEVNULL)
    asked = session(source, software=True)
    planned = daemon.plan_session(asked)
    assert planned.placement.device == f"devices/{gpu.id}"
    nvenc = does(probed, VideoCodec.H264, Direction.ENCODE)
    assert ("h264_nvenc" in planned.argv, "-hwaccel" in planned.argv) == (nvenc, not turned)
    ended = daemon.wait(daemon.create_session(asked))
    assert ended.state == session_pb2.SESSION_STATE_SUCCEEDED, ended.failure
    daemon.download_artifacts(ended.name, tmp_path)
    assert size_and_codec(tmp_path / "360p.mp4") == ("202x360" if turned else "640x360", "h264")
    for name in ("480p.mp4", "360p.mp4"):
        assert likeness_db(tmp_path / name, source) > 25


def test_without_leave_for_software_the_card_encodes_or_refuses(
    daemon: Client, gpu: DeviceIdentity, probed: ProbeResult, film: Path
) -> None:
    asked = session(film, software=False)
    if does(probed, VideoCodec.H264, Direction.ENCODE):
        assert "h264_nvenc" in daemon.plan_session(asked).argv
        return
    (verdict,) = [one for one in daemon.plan_session(asked).placement.verdicts if one.device == f"devices/{gpu.id}"]
    assert verdict.refusal.rule == "CAPABILITY"
