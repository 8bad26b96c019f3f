"""The commands about devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from gpu_balancer.cli.device_views import COLUMNS, capability_rows, codec_words, device_facts, device_row, notes
from gpu_balancer.cli.screen import Column, make_table
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import device_pb2, device_service_pb2, media_pb2, placement_pb2

if TYPE_CHECKING:
    from conftest import Command

    from fakes.balancer_server import FakeBalancer

UUID = "GPU-7f3c2a10-1111-2222-3333-444455556666"
ENCODE, DECODE = device_pb2.CODING_DIRECTION_ENCODE, device_pb2.CODING_DIRECTION_DECODE


def gpu() -> device_pb2.Device:
    def capability(codec: media_pb2.VideoCodec.ValueType, **fields: object) -> device_pb2.Capability:
        made = device_pb2.Capability(codec=codec, direction=ENCODE, bit_depth=8, works=True, hardware=True)
        made.MergeFrom(device_pb2.Capability(**fields))  # type: ignore[arg-type]
        return made

    return device_pb2.Device(
        name=f"devices/{UUID}",
        identity=device_pb2.DeviceIdentity(
            id=UUID,
            kind=device_pb2.DEVICE_KIND_NVIDIA,
            model="NVIDIA GeForce RTX 4090",
            architecture="Ada",
            memory_total_mib=24564,
        ),
        weight=66,
        weight_source="settings",
        state=device_pb2.DEVICE_STATE_READY,
        session_count=3,
        weighted_load=412_000_000,
        measurements=device_pb2.DeviceMeasurements(encoder_utilization_percent=0, memory_used_mib=1800),
        capabilities=[
            capability(media_pb2.VIDEO_CODEC_H264),
            capability(media_pb2.VIDEO_CODEC_HEVC, bit_depth=10),
            device_pb2.Capability(codec=media_pb2.VIDEO_CODEC_AV1, direction=ENCODE, bit_depth=8, message="too\nold"),
        ],
        loads=[
            device_pb2.DimensionLoad(
                dimension=placement_pb2.DIMENSION_ENCODE, used=310_000, capacity=900_000, source="table"
            ),
            device_pb2.DimensionLoad(dimension=placement_pb2.DIMENSION_SCALE, used=2_000_000),
        ],
    )


def ill(number: int, **fields: object) -> device_pb2.Device:
    """A GPU with something against it."""
    device = gpu()
    device.name = f"devices/GPU-{number}"
    device.MergeFrom(device_pb2.Device(**fields))  # type: ignore[arg-type]
    return device


def test_what_holds_of_several_devices_is_said_once() -> None:
    unhealthy = device_pb2.DEVICE_STATE_UNHEALTHY
    hot = device_pb2.DeviceHealth(state=device_pb2.HEALTH_STATE_DEGRADED, message="It is hot.")
    devices = [
        ill(1, state=unhealthy, state_message="All were lost."),
        ill(2, state=unhealthy, state_message="All were lost."),
        ill(3, health=hot),
        gpu(),
    ]
    assert list(notes(devices)) == [
        "GPU-1, GPU-2 are unhealthy: All were lost.",
        "GPU-3 is to be looked at: It is hot.",
    ]


def test_health_is_told_with_its_reason_and_time() -> None:
    health = device_pb2.DeviceHealth(
        state=device_pb2.HEALTH_STATE_DEGRADED,
        reason="ENCODER_OUT_OF_USE",
        message="They failed twice.",
        faulty_engines=[ENCODE],
    )
    health.since_time.FromJsonString("2030-01-01T12:00:00Z")
    told = dict(device_facts(ill(1, health=health)))
    assert told["health"] == (
        "DEGRADED ENCODER_OUT_OF_USE since 2030-01-01 12:00:00 UTC, encoders out of use: They failed twice."
    )
    assert (
        dict(device_facts(ill(1, health=device_pb2.DeviceHealth(state=device_pb2.HEALTH_STATE_OK))))["health"] == "OK"
    )
    assert dict(device_facts(gpu()))["health"] == ""


@pytest.fixture
def with_devices(fake: FakeBalancer) -> FakeBalancer:
    fake.add_device(gpu())
    for number in range(3):
        cpu = device_pb2.DeviceIdentity(kind=device_pb2.DEVICE_KIND_CPU, model="Some CPU", cores=[0, 1, 2, 5])
        fake.add_device(device_pb2.Device(name=f"devices/cpu-{number}", identity=cpu, state=6))
    return fake


def test_devices_are_lines_with_tabs_in_a_pipe(with_devices: FakeBalancer, run: Command) -> None:
    ran = run("devices")
    first, *others = ran.out.splitlines()
    words = [
        "GPU-7f3c2a10",
        "GeForce RTX 4090",
        "ready",
        "66",
        "settings",
        "3",
        "412.0M",
        "enc 0%",
        "h264 hevc/10",
        "-",
    ]
    assert first.split("\t") == words
    assert [line.split("\t")[0] for line in others] == ["cpu-0", "cpu-1", "cpu-2"]
    assert (ran.code, ran.err) == (0, "")


def test_devices_as_json_have_every_page_and_every_figure(with_devices: FakeBalancer, run: Command) -> None:
    devices = run("devices", "--json").document["devices"]
    assert [device["name"] for device in devices] == [f"devices/{UUID}", *(f"devices/cpu-{n}" for n in range(3))]
    assert devices[0]["weightedLoad"] == "412000000"
    assert devices[1]["weight"] == 0
    assert "weightedLoad" not in devices[1]


@pytest.mark.parametrize("words", [("--json", "devices"), ("devices", "--json")])
def test_json_may_stand_before_or_after_the_command(
    with_devices: FakeBalancer, run: Command, words: tuple[str, ...]
) -> None:
    assert len(run(*words).document["devices"]) == 4


def test_shared_options_may_stand_before_a_sub_command(with_devices: FakeBalancer, run: Command) -> None:
    assert run("devices", "--json", "show", "cpu-0").document["name"] == "devices/cpu-0"


def test_without_devices_the_list_says_so_beside_the_output(run: Command) -> None:
    ran = run("devices")
    assert (ran.code, ran.out, ran.err) == (0, "", "There are no devices.\n")


def test_a_device_is_shown_with_units_and_without_what_is_unknown(with_devices: FakeBalancer, run: Command) -> None:
    out = run("devices", "show", UUID).out
    assert "NVIDIA GeForce RTX 4090 (Ada)" in out
    assert "1800 of 24564 MiB used" in out
    assert "encode: 0.31 of 0.90 engines (table)" in out
    assert "scale: 2.0M without a limit" in out
    assert "temperature" not in out
    assert "agent" not in out
    assert "too old" in out


def test_verbose_shows_every_device_whole(with_devices: FakeBalancer, run: Command) -> None:
    out = run("devices", "-v").out
    assert [line.split()[1] for line in out.splitlines() if line.startswith("weight ")] == ["66", "0", "0", "0"]
    assert "0-2, 5" in out


def test_a_weight_is_set_and_may_be_saved(with_devices: FakeBalancer, run: Command) -> None:
    ran = run("devices", "set-weight", "cpu-0", "40")
    assert (ran.code, ran.out) == (0, "cpu-0: weight 40\n")
    assert "--save would keep it" in ran.err
    assert with_devices.devices["devices/cpu-0"].weight_source == "operator"
    assert "Saved in /etc/gpu-balancer/balancer.toml." in run("devices", "set-weight", "cpu-0", "0", "--save").err
    assert with_devices.devices["devices/cpu-0"].weight == 0


@pytest.mark.parametrize("weight", ["10001", "-1", "much"])
def test_an_impossible_weight_is_wrong_usage(with_devices: FakeBalancer, run: Command, weight: str) -> None:
    assert run("devices", "set-weight", "cpu-0", "--", weight).code == 2
    assert with_devices.calls["UpdateDevice"] == 0


def test_a_device_is_closed_and_opened(with_devices: FakeBalancer, run: Command) -> None:
    assert run("devices", "cordon", "cpu-0").out == "cpu-0: cordoned\n"
    assert run("devices", "uncordon", "cpu-0").out == "cpu-0: ready\n"


def test_devices_are_closed_and_opened_together_or_not_at_all(with_devices: FakeBalancer, run: Command) -> None:
    assert run("devices", "cordon", "cpu-0", "cpu-2", "cpu-0").out == "cpu-0: cordoned\ncpu-2: cordoned\n"
    refused = run("devices", "cordon", "cpu-1", "nope")
    assert (refused.code, refused.out) == (3, "")
    assert with_devices.devices["devices/cpu-1"].state != device_pb2.DEVICE_STATE_CORDONED
    told = run("devices", "uncordon", "--all", "--json").document
    assert [device["state"] for device in told["devices"]] == ["DEVICE_STATE_READY"] * 4


@pytest.mark.parametrize("command", ["cordon", "uncordon", "drain"])
def test_which_devices_are_meant_must_be_said_in_one_way(
    with_devices: FakeBalancer, run: Command, command: str
) -> None:
    assert "Try their names, or --all" in run("devices", command).err
    assert run("devices", command, "cpu-0", "--all").code == 2
    assert with_devices.calls["UpdateDevice"] == with_devices.calls["DrainDevice"] == 0


def gone(device: device_pb2.Device) -> None:
    """One session of a draining device ends."""
    device.drain.session_count -= 1
    device.state_message = f"Being emptied: {device.drain.session_count} left."


def stopped(device: device_pb2.Device) -> None:
    """The deadline of a draining device is over."""
    device.drain.stopped_count, device.drain.session_count = device.drain.session_count, 0


def test_a_drain_is_followed_until_its_device_is_empty(with_devices: FakeBalancer, run: Command) -> None:
    with_devices.drain_steps = [gone, gone, gone]
    ran = run("devices", "drain", UUID, "--move", "--deadline", "10m")
    assert (ran.code, ran.out) == (0, "GPU-7f3c2a10: empty\n")
    assert ran.err.splitlines() == [f"GPU-7f3c2a10: Being emptied: {count} left." for count in (3, 2, 1, 0)]
    (asked,) = [one for one in with_devices.received if isinstance(one, device_service_pb2.DrainDeviceRequest)]
    assert (asked.mode, asked.deadline.seconds) == (device_pb2.DRAIN_MODE_MOVE, 600)
    assert with_devices.calls["UpdateDevice"] == 0


def test_a_drain_whose_deadline_stopped_sessions_says_so(with_devices: FakeBalancer, run: Command) -> None:
    with_devices.drain_steps = [stopped]
    ran = run("devices", "drain", UUID, "--deadline", "0")
    assert (ran.code, ran.out) == (1, "GPU-7f3c2a10: empty, 3 stopped at the deadline\n")
    (asked,) = [one for one in with_devices.received if isinstance(one, device_service_pb2.DrainDeviceRequest)]
    assert (asked.mode, asked.HasField("deadline")) == (device_pb2.DRAIN_MODE_WAIT, True)


def test_a_drain_may_be_left_to_the_daemon(with_devices: FakeBalancer, run: Command) -> None:
    ran = run("devices", "drain", UUID, "--detach")
    assert (ran.code, ran.out) == (0, "GPU-7f3c2a10: draining, 3 sessions left\n")
    assert with_devices.calls["WatchDevices"] == 0


def test_all_devices_are_closed_before_the_first_is_emptied(with_devices: FakeBalancer, run: Command) -> None:
    """Its sessions would be moved to the next one else."""
    with_devices.drain_steps = [gone, gone, gone]
    ran = run("devices", "drain", "--all", "--move", "--json")
    assert [device["drain"]["sessionCount"] for device in ran.document["devices"]] == [0] * 4
    kinds = [type(one).__name__ for one in with_devices.received]
    assert kinds.index("DrainDeviceRequest") > max(
        place for place, kind in enumerate(kinds) if kind == "UpdateDeviceRequest"
    )


def test_a_drain_that_somebody_ended_is_no_success(with_devices: FakeBalancer, run: Command) -> None:
    def opened(device: device_pb2.Device) -> None:
        device.ClearField("drain")
        device.state = device_pb2.DEVICE_STATE_READY

    with_devices.drain_steps = [opened]
    ran = run("devices", "drain", UUID)
    assert (ran.code, ran.out) == (1, "GPU-7f3c2a10: ready, its drain was ended\n")
    assert "somebody opened" in ran.err


def test_a_device_is_probed_again(with_devices: FakeBalancer, run: Command) -> None:
    assert run("devices", "probe", UUID, "--json").document["name"] == f"devices/{UUID}"
    assert with_devices.calls["ProbeDevice"] == 1


def test_an_unknown_device_is_refused(run: Command) -> None:
    ran = run("devices", "show", "gpu-9")
    assert (ran.code, ran.out) == (3, "")
    assert "Error: Cannot find devices/gpu-9" in ran.err


def test_what_the_host_encodes_for_a_gpu_is_marked() -> None:
    device = gpu()
    del device.capabilities[:]
    device.capabilities.add(codec=media_pb2.VIDEO_CODEC_H264, direction=ENCODE, bit_depth=8, works=True)
    assert codec_words(device, ENCODE) == "h264*"
    assert codec_words(device, DECODE) == "-"


def test_what_a_gpu_does_itself_is_not_marked_for_what_its_host_can_do_too() -> None:
    """Agents tell of hardware first, then of the same codecs in software."""
    device = gpu()
    for depth in (8, 10):
        device.capabilities.add(codec=media_pb2.VIDEO_CODEC_H264, direction=ENCODE, bit_depth=depth, works=True)
        device.capabilities.add(codec=media_pb2.VIDEO_CODEC_AV1, direction=ENCODE, bit_depth=depth, works=True)
    assert codec_words(device, ENCODE) == "h264 hevc/10 av1/10*"


def test_what_several_ffmpegs_do_is_one_row_with_all_of_them() -> None:
    device = gpu()
    del device.capabilities[:]
    for path, version in (("/opt/new", "9.0"), ("/usr/bin/ffmpeg", "5.1")):
        device.ffmpeg_builds.add(path=path, version=version)
        device.capabilities.add(
            codec=media_pb2.VIDEO_CODEC_H264,
            direction=DECODE,
            bit_depth=8,
            works=True,
            hardware=True,
            implementation="h264_nvdec",
            ffmpeg=path,
        )
    assert capability_rows(device) == [("h264", "decode", "8", "yes", "device", "h264_nvdec", "9.0 5.1", "")]
    assert codec_words(device, DECODE) == "h264"


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_keeps_names_states_and_figures_whole(width: int) -> None:
    device = gpu()
    device.identity.model = "NVIDIA A very long model name that nobody can read in a narrow terminal"
    device.state = device_pb2.DEVICE_STATE_UNREACHABLE
    device.measurements.decoder_utilization_percent = 100
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(make_table(COLUMNS, [device_row(device)], width=width))
    lines = console.export_text().splitlines()
    assert len(lines) == 2
    assert all(len(line) <= width for line in lines)
    assert "…" in lines[1]
    for word in ("GPU-7f3c2a10", "unreachable", "66", "412.0M", "enc 0% dec 100%"):
        assert word in lines[1]


def test_a_path_is_cut_at_its_beginning() -> None:
    columns = (Column(title="A"), Column(title="P", shrinks=True, cut_front=True))
    console = Console(width=20, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    with console.file:
        console.print(make_table(columns, [("x", "/very/long/path/to/the/film.mov")], width=20))
    assert console.export_text().splitlines()[1].rstrip() == "x  …/to/the/film.mov"


def test_calibrating_shows_the_figures_and_the_weights_that_follow(with_devices: FakeBalancer, run: Command) -> None:
    ran = run("devices", "calibrate", "cpu-1")
    assert ran.code == 0
    assert "with ffmpeg 9.0" in ran.out
    assert [line.split("\t") for line in ran.out.splitlines()[-2:]] == [["cpu-1", "0", "98"], ["cpu-2", "0", "97"]]
    assert "Calibrating cpu-1" in ran.err
    assert with_devices.calls["UpdateDevice"] == 0


def test_all_devices_are_calibrated_one_by_one_and_a_busy_one_is_left_out(
    with_devices: FakeBalancer, run: Command
) -> None:
    with_devices.refuse(
        "CalibrateDevice", RequestFailure(reason=Reason.DEVICE_BUSY, message="Cannot: it has sessions.")
    )
    ran = run("devices", "calibrate", "--json")
    assert ran.code == 3
    assert "it has sessions" in ran.err
    assert [device["name"] for device in ran.document["devices"]] == [f"devices/cpu-{n}" for n in range(3)]
    assert len(ran.document["suggestedWeights"]) == 4


def test_suggested_weights_are_saved_on_request(with_devices: FakeBalancer, run: Command) -> None:
    ran = run("devices", "calibrate", "cpu-0", "--save")
    assert "Saved in /etc/gpu-balancer/balancer.toml." in ran.err
    assert [device.weight for device in with_devices.devices.values()] == [100, 99, 98, 97]


def test_a_calibration_is_forgotten_on_request(with_devices: FakeBalancer, run: Command) -> None:
    run("devices", "calibrate", "cpu-0")
    ran = run("devices", "calibrate", "cpu-0", "--forget")
    assert (ran.code, ran.out) == (0, "cpu-0: not calibrated\n")
    assert not with_devices.devices["devices/cpu-0"].HasField("calibration")
    assert run("devices", "calibrate", "--forget", "--save").code == 2


def test_calibrating_sound_shows_how_far_it_is_from_its_picture(with_devices: FakeBalancer, run: Command) -> None:
    ran = run("devices", "calibrate", "cpu-1", "--sound")
    assert (ran.code, ran.err) == (0, "Calibrating the sound of cpu-1 …\n")
    assert ran.out.splitlines() == [
        "device  cpu-1",
        "sound   delayed by 16 ms by calibration of 2030-05-04 12:00 UTC",
        "        films: sound 28 ms after its picture",
        "        drawings as sound is handed over: sound 28 ms before its picture",
    ]
    assert not with_devices.devices["devices/cpu-1"].HasField("calibration")


def test_the_sound_of_all_devices_is_calibrated_one_by_one(with_devices: FakeBalancer, run: Command) -> None:
    out = run("devices", "calibrate", "--sound").out
    assert [line for line in out.splitlines() if line.startswith("device ")] == [
        "device  GPU-7f3c2a10", *(f"device  cpu-{number}" for number in range(3)),
    ]  # fmt: skip
    assert out.count("\n\n") == 3


@pytest.mark.parametrize("reason", [Reason.DEVICE_BUSY, Reason.NO_CAPABLE_DEVICE])
def test_a_device_whose_sound_cannot_be_calibrated_is_left_out(
    with_devices: FakeBalancer, run: Command, reason: Reason
) -> None:
    with_devices.refuse("CalibrateDevice", RequestFailure(reason=reason, message="Cannot: there is no browser."))
    ran = run("devices", "calibrate", "--sound", "--json")
    assert ran.code != 0
    assert "there is no browser" in ran.err
    assert [device["name"] for device in ran.document["devices"]] == [f"devices/cpu-{n}" for n in range(3)]
    assert ran.document["suggestedWeights"] == []
    assert ran.document["devices"][0]["recording"]["soundTiming"] == {
        "delay": "0.016s",
        "delaySource": "calibration",
        "filmOffset": "0.028200s",
        "drawingOffset": "-0.028200s",
        "measurementTime": "2030-05-04T12:00:00Z",
    }


def test_when_the_sound_of_no_device_was_calibrated_that_is_said(run: Command) -> None:
    ran = run("devices", "calibrate", "--sound")
    assert (ran.code, ran.out, ran.err) == (0, "", "Nothing was calibrated.\n")


@pytest.mark.parametrize("options", [("--save",), ("--forget",), ("--save", "--forget")])
def test_what_is_measured_of_sound_is_neither_saved_nor_forgotten_but_overridden(
    with_devices: FakeBalancer, run: Command, options: tuple[str, ...]
) -> None:
    ran = run("devices", "calibrate", "cpu-0", "--sound", *options)
    assert (ran.code, ran.out) == (2, "")
    assert "Try sound_delay_ms in [recordings] of the settings, which overrides what was measured" in ran.err
    assert with_devices.calls["CalibrateDevice"] == with_devices.calls["DeleteCalibration"] == 0


def test_capacities_and_speeds_are_shown_with_their_origin(fake: FakeBalancer, run: Command) -> None:
    device = gpu()
    load = device.loads[0]
    load.explanation = "Table row RTX 4090: 2 encoder engines; H.264 fast 647 frames/s at 2415 MHz."
    load.foreign = 100_000
    device.rates.add(
        direction=ENCODE, codec=media_pb2.VIDEO_CODEC_H264, speed=2, pixels_per_second=1_341_000_000, source="table"
    )
    device.rates.add(
        direction=DECODE, codec=media_pb2.VIDEO_CODEC_HEVC, pixels_per_second=900_000_000, source="calibration"
    )
    device.calibration.figures.add(
        dimension=placement_pb2.DIMENSION_DECODE,
        codec=media_pb2.VIDEO_CODEC_HEVC,
        pixels_per_second=900_000_000,
        streams=14,
        stream_width=1920,
        stream_height=1080,
    )
    device.calibration.figures.add(dimension=placement_pb2.DIMENSION_SCALE, problem="the time\x1b was up")
    fake.add_device(device)
    device.agent_version = "0.9.1"
    out = run("devices", "-v").out
    assert "0.9.1" in out
    assert "encode: 0.31 of 0.90 engines (table), 0.10 more taken by others" in out
    assert "encode: Table row RTX 4090: 2 encoder engines; H.264 fast 647 frames/s" in out
    assert "encode h264: fast 1.3G px/s per engine (table)" in out
    assert "decode hevc: 900.0M px/s per engine (calibration)" in out
    assert "decode hevc: 900.0M px/s, 14 side by side of 1920x1080" in out
    assert "scale: the time\N{REPLACEMENT CHARACTER} was up" in out
