"""The golden probe with real ffmpegs: on the processor, up to a missing driver, and on stand-in cards."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from datetime import timedelta
from pathlib import Path

import imageio_ffmpeg
import pytest

from agents.devices import golden_probe
from agents.devices.cpu import cpu_identity
from agents.devices.golden_probe import ProbeResult, probe_device
from agents.devices.identity import DeviceIdentity, DeviceKind
from agents.devices.probe_store import ProbeStore
from agents.devices.probe_trials import Trial, trials_of
from agents.pipelines.capability import Capability, PipelineDevice
from agents.pipelines.coders import choose_coders
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
from fakes.nvenc_ffmpeg import install

pytestmark = pytest.mark.process

BUNDLED = imageio_ffmpeg.get_ffmpeg_exe()
GPU = DeviceIdentity(id="GPU-7f3c2a10-0001", kind="nvidia", model="NVIDIA L4", driver_version="570.1")
CPU = cpu_identity("cpu-0")


def try_only(monkeypatch: pytest.MonkeyPatch, *wanted: tuple[VideoCodec, int], hardware_only: bool = False) -> None:
    """Leaves out what a test says nothing about: each trial is several runs of ffmpeg."""

    def few(kind: DeviceKind) -> tuple[Trial, ...]:
        return tuple(
            trial
            for trial in trials_of(kind)
            if (not wanted or (trial.codec, trial.bit_depth) in wanted) and (trial.hardware or not hardware_only)
        )

    monkeypatch.setattr(golden_probe, "trials_of", few)


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries H.264 and 8-bit HEVC alone, for tests that need codecs and depths to differ."""
    try_only(monkeypatch, (VideoCodec.H264, 8), (VideoCodec.H264, 10), (VideoCodec.HEVC, 8))


@pytest.fixture
def h264_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries 8-bit H.264 alone, for tests that are about something else than codecs."""
    try_only(monkeypatch, (VideoCodec.H264, 8))


def script(path: Path, text: str) -> str:
    """Writes a program of sh that stands for an ffmpeg; `$REAL` is the bundled one."""
    path.write_text(f"#!/bin/sh\nREAL={BUNDLED}\n{textwrap.dedent(text)}")
    path.chmod(0o755)
    return str(path)


def counting(path: Path) -> str:
    """An ffmpeg that writes a line into `runs` beside it at each run but that for its version."""
    return script(path, f'case "$*" in *-version*) ;; *) echo "$*" >> {path.parent}/runs ;; esac\nexec "$REAL" "$@"\n')


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def runs_of(folder: Path) -> list[str]:
    path = folder / "runs"
    return path.read_text().splitlines() if path.exists() else []


def found(
    result: ProbeResult, direction: Direction, codec: VideoCodec, bit_depth: int, *, hardware: bool
) -> Capability:
    (capability,) = [
        capability
        for capability in result.capabilities
        if (capability.direction, capability.codec, capability.bit_depth, capability.hardware)
        == (direction, codec, bit_depth, hardware)
    ]
    return capability


async def test_a_cpu_device_encodes_and_decodes_everything_with_the_bundled_ffmpeg(tmp_path: Path) -> None:
    result = await probe_device(CPU, ["bundled"], state_folder=tmp_path)
    assert result.fault_message is None
    assert [capability for capability in result.capabilities if not capability.works] == []
    encoders = {
        (capability.codec, capability.bit_depth, capability.implementation)
        for capability in result.capabilities
        if capability.direction is Direction.ENCODE
    }
    assert encoders == {
        (VideoCodec.H264, 8, "libx264"),
        (VideoCodec.H264, 10, "libx264"),
        (VideoCodec.HEVC, 8, "libx265"),
        (VideoCodec.HEVC, 10, "libx265"),
        (VideoCodec.AV1, 8, "libsvtav1"),
        (VideoCodec.AV1, 10, "libsvtav1"),
    }
    decoders = {
        (capability.codec, capability.bit_depth)
        for capability in result.capabilities
        if capability.direction is Direction.DECODE
    }
    eight_bit = [codec for codec in VideoCodec if codec is not VideoCodec.OTHER]
    ten_bit = [VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1, VideoCodec.VP9]
    assert decoders == {(codec, 8) for codec in eight_bit} | {(codec, 10) for codec in ten_bit}
    assert found(result, Direction.DECODE, VideoCodec.AV1, 8, hardware=False).implementation == "libdav1d"
    assert {capability.ffmpeg for capability in result.capabilities} == {BUNDLED}


@pytest.mark.usefixtures("h264_trials")
async def test_kept_outcomes_spare_every_run_but_the_one_for_the_version(tmp_path: Path) -> None:
    program = counting(tmp_path / "ffmpeg")
    first = await probe_device(CPU, [program], state_folder=tmp_path)
    assert runs_of(tmp_path)
    (tmp_path / "runs").unlink()
    assert await probe_device(CPU, [program], state_folder=tmp_path) == first
    assert runs_of(tmp_path) == []


@pytest.mark.usefixtures("h264_trials")
async def test_a_probe_asked_for_anew_tries_everything_again(tmp_path: Path) -> None:
    program = counting(tmp_path / "ffmpeg")
    await probe_device(CPU, [program], state_folder=tmp_path)
    count = len(runs_of(tmp_path))
    await probe_device(CPU, [program], state_folder=tmp_path, refresh=True)
    assert len(runs_of(tmp_path)) == 2 * count


@pytest.mark.usefixtures("few_trials")
async def test_a_card_in_question_is_tried_again_without_the_software_that_went_well(tmp_path: Path) -> None:
    program = counting(tmp_path / "ffmpeg")
    sick = await probe_device(GPU, [program], state_folder=tmp_path)
    assert found(sick, Direction.DECODE, VideoCodec.H264, 8, hardware=False).works
    (tmp_path / "runs").unlink()
    assert await probe_device(GPU, [program], state_folder=tmp_path, refresh=True) == sick
    runs = runs_of(tmp_path)
    judged = [run for run in runs if "psnr" in run]
    assert len(judged) == 3, "each decoder of the card once more, and no software"
    assert all("-hwaccel cuda" in run for run in judged)
    assert sum("_nvenc" in run for run in runs) >= 3


@pytest.mark.usefixtures("h264_trials")
async def test_a_replaced_ffmpeg_is_tried_anew(tmp_path: Path) -> None:
    program = counting(tmp_path / "ffmpeg")
    await probe_device(CPU, [program], state_folder=tmp_path)
    count = len(runs_of(tmp_path))
    os.utime(program, ns=(1, 1))
    await probe_device(CPU, [program], state_folder=tmp_path)
    assert len(runs_of(tmp_path)) == 2 * count


@pytest.mark.usefixtures("h264_trials")
async def test_a_spoilt_store_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "probe.json").write_text('{"version": 1, "outcomes": {"a": [')
    result = await probe_device(CPU, ["bundled"], state_folder=tmp_path)
    assert result.fault_message is None
    assert json.loads((tmp_path / "probe.json").read_text())["version"] == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[" * 100_000,
        b"1" * 5000,
        b"7",
        b"[]",
        b"{}",
        b'{"version": 1, "outcomes": 7}',
        b'{"version": 1, "outcomes": {"a": []}}',
        b'{"version": 1, "outcomes": {"a": {"works": true, "unheard": 1}}}',
        b'{"version": 1, "outcomes": {"a": {"works": false, "message": 7}}}',
    ],
    ids=range(11),
)
def test_a_store_that_cannot_be_read_is_empty_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "probe.json").write_bytes(content)
    assert ProbeStore(tmp_path / "probe.json").load() == {}
    assert f"Cannot read {tmp_path / 'probe.json'}" in caplog.text


@pytest.mark.usefixtures("h264_trials")
async def test_a_store_keeps_its_secrets_to_its_user_and_leaves_no_samples(tmp_path: Path) -> None:
    await probe_device(CPU, ["bundled"], state_folder=tmp_path)
    assert names_in(tmp_path) == ["probe.json"]
    assert stat.S_IMODE((tmp_path / "probe.json").stat().st_mode) == 0o600


def builds_of(
    result: ProbeResult, direction: Direction, codec: VideoCodec, bit_depth: int, *, hardware: bool
) -> list[str]:
    """The ffmpegs that were proved to do one thing, in order."""
    return [
        one.ffmpeg
        for one in result.capabilities
        if (one.direction, one.codec, one.bit_depth, one.hardware) == (direction, codec, bit_depth, hardware)
        and one.works
    ]


@pytest.mark.usefixtures("few_trials")
async def test_the_next_candidate_does_what_the_first_cannot(tmp_path: Path) -> None:
    """A build without x265 first. Since neither of them can be left out, each is told with all that it does."""
    poor = script(
        tmp_path / "poor",
        """
        case "$*" in *libx265*) echo "[error] Unknown encoder 'libx265'" >&2; exit 8 ;; esac
        exec "$REAL" "$@"
        """,
    )
    result = await probe_device(CPU, [poor, "bundled"], state_folder=tmp_path)
    assert [build.candidate for build in result.ffmpeg_builds] == [poor, "bundled"]
    assert builds_of(result, Direction.ENCODE, VideoCodec.HEVC, 8, hardware=False) == [BUNDLED]
    assert builds_of(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=False) == [poor, BUNDLED]
    assert builds_of(result, Direction.DECODE, VideoCodec.HEVC, 8, hardware=False) == [poor, BUNDLED]
    assert await probe_device(CPU, [poor, "bundled"], state_folder=tmp_path) == result, "kept outcomes tell the same"


@pytest.mark.usefixtures("h264_trials")
async def test_a_candidate_that_adds_nothing_costs_nothing(tmp_path: Path) -> None:
    spare = counting(tmp_path / "ffmpeg")
    result = await probe_device(CPU, ["bundled", spare], state_folder=tmp_path)
    assert [build.candidate for build in result.ffmpeg_builds] == ["bundled", spare]
    assert runs_of(tmp_path) == []
    assert {capability.ffmpeg for capability in result.capabilities} == {BUNDLED}


@pytest.mark.usefixtures("h264_trials")
async def test_an_older_ffmpeg_whose_encoder_suits_the_driver_is_told_with_its_decoder(tmp_path: Path) -> None:
    """The newest one asks for a newer driver to encode, and decodes all the same: no session must lose NVDEC by it."""
    new = script(
        tmp_path / "new",
        f"""
        case "$*" in *_nvenc*) echo "[error] Driver does not support the required nvenc API version" >&2; exit 1 ;; esac
        exec {install(tmp_path)} "$@"
        """,
    )
    old = str(tmp_path / "nvenc-ffmpeg")
    result = await probe_device(GPU, [new, old], state_folder=tmp_path)
    assert builds_of(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=True) == [old]
    assert builds_of(result, Direction.DECODE, VideoCodec.H264, 8, hardware=True) == [new, old]
    device = PipelineDevice(
        kind="nvidia",
        id=GPU.id,
        core_count=2,
        capabilities=result.capabilities,
        ffmpeg_builds=result.ffmpeg_builds,
    )
    job = Job(
        session="s",
        attempt=1,
        input=UriInput(uri="/media/a.mp4"),
        facts=InputFacts(width=1280, height=720, video_codec=VideoCodec.H264),
        renditions=(Rendition(id="r", video=VideoEncoding(height=360)),),
        outputs=(FileOutput(id="o", path="o.mp4", container=Container.MP4),),
    )
    coders = choose_coders(job, device)
    assert (coders.build.path, coders.hardware_decode) == (old, True)


async def test_what_no_candidate_can_do_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try_only(monkeypatch, (VideoCodec.H264, 8), (VideoCodec.AV1, 8), (VideoCodec.AV1, 10))
    poor = script(
        tmp_path / "poor",
        """
        case "$*" in *libsvtav1*) echo "[vost#0:0 @ 0x1] [error] Unknown encoder 'libsvtav1'" >&2; exit 8 ;; esac
        exec "$REAL" "$@"
        """,
    )
    result = await probe_device(CPU, [poor], state_folder=tmp_path)
    encoder = found(result, Direction.ENCODE, VideoCodec.AV1, 8, hardware=False)
    assert (encoder.works, encoder.message) == (False, "Unknown encoder 'libsvtav1'")
    decoder = found(result, Direction.DECODE, VideoCodec.AV1, 8, hardware=False)
    assert not decoder.works
    assert "no ffmpeg could make a sample" in decoder.message
    assert result.fault_message is None


@pytest.mark.usefixtures("h264_trials")
async def test_wrong_pictures_do_not_pass(tmp_path: Path) -> None:
    """An encoder that ends well and gives another picture than it was given."""
    liar = script(
        tmp_path / "liar",
        """
        for last; do :; done
        case "$*" in *libx264*) exec "$REAL" -loglevel error -y -f lavfi \
            -i color=green:size=320x192:rate=25:duration=1 -c:v libx264 "$last" ;; esac
        exec "$REAL" "$@"
        """,
    )
    result = await probe_device(CPU, [liar], state_folder=tmp_path)
    encoder = found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=False)
    assert not encoder.works
    assert "wrong pictures" in encoder.message


@pytest.mark.usefixtures("few_trials")
async def test_eight_bits_do_not_pass_for_ten(tmp_path: Path) -> None:
    cheat = script(
        tmp_path / "cheat",
        """
        for last; do :; done
        case "$*" in *yuv420p10le*libx264*) exec "$REAL" -loglevel error -y -f lavfi \
            -i testsrc2=size=320x192:rate=25:duration=1 -pix_fmt yuv420p -c:v libx264 "$last" ;; esac
        exec "$REAL" "$@"
        """,
    )
    result = await probe_device(CPU, [cheat], state_folder=tmp_path)
    assert found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=False).works
    encoder = found(result, Direction.ENCODE, VideoCodec.H264, 10, hardware=False)
    assert (encoder.works, encoder.message) == (False, "10-bit encoding is not supported: it gave 8 bits")


async def test_a_trial_that_hangs_is_killed_with_its_children_and_tried_again_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try_only(monkeypatch, (VideoCodec.H264, 8), (VideoCodec.VP9, 8), (VideoCodec.VP9, 10))
    hanging = script(
        tmp_path / "hanging",
        f"""
        case "$*" in *libvpx-vp9*) sleep 600 & echo $! >> {tmp_path}/pids; echo $$ >> {tmp_path}/pids; wait ;; esac
        exec "$REAL" "$@"
        """,
    )
    result = await probe_device(CPU, [hanging], state_folder=tmp_path, trial_timeout=timedelta(seconds=3))
    decoder = found(result, Direction.DECODE, VideoCodec.VP9, 8, hardware=False)
    assert (decoder.works, "did not end in time" in decoder.message) == (False, True)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4
    assert [pid for pid in pids if is_running(pid)] == []
    kept = json.loads((tmp_path / "probe.json").read_text())["outcomes"]
    assert not any("vp9" in key for key in kept), "a deadline says nothing lasting"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


async def test_missing_and_old_candidates_are_told_with_what_to_install(tmp_path: Path) -> None:
    old = script(tmp_path / "old", 'echo "ffmpeg version 4.2.7"; echo "  libavcodec     58. 54.100 / 58. 54.100"\n')
    plain = tmp_path / "plain"
    plain.write_text("no program")
    result = await probe_device(CPU, [str(tmp_path / "missing"), old, str(plain)], state_folder=tmp_path)
    assert result.ffmpeg_builds == ()
    assert result.capabilities == ()
    assert result.fault_message is not None
    for word in [
        "there is no such file",
        "4.2.7 is too old",
        "not executable",
        "4.4 or newer",
        "apt-get install ffmpeg",
    ]:
        assert word in result.fault_message


@pytest.mark.usefixtures("h264_trials")
async def test_a_build_from_git_counts_by_its_libraries(tmp_path: Path) -> None:
    program = script(
        tmp_path / "git",
        """
        case "$*" in *-version*) echo "ffmpeg version N-119584-g7b3"; echo "  libavcodec     61. 33.100 / 61. 33.100" ;;
        *) exec "$REAL" "$@" ;; esac
        """,
    )
    result = await probe_device(CPU, [program], state_folder=tmp_path)
    assert [build.version for build in result.ffmpeg_builds] == ["N-119584-g7b3"]


@pytest.mark.usefixtures("h264_trials")
async def test_a_scaler_that_blackens_pictures_is_told_by_its_options(tmp_path: Path) -> None:
    """On a GPU only: nothing else is scaled by it."""
    older = script(
        tmp_path / "older",
        """
        case "$*" in *filter=scale_cuda*) "$REAL" "$@" | grep -v use_filters ;; *) exec "$REAL" "$@" ;; esac
        """,
    )
    asked = [(GPU, BUNDLED, True), (GPU, older, False), (CPU, BUNDLED, False)]
    for device, program, blackens in asked:
        (build,) = (await probe_device(device, [str(program)], state_folder=tmp_path)).ffmpeg_builds
        assert build.scaler_blackens is blackens


@pytest.mark.usefixtures("h264_trials")
async def test_one_program_under_two_names_is_one_build(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(BUNDLED)
    result = await probe_device(CPU, ["bundled", str(link)], state_folder=tmp_path)
    assert [build.candidate for build in result.ffmpeg_builds] == ["bundled"]


async def test_a_gpu_without_a_driver_is_a_fault_that_names_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real ffmpeg up to where the driver is missing: a wrong option would be told otherwise."""
    try_only(monkeypatch, hardware_only=True)
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a driver")
    result = await probe_device(GPU, ["bundled"], state_folder=tmp_path)
    hardware = [capability for capability in result.capabilities if capability.hardware]
    assert {capability.message for capability in hardware} == {"Cannot load libcuda.so.1"}
    assert result.fault_message is not None
    assert "Cannot load libcuda.so.1" in result.fault_message
    assert "NVIDIA_DRIVER_CAPABILITIES" in result.fault_message
    kept = json.loads((tmp_path / "probe.json").read_text())["outcomes"]
    assert not any("nvenc" in key or "nvdec" in key for key in kept), "a library may be there at the next start"


async def test_a_card_that_works_does_all_in_hardware_and_its_host_in_software_too(tmp_path: Path) -> None:
    result = await probe_device(GPU, [str(install(tmp_path))], state_folder=tmp_path)
    assert result.fault_message is None
    assert [capability.message for capability in result.capabilities if not capability.works] == []
    encoder = found(result, Direction.ENCODE, VideoCodec.HEVC, 10, hardware=True)
    assert encoder.implementation == "hevc_nvenc"
    assert found(result, Direction.DECODE, VideoCodec.AV1, 10, hardware=True).implementation == "av1_nvdec"
    assert found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=False).implementation == "libx264"


async def test_a_card_without_nvenc_still_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try_only(monkeypatch, (VideoCodec.H264, 8), (VideoCodec.HEVC, 8), (VideoCodec.AV1, 8))
    lacking = {GPU.id: ["h264_nvenc", "hevc_nvenc", "av1_nvenc", "av1_nvdec"]}
    program = str(install(tmp_path, lacking=lacking))
    result = await probe_device(GPU, [program], state_folder=tmp_path)
    assert result.fault_message is None
    encoder = found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=True)
    assert (encoder.works, "unsupported device" in encoder.message) == (False, True)
    assert found(result, Direction.DECODE, VideoCodec.H264, 8, hardware=True).works
    assert not found(result, Direction.DECODE, VideoCodec.AV1, 8, hardware=True).works
    assert found(result, Direction.DECODE, VideoCodec.AV1, 8, hardware=False).works
    kept = json.loads((tmp_path / "probe.json").read_text())["outcomes"]
    assert any("h264_nvenc" in key for key in kept), "a card that says it cannot will not by itself"


@pytest.mark.usefixtures("h264_trials")
async def test_cards_of_one_machine_are_told_apart_by_uuid(tmp_path: Path) -> None:
    program = str(install(tmp_path, lacking={"GPU-other": ["h264_nvenc"]}))
    assert found(
        await probe_device(GPU, [program], state_folder=tmp_path), Direction.ENCODE, VideoCodec.H264, 8, hardware=True
    ).works
    other = DeviceIdentity(id="GPU-other", kind="nvidia", model="NVIDIA L4", driver_version="570.1")
    result = await probe_device(other, [program], state_folder=tmp_path)
    assert not found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=True).works


@pytest.mark.usefixtures("few_trials")
async def test_ten_bits_are_tried_on_their_own(tmp_path: Path) -> None:
    program = str(install(tmp_path, lacking={GPU.id: ["h264_nvenc:10"]}))
    result = await probe_device(GPU, [program], state_folder=tmp_path)
    assert found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=True).works
    assert not found(result, Direction.ENCODE, VideoCodec.H264, 10, hardware=True).works
    assert found(result, Direction.ENCODE, VideoCodec.HEVC, 8, hardware=True).works


@pytest.mark.usefixtures("h264_trials")
async def test_taken_encoder_sessions_are_awaited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GeForce drivers cap sessions per machine, and the agents of other cards probe at the same time."""
    monkeypatch.setattr(golden_probe, "_SESSION_RETRY_S", 0.0)
    card = install(tmp_path)
    busy = script(
        tmp_path / "busy",
        f"""
        case "$*" in *h264_nvenc*-b:v*) if [ ! -e {tmp_path}/was-busy ]; then touch {tmp_path}/was-busy
            echo "[h264_nvenc @ 0x1] [error] OpenEncodeSessionEx failed: out of memory (10)" >&2; exit 1; fi ;; esac
        exec {card} "$@"
        """,
    )
    result = await probe_device(GPU, [busy], state_folder=tmp_path)
    assert (tmp_path / "was-busy").exists()
    assert found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=True).works


@pytest.mark.usefixtures("h264_trials")
async def test_a_driver_that_hangs_costs_two_deadlines(tmp_path: Path) -> None:
    hanging = script(
        tmp_path / "hanging",
        f"""
        case "$*" in *cuda=gpu*) echo run >> {tmp_path}/hung; sleep 600 ;; esac
        exec "$REAL" "$@"
        """,
    )
    result = await probe_device(GPU, [hanging], state_folder=tmp_path, trial_timeout=timedelta(seconds=2))
    assert len((tmp_path / "hung").read_text().split()) <= 3, "two at once, and one more while the second still hung"
    assert result.fault_message is not None
    assert found(result, Direction.ENCODE, VideoCodec.H264, 8, hardware=False).works


def test_an_agent_killed_in_the_middle_leaves_nothing_wrong(tmp_path: Path) -> None:
    """kill -9 while a trial runs; the next start clears up, tries and is right."""
    slow = script(
        tmp_path / "slow",
        f"""
        case "$*" in *libx265*) if [ ! -e {tmp_path}/again ]; then echo $$ > {tmp_path}/pid; exec sleep 600; fi ;; esac
        exec "$REAL" "$@"
        """,
    )
    state = tmp_path / "state"
    state.mkdir()
    program = textwrap.dedent(f"""
        import asyncio, pathlib
        from datetime import timedelta
        from agents.devices import golden_probe
        from agents.devices.cpu import cpu_identity
        from agents.devices.golden_probe import probe_device
        from agents.devices.probe_trials import trials_of
        golden_probe.trials_of = lambda kind: [one for one in trials_of(kind) if one.codec in ("h264", "hevc")]
        probing = probe_device(
            cpu_identity("cpu-0"), ["{slow}"], state_folder=pathlib.Path("{state}"), trial_timeout=timedelta(seconds=2)
        )
        print(asyncio.run(probing).fault_message)
    """)
    agent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    pid_path = tmp_path / "pid"
    while not (pid_path.exists() and pid_path.read_text().strip()):
        assert agent.poll() is None
    agent.send_signal(signal.SIGKILL)
    agent.communicate()
    orphan = os.pidfd_open(int(pid_path.read_text()))
    (tmp_path / "again").touch()
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert second.stdout == "None\n"
    assert names_in(state) == ["probe.json"]
    # The trial that was left alone ends at its bound, without anybody to end it.
    ended = subprocess.run(
        [sys.executable, "-c", f"import select; print(len(select.select([{orphan}], [], [], 20)[0]))"],
        pass_fds=[orphan],
        capture_output=True,
        text=True,
        check=True,
    )
    os.close(orphan)
    assert ended.stdout == "1\n"
