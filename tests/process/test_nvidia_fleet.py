"""Whole daemons on machines of NVIDIA GPUs: inspection, weights, placement and transcoding as a user sees them.

The driver library and the engines are fakes, see `gpu_fleet`; daemon, agents, command, ffmpeg's argument lists and
media are real.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from asked import FFMPEG, await_state, done, encoded, live_input, make_media, to_file, transcode_of, with_sound
from daemons import eventually
from decoded import decode, likeness_db
from gpu_fleet import ADA, BEFORE_ADA, DRIVER, NO_NVENC, Fleet, fingerprint_of, fleet_running, kept_outcomes, uuid

from agents.devices.probe_store import ProbeStore
from fakes.nvml_library import (
    GPU_IS_LOST,
    HOPPER,
    NOT_SUPPORTED,
    TURING,
    UNKNOWN_ERROR,
    FakeGpu,
    FakeNvml,
)
from gpu_balancer.client import Client
from gpu_balancer.client.retries import RetryPolicy
from gpu_balancer.hardware import engine_frames_per_second
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import media_pb2, placement_pb2, session_pb2
from gpu_balancer.v1.placement_pb2 import Placement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from daemons import RunningDaemon, StartDaemon

# Nine processes begin at once for the largest fleet, beside whatever else the machine does.
pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

L4 = FakeGpu(uuid=uuid(0x14), bus=0x65, video_clock_mhz=1770, encoder_sessions=0, temperature=41)
T4 = FakeGpu(
    uuid=uuid(0x04), name="Tesla T4", architecture=TURING, bus=0x05, memory_total_bytes=16 << 30, video_clock_mhz=1470
)
H200 = FakeGpu(uuid=uuid(0x200), name="NVIDIA H200", architecture=HOPPER, bus=0x19, memory_total_bytes=141 << 30)
MYSTERY = FakeGpu(uuid=uuid(0x99), name="NVIDIA Mystery 9000", architecture=99, domain=0x10, bus=0x3B)
UNEQUAL = (T4, L4, H200, MYSTERY)
UNEQUAL_LACKING = {T4.uuid: BEFORE_ADA, L4.uuid: ADA, H200.uuid: (*NO_NVENC, "av1_nvdec"), MYSTERY.uuid: BEFORE_ADA}
MANY = tuple(
    FakeGpu(uuid=uuid(0x1000 + number), bus=number + 1, name="NVIDIA RTX 4000 Ada" if number == 3 else "NVIDIA L4")
    for number in range(8)
)
MANY_WEIGHTS = (100, 66, 33, 10, *(0,) * 4)
MANY_CAPS = (2, 2, 2, 1, *(0,) * 4)
FACTS = media_pb2.InputFacts(width=320, height=180, video_codec=media_pb2.VIDEO_CODEC_H264)
NO_FFMPEG = '[ffmpeg]\ncandidates = ["/nonexistent/ffmpeg"]\n'
"""For daemons whose devices do not matter: probing takes its time."""
NAMES = {f"devices/{gpu.uuid}": number for number, gpu in enumerate(MANY)}


def many_settings(policy: str) -> str:
    """Weights by UUID, PCI address, index and model pattern; the rest takes nothing."""
    matches = (MANY[0].uuid, "00000000:02:00.0", "2", "rtx 4000*")
    devices = "".join(
        f'[[devices]]\nmatch = "{match}"\nweight = {weight}\nencoder_sessions = {cap}\n'
        for match, weight, cap in zip(matches, MANY_WEIGHTS, MANY_CAPS, strict=False)
    )
    return f'[placement]\npolicy = "{policy}"\n{devices}[[devices]]\nmatch = "*"\nweight = 0\n'


@pytest.fixture(scope="module")
def inputs(media: Path) -> str:
    """Settings that let daemons read the tests' media."""
    return f'[inputs]\nroots = ["{media}"]\n'


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, inputs: str) -> Iterator[Fleet]:
    """One GPU, probed for real."""
    lacking = {L4.uuid: ADA}
    with fleet_running(tmp_path_factory.mktemp("one"), [L4], inputs, lacking=lacking, probed=False) as fleet:
        fleet.daemon.await_devices_ready(timeout_s=60)
        yield fleet


@pytest.fixture(scope="module")
def unequal(tmp_path_factory: pytest.TempPathFactory, inputs: str) -> Iterator[Fleet]:
    """Four unequal GPUs of which nothing is said in the settings."""
    with fleet_running(tmp_path_factory.mktemp("four"), UNEQUAL, inputs, lacking=UNEQUAL_LACKING) as fleet:
        fleet.daemon.await_devices_ready(len(UNEQUAL), timeout_s=120)
        yield fleet


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory, inputs: str) -> Iterator[Fleet]:
    """Eight GPUs, weighted by hand."""
    settings = inputs + many_settings("least_weighted_load")
    lacking = dict.fromkeys((gpu.uuid for gpu in MANY), ADA)
    with fleet_running(tmp_path_factory.mktemp("many"), MANY, settings, lacking=lacking) as fleet:
        fleet.daemon.await_devices_ready(len(MANY), timeout_s=240)
        yield fleet


def told(fleet: Fleet, number: int = 0) -> dict[str, Any]:
    """A device as `gpu-balancer devices --json` tells it now."""
    device: dict[str, Any] = fleet.daemon.json("devices")["devices"][number]
    return device


def argv_of(fleet: Fleet, session: session_pb2.Session) -> list[str]:
    """The arguments with which a session's ffmpeg was started."""
    argv: list[str] = json.loads((fleet.daemon.attempt_folder(session.name) / "launch.json").read_text())["argv"]
    return argv


def after(argv: Sequence[str], option: str) -> str:
    """The value of an option."""
    return argv[list(argv).index(option) + 1]


def refusals(placement: Placement) -> dict[str, str]:
    """The rule by which each device refused, by device."""
    return {
        one.device.removeprefix("devices/"): one.refusal.rule for one in placement.verdicts if one.HasField("refusal")
    }


def refused(fleet: Fleet, asked: session_pb2.Session) -> tuple[RequestFailure, dict[str, str]]:
    """Asks once for a session that no device takes."""
    impatient = RetryPolicy(patience=timedelta(0))
    with Client(fleet.daemon.address, retry_policy=impatient) as client, pytest.raises(RequestFailure) as caught:
        client.create_session(asked)
    (placement,) = [detail for detail in caught.value.details if isinstance(detail, Placement)]
    return caught.value, refusals(placement)


def live(media: Path) -> session_pb2.Session:
    """A session of one small H.264 rendition that lasts."""
    return transcode_of(live_input(media / "long.mp4"), with_sound(encoded(height=90), "none"))


@contextlib.contextmanager
def stopped_after(client: Client) -> Iterator[Callable[[session_pb2.Session], session_pb2.Session]]:
    """Gives a way to create sessions that are gone afterwards, whatever happens."""
    made: list[str] = []

    def create(asked: session_pb2.Session) -> session_pb2.Session:
        session = client.create_session(asked)
        made.append(session.name)
        return session

    try:
        yield create
    finally:
        for name in made:
            client.stop_session(name)
        for name in made:
            client.wait(name)


# ---------------------------------------------------------------------------------------------------- one GPU, probed


def test_a_gpu_is_told_with_all_that_its_driver_and_the_table_know(single: Fleet) -> None:
    device = told(single)
    assert device["identity"] == {
        "id": L4.uuid,
        "kind": "DEVICE_KIND_NVIDIA",
        "model": "NVIDIA L4",
        "architecture": "Ada",
        "pciAddress": "00000000:65:00.0",
        "index": 0,
        "driverVersion": DRIVER,
        "memoryTotalMib": "24576",
        "encoderEngines": 2,
        "decoderEngines": 4,
        "videoClockMhz": 1770,
        "tableModel": "L4",
        "cores": [],
    }
    assert (device["weight"], device["weightSource"]) == (100, "capacity")
    words = single.daemon.cli("devices").stdout.split("\t")
    assert words[-2:] == ["h264 hevc/10 av1/10", "h264/10 hevc/10 av1/10 vp8 vp9/10 mpeg2 mpeg4 mjpeg\n"]


def test_a_real_probe_keeps_what_the_other_fleets_begin_with(single: Fleet) -> None:
    """Only the names of software decoders are ffmpeg's choice."""
    folder = single.daemon.state_dir
    fingerprint = asyncio.run(fingerprint_of(folder.parent / "nvenc-ffmpeg"))
    kept = ProbeStore(folder / "agents" / L4.uuid / "probe.json").load()
    plain = {key: replace(outcome, implementation=None) for key, outcome in kept.items()}
    assert plain == kept_outcomes(L4, fingerprint, ADA)


def test_measurements_are_live_and_what_is_not_supported_is_unset(single: Fleet) -> None:
    busy = replace(
        L4,
        temperature=71,
        encoder_utilization=37,
        decoder_utilization=12,
        gpu_utilization=9,
        encoder_sessions=3,
        memory_used_bytes=2 << 30,
    )
    single.describe(busy)
    try:
        measured = eventually(
            lambda: (now := told(single)["measurements"]).get("temperatureCelsius") == 71 and now, "71 °C are told"
        )
        measured.pop("measureTime")
        assert measured == {
            "encoderUtilizationPercent": 37,
            "decoderUtilizationPercent": 12,
            "computeUtilizationPercent": 9,
            "memoryUsedMib": "2048",
            "encoderSessions": 3,
            "temperatureCelsius": 71,
            # NVML lists no process with encoders, so none is anybody's.
            "foreignEncoderSessions": 0,
            "foreignEncoderUtilizationPercent": 0,
            "foreignDecoderUtilizationPercent": 0,
            "foreignMemoryUsedMib": "0",
        }
        silent = (
            "nvmlDeviceGetEncoderUtilization",
            "nvmlDeviceGetEncoderStats",
            "nvmlDeviceGetMemoryInfo",
            "nvmlDeviceGetEncoderSessions",
            "nvmlDeviceGetProcessUtilization",
            "nvmlDeviceGetComputeRunningProcesses_v3",
            "nvmlDeviceGetGraphicsRunningProcesses_v3",
        )
        single.describe(replace(busy, temperature=72, errors=dict.fromkeys(silent, NOT_SUPPORTED)))
        measured = eventually(
            lambda: (now := told(single)["measurements"]).get("temperatureCelsius") == 72 and now, "72 °C are told"
        )
        measured.pop("measureTime")
        assert set(measured) == {"decoderUtilizationPercent", "computeUtilizationPercent", "temperatureCelsius"}
    finally:
        single.describe(L4)


def test_a_ladder_is_decoded_once_in_cuda_and_encoded_by_nvenc(single: Fleet, media: Path, tmp_path: Path) -> None:
    rungs = (encoded("top", height=180), encoded("middle", "hevc", height=144), encoded("low", "av1", height=128))
    asked = transcode_of(media / "clip.mp4", *rungs, outputs=[to_file(f"{rung.id}.mp4", rung.id) for rung in rungs])
    with single.daemon.client() as client:
        session, files = done(client, asked, tmp_path)
    for name, codec, size in (("top", "h264", (320, 180)), ("middle", "hevc", (256, 144)), ("low", "av1", (228, 128))):
        made = decode(files[f"{name}.mp4"])
        assert (made.video_codec, made.size, made.frames, made.audio_codec) == (codec, size, 60, "aac")
        assert not made.complaints
        assert likeness_db(files[f"{name}.mp4"], media / "clip.mp4") > 25
    argv = argv_of(single, session)
    assert after(argv, "-hwaccel_output_format") == "cuda"
    assert argv.count("-i") == 1
    assert {"h264_nvenc", "hevc_nvenc", "av1_nvenc"} <= set(argv)
    assert after(argv, "-filter_complex").count(":format=nv12:passthrough=0") == 3
    assert "hwdownload" not in after(argv, "-filter_complex")


@pytest.mark.parametrize("kind", ["4:2:2", "a format without NVDEC", "turned"])
def test_what_nvdec_does_not_take_is_decoded_in_software_and_uploaded(
    single: Fleet, media: Path, tmp_path: Path, kind: str
) -> None:
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt")
    match kind:
        case "4:2:2":
            source = make_media(media / "full-colour.mkv", *x264, "yuv422p")
        case "turned":
            source = turned(make_media(media / "upright.mp4", *x264, "yuv420p"))
        case _:
            source = make_media(media / "lossless.mkv", "-c:v", "ffv1", "-pix_fmt", "yuv420p")
    with single.daemon.client() as client:
        session, files = done(client, transcode_of(source, encoded(height=288)), tmp_path)
        plan = client.plan_session(transcode_of(source, encoded(height=288)))
    made = decode(files["out.mp4"])
    assert (made.size, made.frames) == ((162, 288) if kind == "turned" else (512, 288), 30)
    assert likeness_db(files["out.mp4"], source) > 25
    argv = argv_of(single, session)
    assert "-hwaccel" not in argv
    assert "hwupload_cuda" in after(argv, "-filter_complex")
    assert "h264_nvenc" in argv
    (verdict,) = plan.placement.verdicts
    assert made.width is not None
    booked = {need.dimension for need in verdict.needs if not need.host}
    assert {placement_pb2.DIMENSION_ENCODE, placement_pb2.DIMENSION_SCALE} <= booked
    assert placement_pb2.DIMENSION_DECODE not in booked, "decoding is not booked on the GPU"
    assert plan.placement.workload.decode_pixels_per_second == 320 * 180 * 30


def turned(source: Path) -> Path:
    """The same film, to be shown a quarter turned."""
    target = source.with_name("quarter.mp4")
    command = [FFMPEG, "-loglevel", "error", "-y", "-display_rotation", "90", "-i", str(source), "-c", "copy"]
    subprocess.run([*command, str(target)], check=True, stdin=subprocess.DEVNULL)
    return target


def test_ten_bits_go_where_a_probe_saw_them(single: Fleet, media: Path, tmp_path: Path) -> None:
    deep = encoded("deep", "hevc", height=144, bit_depth=10)
    with single.daemon.client() as client:
        _, files = done(client, transcode_of(media / "clip.mp4", deep, outputs=[to_file("deep.mp4")]), tmp_path)
        plan = client.plan_session(transcode_of(media / "clip.mp4", encoded(height=144, bit_depth=10)))
        assert refusals(plan.placement) == {L4.uuid: "CAPABILITY"}
        software = transcode_of(media / "clip.mp4", encoded(height=144, bit_depth=10))
        software.transcode.allow_software_encode = True
        argv = client.plan_session(software).argv
    assert decode(files["deep.mp4"]).pixels == "yuv420p10le"
    assert after(argv, "-c:v:0") == "libx264"
    assert "hwdownload,format=p010le" in after(argv, "-filter_complex")


def test_pictures_that_nvenc_does_not_take_are_refused_or_encoded_by_the_host(
    single: Fleet, media: Path, tmp_path: Path
) -> None:
    rungs = (encoded("small", height=36), encoded("top", height=180))
    outputs = [to_file(f"{rung.id}.mp4", rung.id) for rung in rungs]
    small = transcode_of(media / "clip.mp4", *rungs, outputs=outputs)
    with single.daemon.client() as client:
        failure, rules = refused(single, small)
        assert (failure.reason.code.name, rules) == ("FAILED_PRECONDITION", {L4.uuid: "RESOLUTION"})
        assert "146x50" in failure.message
        small.transcode.allow_software_encode = True
        session, files = done(client, small, tmp_path)
    argv = argv_of(single, session)
    assert {"libx264", "h264_nvenc", "-hwaccel"} <= set(argv)
    assert [decode(files[f"{rung.id}.mp4"]).size for rung in rungs] == [(64, 36), (320, 180)]


def test_a_lost_gpu_is_unhealthy_with_the_reason_until_an_operator_has_probed_it(single: Fleet, media: Path) -> None:
    single.describe(replace(L4, errors={"*": GPU_IS_LOST}))
    try:
        device = eventually(
            lambda: (now := told(single))["state"] == "DEVICE_STATE_UNHEALTHY" and now, "the GPU is unhealthy"
        )
        assert "lost" in device["stateMessage"]
        asked = transcode_of(media / "clip.mp4", encoded(height=144))
        asked.transcode.input.declared_facts.MergeFrom(FACTS)
        failure, rules = refused(single, asked)
        assert (failure.reason, rules) == (Reason.NO_DEVICE_READY, {L4.uuid: "NOT_READY"})
    finally:
        single.describe(L4)
        eventually(lambda: single.daemon.json("devices", "probe", "0")["state"] == "DEVICE_STATE_READY", "it is back")


# ------------------------------------------------------------------------------------------------------ four unequal


def test_unknown_models_get_safe_defaults_and_known_ones_the_tables_figures(unequal: Fleet) -> None:
    devices = [device["identity"] for device in unequal.daemon.json("devices")["devices"]]
    assert [device["id"] for device in devices] == [gpu.uuid for gpu in UNEQUAL]
    t4, l4, h200, mystery = devices
    assert (t4["architecture"], t4["encoderEngines"], t4["decoderEngines"]) == ("Turing", 1, 2)
    assert (l4["architecture"], l4["encoderEngines"], l4["decoderEngines"]) == ("Ada", 2, 4)
    assert (h200["architecture"], h200["encoderEngines"], h200["decoderEngines"]) == ("Hopper", 0, 7)
    assert mystery["pciAddress"] == "00000010:3b:00.0"
    assert not {"architecture", "encoderEngines", "decoderEngines", "tableModel"} & {
        name for name, value in mystery.items() if value != ""
    }
    loads = {load["dimension"]: load for load in told(unequal, 3)["loads"]}
    assert (loads["DIMENSION_ENCODE"]["capacity"], loads["DIMENSION_ENCODE"]["source"]) == ("1000000", "default")


def test_weights_follow_from_what_the_gpus_encode(unequal: Fleet) -> None:
    def rate(generation: str, clock_mhz: int | None, engines: int) -> int:
        """Pixels of H.264 per second at speed fast, by the formula of docs/placement.md."""
        figures = []
        for tuning in ("hq", "ll"):
            figure = engine_frames_per_second("nvenc", "h264", "p3", tuning, generation)
            assert figure is not None
            frames_per_second, reference_mhz = figure
            pixels = frames_per_second * 1920 * 1080
            figures.append(pixels * clock_mhz // reference_mhz if clock_mhz and reference_mhz else pixels)
        return engines * min(figures)

    speeds = [
        rate("turing", T4.video_clock_mhz, 1),
        rate("ada", L4.video_clock_mhz, 2),
        0,
        rate("maxwell", None, 1),
    ]
    expected = [max(1, int(Fraction(100 * speed, max(speeds)) + Fraction(1, 2))) for speed in speeds]
    devices = unequal.daemon.json("devices")["devices"]
    assert [device["weight"] for device in devices] == expected
    assert expected[1] == 100
    assert {device["weightSource"] for device in devices} == {"capacity"}


def test_each_format_goes_only_where_an_engine_makes_it(unequal: Fleet, media: Path) -> None:
    with unequal.daemon.client() as client:

        def rules(codec: str, **encoding: Any) -> dict[str, str]:
            asked = transcode_of(media / "clip.mp4", encoded("out", codec, height=144, **encoding))
            return refusals(client.plan_session(asked).placement)

        no = "CAPABILITY"
        assert rules("h264") == {H200.uuid: no}
        assert rules("av1") == {T4.uuid: no, H200.uuid: no, MYSTERY.uuid: no}
        assert rules("hevc", bit_depth=10) == {H200.uuid: no}
        assert rules("h264", bit_depth=10) == dict.fromkeys((gpu.uuid for gpu in UNEQUAL), no)


def test_a_gpu_without_nvenc_decodes_and_scales_for_software_only_if_the_client_allows_it(
    unequal: Fleet, media: Path, tmp_path: Path
) -> None:
    asked = transcode_of(media / "clip.mp4", encoded(height=90))
    others = [gpu.uuid for gpu in UNEQUAL if gpu is not H200]
    with unequal.daemon.client() as client:
        for name in others:
            client.update_device(name, cordoned=True)
        try:
            failure, rules = refused(unequal, asked)
            assert rules == {**dict.fromkeys(others, "NOT_READY"), H200.uuid: "CAPABILITY"}
            assert failure.reason is Reason.NO_DEVICE_READY, "a cordon may be lifted"
            asked.transcode.allow_software_encode = True
            session, files = done(client, asked, tmp_path)
        finally:
            for name in others:
                client.update_device(name, cordoned=False)
    assert session.device == f"devices/{H200.uuid}"
    argv = argv_of(unequal, session)
    assert after(argv, "-hwaccel_output_format") == "cuda"
    assert "scale_cuda" in after(argv, "-filter_complex")
    assert "hwdownload" in after(argv, "-filter_complex")
    assert after(argv, "-c:v:0") == "libx264"
    made = decode(files["out.mp4"])
    assert (made.video_codec, made.size, made.frames) == ("h264", (160, 90), 60)
    assert session.workload.cost_pixels_per_second == (320 * 180 + 160 * 90 + 5 * 160 * 90) * 30


# -------------------------------------------------------------------------------------------------- eight, weighted


def test_settings_weight_gpus_by_uuid_pci_address_index_and_model(many: Fleet) -> None:
    devices = many.daemon.json("devices")["devices"]
    assert [device["identity"]["id"] for device in devices] == [gpu.uuid for gpu in MANY]
    assert [device.get("weight", 0) for device in devices] == list(MANY_WEIGHTS)
    assert {device["weightSource"] for device in devices} == {"settings"}
    assert "weightedLoad" not in devices[7]


def least_weighted(cost: int, booked: Sequence[int]) -> int:
    """The device with room whose weighted load is lowest after placing, by docs/placement.md."""
    open_devices = [
        number for number in range(len(MANY)) if MANY_WEIGHTS[number] and booked[number] < MANY_CAPS[number]
    ]
    return min(
        open_devices,
        key=lambda number: (
            Fraction((booked[number] + 1) * cost * max(MANY_WEIGHTS), MANY_WEIGHTS[number]),
            booked[number],
            number,
        ),
    )


def wowza(load: int, booked: Sequence[int]) -> int:
    """The device with room whose whole-number load is lowest before placing."""
    open_devices = [
        number for number in range(len(MANY)) if MANY_WEIGHTS[number] and booked[number] < MANY_CAPS[number]
    ]
    return min(
        open_devices, key=lambda number: (booked[number] * load * max(MANY_WEIGHTS) // MANY_WEIGHTS[number], number)
    )


def expected_order(rule: Callable[[int, Sequence[int]], int], cost: int) -> list[int]:
    """Where a rule puts one session after another until all devices are full."""
    booked = [0] * len(MANY)
    order = []
    for _ in range(sum(MANY_CAPS)):
        order.append(rule(cost, booked))
        booked[order[-1]] += 1
    return order


def test_sessions_fill_the_least_loaded_gpus_in_order_until_all_are_full(many: Fleet, media: Path) -> None:
    with many.daemon.client() as client:
        with stopped_after(client) as create:
            sessions = [create(live(media)) for _ in range(sum(MANY_CAPS))]
            # Encoded as fast as it goes, a pixel costs less than one of speed "fast", by the same on all cards.
            cost = sessions[0].workload.cost_pixels_per_second
            assert (320 * 180 + 160 * 90) * 30 < cost < (320 * 180 + 160 * 90 + 5 * 160 * 90) * 30
            assert [NAMES[session.device] for session in sessions] == expected_order(least_weighted, cost)
            assert {session.workload.cost_pixels_per_second for session in sessions} == {cost}
            failure, rules = refused(many, live(media))
            assert (failure.reason.code.name, failure.retry_after is not None) == ("RESOURCE_EXHAUSTED", True)
            full = dict.fromkeys((gpu.uuid for gpu in MANY[:4]), "ENCODER_SESSIONS")
            assert rules == {**full, **dict.fromkeys((gpu.uuid for gpu in MANY[4:]), "WEIGHT_ZERO")}
            device = client.get_device(MANY[0].uuid)
            assert (device.session_count, device.weighted_load) == (2, 2 * cost)
            check_environment(many.daemon, await_state(client, sessions[-1].name, session_pb2.SESSION_STATE_RUNNING))
        for device in client.list_devices():
            assert (device.session_count, device.weighted_load) == (0, 0), "reservations are released"
            assert all(load.used == 0 for load in device.loads)


def check_environment(daemon: RunningDaemon, session: session_pb2.Session) -> None:
    """The session's ffmpeg sees its own GPU alone, by UUID."""
    name = session.name.removeprefix("sessions/")
    pids = [pid for pid, line in daemon.ffmpeg_processes().items() if name in line and "ffmpeg" in line]
    seen = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            seen |= {value for value in variables if value.startswith(b"CUDA_VISIBLE_DEVICES=")}
    assert seen == {f"CUDA_VISIBLE_DEVICES={session.device.removeprefix('devices/')}".encode()}


def test_a_cordon_and_another_weight_change_the_next_placement(many: Fleet, media: Path) -> None:
    asked = live(media)

    def next_gpu() -> int:
        return NAMES[client.plan_session(asked).placement.device]

    with many.daemon.client() as client:
        assert next_gpu() == 0
        try:
            assert many.daemon.cli("devices", "cordon", MANY[0].uuid).returncode == 0
            assert next_gpu() == 1
            assert many.daemon.cli("devices", "set-weight", "01:00.0", "50").returncode == 0
            assert many.daemon.cli("devices", "uncordon", "0").returncode == 0
            assert next_gpu() == 1, "66 is more than 50"
            assert many.daemon.cli("devices", "set-weight", "7", "200").returncode == 0
            assert next_gpu() == 7
        finally:
            client.reload_settings()
        assert next_gpu() == 0, "a reload forgets weights set by hand"


def test_the_wowza_rule_places_by_pictures_before_placing(many: Fleet, media: Path) -> None:
    settings = many.daemon.settings_path.read_text()
    many.daemon.settings_path.write_text(settings.replace('"least_weighted_load"', '"wowza"'))
    try:
        with many.daemon.client() as client:
            client.reload_settings()
            load = (320 * 180 + 160 * 90 + 5 * 160 * 90) // 1000
            with stopped_after(client) as create:
                sessions = [create(live(media)) for _ in range(sum(MANY_CAPS))]
                assert [NAMES[session.device] for session in sessions] == expected_order(wowza, load)
                assert refused(many, live(media))[0].reason.code.name == "RESOURCE_EXHAUSTED"
            plan = client.plan_session(live(media)).placement
            assert (plan.policy, plan.device) == ("wowza", f"devices/{MANY[0].uuid}")
    finally:
        many.daemon.settings_path.write_text(settings)
        with many.daemon.client() as client:
            client.reload_settings()


def test_the_two_rules_would_not_place_alike() -> None:
    """Else the tests above could not tell them apart."""
    assert expected_order(least_weighted, 4_320_000) != expected_order(wowza, 144)


# ---------------------------------------------------------------------------------------------- machines without GPUs


def test_without_a_driver_the_cores_make_a_device(start_daemon: StartDaemon, tmp_path: Path) -> None:
    nvml = FakeNvml.build(tmp_path)
    daemon = start_daemon(NO_FFMPEG, {**nvml.environment, "FAKE_NVML_CONFIG": ""})
    daemon.await_serving()
    assert [device["name"] for device in daemon.json("devices")["devices"]] == ["devices/cpu-0"]
    assert "GPU" not in daemon.log


def test_a_container_that_lost_its_gpus_is_told_and_not_taken_for_a_machine_without_any(
    start_daemon: StartDaemon, tmp_path: Path
) -> None:
    nvml = FakeNvml.build(tmp_path)
    nvml.describe([replace(gpu, errors={"*": UNKNOWN_ERROR}) for gpu in (L4, T4)])
    daemon = start_daemon(NO_FFMPEG, nvml.environment)
    daemon.await_serving()
    assert "a container that lost its devices" in daemon.log
    assert "Try restarting the container" in daemon.log
    assert [device["name"] for device in daemon.json("devices")["devices"]] == ["devices/cpu-0"]
