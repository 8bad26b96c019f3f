"""The agent's device between its golden probe and its health."""

from __future__ import annotations

from datetime import UTC
from pathlib import Path

import pytest

from agents.devices.golden_probe import ProbeResult
from agents.devices.health_store import HealthStore
from agents.devices.health_watch import HealthWatch
from agents.devices.identity import DeviceIdentity
from agents.health.reading import Reading
from agents.pipelines.capability import Capability, FfmpegBuild
from agents.pipelines.job import Direction, VideoCodec
from agents.servicers.probed_device import ProbedDevice
from agents.servicers.report_translation import health_message
from fakes.virtual_time import VirtualClock
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import device_pb2

IDENTITY = DeviceIdentity(id="GPU-1", kind="nvidia", model="NVIDIA L4", driver_version="570")
BUILD = FfmpegBuild(path="/ffmpeg", version="9", candidate="bundled")


def capability(codec: VideoCodec, direction: Direction, *, works: bool = True, hardware: bool = True) -> Capability:
    return Capability(
        codec=codec,
        direction=direction,
        bit_depth=8,
        implementation="x",
        works=works,
        hardware=hardware,
        ffmpeg=BUILD.path,
    )


ALL = (
    capability(VideoCodec.H264, Direction.ENCODE),
    capability(VideoCodec.HEVC, Direction.ENCODE),
    capability(VideoCodec.H264, Direction.DECODE),
    capability(VideoCodec.H264, Direction.ENCODE, hardware=False),
)
LESS = (
    capability(VideoCodec.H264, Direction.ENCODE, works=False),
    *ALL[1:],
)


class Machine:
    """A GPU whose looks and probes a test makes up; its watch's thread does not run."""

    def __init__(self, folder: Path) -> None:
        self.works = ALL
        self.identity = IDENTITY
        self.changes = 0
        self.clock = VirtualClock()
        self.watch = HealthWatch(
            IDENTITY, self, store=HealthStore(folder / "health.json"), clock=self.clock, changed=self.changed
        )
        self.device = ProbedDevice(
            IDENTITY, self.probe, changed=self.changed, clock=self.clock, health_watch=self.watch
        )

    def look(self) -> Reading:
        raise AssertionError("no thread runs")

    def wait(self, seconds: float) -> tuple[int, ...] | None:
        raise AssertionError("no thread runs")

    def close(self) -> None:
        raise AssertionError("no thread runs")

    def changed(self) -> None:
        self.changes += 1

    async def probe(self, refresh: bool) -> tuple[DeviceIdentity, ProbeResult]:
        return self.identity, ProbeResult(ffmpeg_builds=(BUILD,), capabilities=self.works, fault_message=None)


@pytest.fixture
async def machine(tmp_path: Path) -> Machine:
    """A GPU that was probed."""
    made = Machine(tmp_path)
    await made.device.probe(refresh=False)
    return made


async def test_a_launch_on_a_device_that_is_not_well_is_refused(machine: Machine) -> None:
    assert machine.device.pipeline_device().capabilities == ALL
    machine.watch.heard(46)
    assert machine.device.barred
    with pytest.raises(RequestFailure) as caught:
        machine.device.pipeline_device()
    assert (caught.value.reason, caught.value.retry_after) == (Reason.DEVICE_UNHEALTHY, None)
    assert "XID 46" in caught.value.message


async def test_what_needs_an_engine_that_is_out_of_use_does_not_work_until_a_probe_shows_all_of_it(
    machine: Machine,
) -> None:
    machine.watch.heard(47)
    machine.watch.heard(47)
    told = machine.device.pipeline_device().capabilities
    assert [one.works for one in told] == [False, False, True, True], "the cores still encode"
    assert "out of use" in told[0].message
    machine.works = LESS
    await machine.device.probe(refresh=True)
    assert [one.works for one in machine.device.capabilities] == [False, False, True, True], "half of it is not enough"
    machine.works = ALL
    await machine.device.probe(refresh=True)
    assert machine.device.capabilities == ALL


async def test_with_another_driver_an_engine_need_not_do_what_it_did_before(machine: Machine) -> None:
    machine.watch.heard(47)
    machine.watch.heard(47)
    machine.works = LESS
    machine.identity = DeviceIdentity(id="GPU-1", kind="nvidia", model="NVIDIA L4", driver_version="580")
    await machine.device.probe(refresh=True)
    assert machine.device.capabilities == LESS


async def test_kept_outcomes_bring_nothing_back(machine: Machine) -> None:
    machine.watch.heard(46)
    await machine.device.probe(refresh=False)
    assert machine.device.barred
    await machine.device.probe(refresh=True)
    assert not machine.device.barred


async def test_a_probe_is_not_tried_while_the_driver_says_no_unless_an_operator_insists(machine: Machine) -> None:
    machine.watch.saw(Reading(recovery_action=1))
    with pytest.raises(RequestFailure) as caught:
        await machine.device.probe(refresh=True)
    assert caught.value.reason is Reason.DEVICE_UNHEALTHY
    await machine.device.probe(refresh=True, by_operator=True)
    assert machine.device.barred, "it is tried, and changes nothing"
    machine.watch.saw(Reading(recovery_action=0))
    await machine.device.probe(refresh=True)
    assert not machine.device.barred


async def test_only_an_operators_probe_brings_back_what_was_lost(machine: Machine) -> None:
    machine.watch.heard(79)
    await machine.device.probe(refresh=True)
    assert machine.device.barred
    await machine.device.probe(refresh=True, by_operator=True)
    assert not machine.device.barred


async def test_health_travels_as_the_contract_has_it(machine: Machine) -> None:
    assert health_message(None) is None
    assert health_message(machine.device.health) == device_pb2.DeviceHealth(state=device_pb2.HEALTH_STATE_OK)
    for xid in (68, 68, 79):
        machine.watch.heard(xid)
    message = health_message(machine.device.health)
    assert message is not None
    assert (message.state, message.reason, message.xid) == (device_pb2.HEALTH_STATE_LOST, "XID_79", 79)
    assert list(message.faulty_engines) == [device_pb2.CODING_DIRECTION_DECODE]
    assert machine.device.health is not None
    assert message.since_time.ToDatetime(tzinfo=UTC) == machine.device.health.since_time
