"""Calibrating devices, over a real wire, with an agent that lives in the test."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

import grpc
import pytest

from balancer.domain.calibration import Calibration, CalibrationFigure
from balancer.domain.decision import Reservation
from balancer.domain.device import Dimension, SoundTiming
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.workload import EncodingSpeed, VideoCodec
from balancer.ports.agent_client import AgentUnreachableError
from fakes.agent_client import RECORDS
from fakes.balancer_house import BalancerHouse, balancer_house, failure_of
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.rich_status import failure_from_rpc_error
from gpu_balancer.v1 import device_pb2, placement_pb2, recording_pb2
from gpu_balancer.v1 import device_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CPU0, CPU1 = DeviceId("cpu-0"), DeviceId("cpu-1")
MEASURED = Calibration(
    end_time=datetime(2030, 5, 4, tzinfo=UTC),
    ffmpeg_path="/opt/ffmpeg",
    ffmpeg_version="9.0",
    ffmpeg_candidate="bundled",
    driver_version=None,
    figures=(
        CalibrationFigure(
            dimension=Dimension.ENCODE,
            codec=VideoCodec.H264,
            speed=EncodingSpeed.FAST,
            pixels_per_second=400_000_000,
            streams=4,
            stream_width=1280,
            stream_height=720,
        ),
        CalibrationFigure(dimension=Dimension.SCALE, problem="the time was up"),
    ),
)

SOUND = SoundTiming(
    delay=timedelta(milliseconds=-16),
    delay_source="calibration",
    film_offset=timedelta(milliseconds=28),
    drawing_offset=timedelta(milliseconds=-28),
    heard_drawing_offset=timedelta(milliseconds=-14),
    measurement_time=datetime(2030, 5, 4, tzinfo=UTC),
)
SPOKEN = "Cannot calibrate the sound of device cpu-0: "


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[BalancerHouse]:
    """A balancer with two devices; the first one's agent measures at once."""
    async with balancer_house(tmp_path, devices={"cpu-0": 4, "cpu-1": 2}) as made:
        made.agents[CPU0].calibration = MEASURED
        made.agents[CPU0].sound_timing = SOUND
        yield made


async def calibrated(
    house: BalancerHouse, name: str = "cpu-0", *, sound: bool = False
) -> list[pb.CalibrateDeviceResponse]:
    request = pb.CalibrateDeviceRequest(name=name, sound=sound)
    return [answer async for answer in house.devices.CalibrateDevice(request)]


async def refusal(house: BalancerHouse, name: str = "cpu-0", *, sound: bool = False) -> RequestFailure:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await calibrated(house, name, sound=sound)
    failure = failure_from_rpc_error(caught.value)
    assert failure is not None
    return failure


async def test_a_calibration_tells_how_far_it_is_and_what_came_of_it(pair: BalancerHouse) -> None:
    """The store forgets which ffmpegs the fake agents have: none, so the calibration says so and does not count."""
    first, last = await calibrated(pair)
    assert first.progress.message == "decoding H.264"
    figures = last.device.calibration.figures
    assert (figures[0].pixels_per_second, figures[0].streams) == (400_000_000, 4)
    assert (figures[1].problem, figures[1].pixels_per_second) == ("the time was up", 0)
    assert [(one.device, one.present_weight) for one in last.suggested_weights] == [
        ("devices/cpu-0", 100),
        ("devices/cpu-1", 50),
    ]
    assert "does not count: the ffmpeg was 9.0 (bundled) and is gone" in last.device.loads[0].explanation
    assert list(pair.store.findings) == ["calibration/cpu-0"]
    assert last.device.state == device_pb2.DEVICE_STATE_READY


async def test_what_is_calibrated_takes_no_session_and_is_not_calibrated_twice(pair: BalancerHouse) -> None:
    agent = pair.agents[CPU0]
    agent.calibration_gate.clear()
    stream = pair.devices.CalibrateDevice(pb.CalibrateDeviceRequest(name="cpu-0"))
    await stream.read()
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert (device.state, device.state_message) == (device_pb2.DEVICE_STATE_PROBING, "Being calibrated.")
    assert (await refusal(pair)).message.startswith("Cannot calibrate device cpu-0: it is being calibrated already.")
    stream.cancel()
    async for changed in pair.registry.watch():
        if changed.identity.id == CPU0 and not changed.calibrating:
            break
    assert not agent.calibrating
    assert pair.store.findings == {}


async def test_a_busy_or_unfit_device_is_not_calibrated(pair: BalancerHouse) -> None:
    pair.engine.ledger.book(
        SessionId("s"), Reservation(device_id=CPU0, cost_pixels_per_second=1, device_amounts={}, host_amounts={})
    )
    failure = await refusal(pair)
    assert (failure.reason, "it has 1 session." in failure.message) == (Reason.DEVICE_BUSY, True)
    pair.registry.mark_unreachable(CPU1, "Its agent is silent.")
    assert "it is unreachable: Its agent is silent." in (await refusal(pair, "cpu-1")).message


async def test_a_cordoned_device_may_be_calibrated(pair: BalancerHouse) -> None:
    pair.registry.set_cordoned(CPU0, cordoned=True)
    assert (await calibrated(pair))[-1].device.state == device_pb2.DEVICE_STATE_CORDONED


async def test_an_agent_that_is_lost_meanwhile_leaves_the_device_as_it_was(pair: BalancerHouse) -> None:
    pair.agents[CPU0].calibration = AgentUnreachableError("it is gone")
    assert (await refusal(pair)).reason is Reason.AGENT_UNREACHABLE
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert (device.state, device.HasField("calibration")) == (device_pb2.DEVICE_STATE_READY, False)


async def test_a_calibration_is_forgotten_on_request(pair: BalancerHouse) -> None:
    await calibrated(pair)
    told = (await pair.devices.DeleteCalibration(pb.DeleteCalibrationRequest(name="cpu-0"))).device
    assert not told.HasField("calibration")
    assert pair.store.findings == {}
    again = await pair.devices.DeleteCalibration(pb.DeleteCalibrationRequest(name="cpu-0"))
    assert again.device.name == "devices/cpu-0"
    failure = await failure_of(pair.devices.DeleteCalibration(pb.DeleteCalibrationRequest(name="nope")))
    assert failure.reason is Reason.DEVICE_NOT_FOUND


async def test_a_calibration_of_sound_is_told_with_the_device_and_kept_by_its_agent_alone(pair: BalancerHouse) -> None:
    first, last = await calibrated(pair, sound=True)
    assert first.progress.message == "recording a film"
    told = recording_pb2.SoundTiming(delay_source="calibration")
    told.delay.FromMilliseconds(-16)
    told.film_offset.FromMilliseconds(28)
    told.drawing_offset.FromMilliseconds(-28)
    told.heard_drawing_offset.FromMilliseconds(-14)
    told.measurement_time.FromDatetime(datetime(2030, 5, 4, tzinfo=UTC))
    assert last.device.recording.sound_timing == told
    assert last.device.recording.display_count == 100
    assert last.device.state == device_pb2.DEVICE_STATE_READY
    assert not last.suggested_weights
    assert not last.device.HasField("calibration")
    assert pair.store.findings == {}
    again = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert again.recording.sound_timing == told


async def test_what_was_not_measured_of_sound_is_unset(pair: BalancerHouse) -> None:
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert not device.recording.HasField("sound_timing")
    timing = SoundTiming(delay=timedelta(milliseconds=10), delay_source="default")
    entry = pair.registry.find("cpu-0")
    report = replace(pair.agents[CPU0].report(), identity=entry.identity, capabilities=entry.capabilities)
    pair.registry.update_agent(replace(report, recording=replace(RECORDS, sound_timing=timing)))
    told = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device.recording.sound_timing
    assert (told.delay.ToTimedelta(), told.delay_source) == (timedelta(milliseconds=10), "default")
    assert [told.HasField(name) for name in ("film_offset", "drawing_offset", "measurement_time")] == [False] * 3  # type: ignore[arg-type]


async def test_sound_is_calibrated_only_while_nothing_else_is_on_the_device(pair: BalancerHouse) -> None:
    agent = pair.agents[CPU0]
    agent.calibration_gate.clear()
    stream = pair.devices.CalibrateDevice(pb.CalibrateDeviceRequest(name="cpu-0", sound=True))
    await stream.read()
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert (device.state, device.state_message) == (device_pb2.DEVICE_STATE_PROBING, "Being calibrated.")
    for sound in (False, True):
        failure = await refusal(pair, sound=sound)
        assert (failure.reason, "it is being calibrated already." in failure.message) == (Reason.DEVICE_BUSY, True)
    stream.cancel()
    async for changed in pair.registry.watch():
        if changed.identity.id == CPU0 and not changed.calibrating:
            break
    assert not agent.calibrating
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert not device.recording.HasField("sound_timing")
    pair.engine.ledger.book(
        SessionId("s"), Reservation(device_id=CPU0, cost_pixels_per_second=1, device_amounts={}, host_amounts={})
    )
    assert (await refusal(pair, sound=True)).message.startswith(f"{SPOKEN}it has 1 session. Try again when it is idle")


async def test_why_an_agent_could_not_calibrate_sound_is_told_and_leaves_the_device_as_it_was(
    pair: BalancerHouse,
) -> None:
    agent = pair.agents[CPU0]
    agent.sound_timing = RequestFailure(
        reason=Reason.NO_CAPABLE_DEVICE, message=f"{SPOKEN}there is no browser. Try installing one."
    )
    failure = await refusal(pair, sound=True)
    assert (failure.reason, failure.message) == (
        Reason.NO_CAPABLE_DEVICE,
        f"{SPOKEN}there is no browser. Try installing one.",
    )
    agent.sound_timing = AgentUnreachableError("it is gone")
    assert (await refusal(pair, sound=True)).message == f"{SPOKEN}it is gone. Try again when the agent runs."
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert (device.state, device.recording.HasField("sound_timing")) == (device_pb2.DEVICE_STATE_READY, False)


async def test_what_an_agent_of_an_earlier_version_measures_instead_of_sound_does_not_count(
    pair: BalancerHouse,
) -> None:
    pair.agents[CPU0].knows_sound = False
    assert (await refusal(pair, sound=True)).reason is Reason.AGENT_UNREACHABLE
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    assert (device.HasField("calibration"), pair.store.findings) == (False, {})
    assert device.state == device_pb2.DEVICE_STATE_READY


async def test_a_load_is_told_with_what_others_take_and_what_may_be_booked(pair: BalancerHouse) -> None:
    ledger = pair.engine.ledger
    ledger.book(
        SessionId("s"),
        Reservation(
            device_id=CPU0,
            cost_pixels_per_second=1,
            device_amounts={Dimension.CORES: 2_000_000},
            host_amounts={},
            firm_device_amounts={Dimension.CORES: 500_000},
        ),
    )
    ledger.set_foreign(CPU0, {Dimension.CORES: 300_000})
    device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device
    (load,) = [one for one in device.loads if one.dimension == placement_pb2.DIMENSION_CORES]
    headroom = pair.engine.rules.settings.headroom
    assert (load.dimension, load.used, load.foreign, load.yielding) == (
        placement_pb2.DIMENSION_CORES,
        2_000_000,
        300_000,
        1_500_000,
    )
    assert (load.capacity, load.bookable) == (4_000_000, int(4_000_000 * Fraction(headroom)))
    assert load.explanation.startswith("4 cores; of each core by default: decoding H.264 150 million pixels/s")
    rates = {(rate.direction, rate.codec, rate.speed): rate for rate in device.rates}
    assert len(rates) == len(device.rates) > 12
    assert {rate.source for rate in device.rates} == {"default"}
    assert min(rate.pixels_per_second for rate in device.rates) > 0
