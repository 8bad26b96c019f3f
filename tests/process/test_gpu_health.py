"""Whole daemons on GPUs that fall ill: what the driver says, and what placement, sessions and operators see of it.

The driver library and the engines are fakes, see `gpu_fleet`; everything between them and the client is real.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from asked import RUNNING, await_state, done, encoded, live_input, transcode_of, with_sound
from daemons import eventually
from gpu_fleet import H264_ALONE, NO_NVENC, Fleet, fleet_running, uuid

from fakes.nvml_library import UNKNOWN_ERROR, FakeGpu
from gpu_balancer.client import Client
from gpu_balancer.client.retries import RetryPolicy
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import device_pb2, media_pb2, session_pb2

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

# A GeForce card, because only such have a cap of encoder sessions, beside one that has none.
FIRST = FakeGpu(uuid=uuid(0xA1), bus=0x11, name="NVIDIA GeForce RTX 4090")
SECOND = FakeGpu(uuid=uuid(0xA2), bus=0x12)
FACTS = media_pb2.InputFacts(width=320, height=180, video_codec=media_pb2.VIDEO_CODEC_H264)
QUICK = "[quarantine]\nfirst_pause_s = 1.0\nlongest_pause_s = 2.0\n"
"""Pauses between probes that a test can wait for."""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Iterator[Fleet]:
    """Two GPUs, of which the first is preferred."""
    settings = f'{QUICK}[inputs]\nroots = ["{media}"]\n[[devices]]\nmatch = "{SECOND.uuid}"\nweight = 10\n'
    lacking = dict.fromkeys((FIRST.uuid, SECOND.uuid), H264_ALONE)
    with fleet_running(tmp_path_factory.mktemp("two"), [FIRST, SECOND], settings, lacking=lacking) as running:
        running.daemon.await_devices_ready(2, timeout_s=120)
        yield running


@pytest.fixture
def fleet(two: Fleet) -> Fleet:
    """The two GPUs, which are well."""
    two.daemon.await_devices_ready(2, timeout_s=120)
    return two


def device(fleet: Fleet, gpu: FakeGpu) -> device_pb2.Device:
    with fleet.daemon.client() as client:
        return client.get_device(gpu.uuid)


def becomes(fleet: Fleet, gpu: FakeGpu, what: Callable[[device_pb2.Device], Any], told: str) -> device_pb2.Device:
    """Waits until something is true of a device as clients see it."""

    with fleet.daemon.client() as client:

        def seen() -> device_pb2.Device | None:
            now = client.get_device(gpu.uuid)
            return now if what(now) else None

        found: device_pb2.Device = eventually(seen, told, timeout_s=120)
    return found


def kill_agent(fleet: Fleet, gpu: FakeGpu) -> None:
    """Kills a GPU's agent and waits until the next one serves."""
    log = fleet.daemon.state_dir / "agents" / gpu.uuid / "agent.log"
    served = log.read_text().count("Serving")
    os.kill(fleet.daemon.agent_pids()[gpu.uuid], signal.SIGKILL)
    eventually(lambda: log.read_text().count("Serving") > served, "another agent serves", timeout_s=120)


def is_unhealthy(device: device_pb2.Device) -> bool:
    return device.state == device_pb2.DEVICE_STATE_UNHEALTHY


def is_ready(device: device_pb2.Device) -> bool:
    return device.state == device_pb2.DEVICE_STATE_READY


def placed_on(fleet: Fleet, asked: session_pb2.Session, count: int = 1) -> set[str]:
    """Where so many requests would be placed."""
    with fleet.daemon.client() as client:
        return {client.plan_session(asked).placement.device.removeprefix("devices/") for _ in range(count)}


def small(media: Path) -> session_pb2.Session:
    """A session of which nothing has to be found out before it is placed."""
    asked = transcode_of(media / "clip.mp4", encoded(height=90))
    asked.transcode.input.declared_facts.MergeFrom(FACTS)
    return asked


def test_a_gpu_that_falls_off_the_bus_takes_nothing_until_an_operator_has_probed_it(
    fleet: Fleet, media: Path, tmp_path: Path
) -> None:
    assert placed_on(fleet, small(media)) == {FIRST.uuid}
    fleet.nvml.fall_off_the_bus(FIRST.uuid)
    lost = becomes(fleet, FIRST, is_unhealthy, "the GPU is unhealthy")
    assert lost.health.state == device_pb2.HEALTH_STATE_LOST
    assert lost.health.reason in {"XID_79", "GPU_LOST"}, "whichever was seen first"
    assert "gpu-balancer devices probe" in lost.state_message
    assert placed_on(fleet, small(media), 100) == {SECOND.uuid}
    with fleet.daemon.client() as client:
        session, _ = done(client, small(media), tmp_path / "out")
    assert session.device == f"devices/{SECOND.uuid}"

    fleet.nvml.change(FIRST.uuid, errors={})
    kill_agent(fleet, FIRST)
    again = becomes(
        fleet, FIRST, lambda now: now.health.HasField("since_time") and is_unhealthy(now), "its new agent tells of it"
    )
    assert (again.health.state, again.health.since_time) == (lost.health.state, lost.health.since_time)
    assert fleet.daemon.json("devices", "probe", FIRST.uuid)["state"] == "DEVICE_STATE_READY"
    assert placed_on(fleet, small(media)) == {FIRST.uuid}


def test_a_gpu_that_needs_a_reset_comes_back_by_itself_after_it(fleet: Fleet, media: Path) -> None:
    fleet.nvml.report(FIRST.uuid, 119, recovery_action=1)
    sick = becomes(fleet, FIRST, is_unhealthy, "the GPU is unhealthy")
    assert sick.health.state == device_pb2.HEALTH_STATE_UNHEALTHY
    assert placed_on(fleet, small(media), 100) == {SECOND.uuid}
    fleet.nvml.change(FIRST.uuid, recovery_action=0)
    well = becomes(fleet, FIRST, is_ready, "the GPU is back")
    assert well.health.state == device_pb2.HEALTH_STATE_OK
    assert placed_on(fleet, small(media)) == {FIRST.uuid}


def test_a_gpu_whose_probe_fails_stays_out_of_use(fleet: Fleet) -> None:
    fleet.break_card(FIRST.uuid, "cu->cuInit(0) failed -> CUDA_ERROR_UNKNOWN: unknown error")
    fleet.nvml.report(FIRST.uuid, 46)
    becomes(fleet, FIRST, is_unhealthy, "the GPU is unhealthy")
    eventually(lambda: "the device failed its probe and stays out of use" in fleet.daemon.log, "it was probed in vain")
    assert is_unhealthy(device(fleet, FIRST))
    fleet.mend()
    becomes(fleet, FIRST, is_ready, "the GPU is back")


def test_encoders_that_failed_twice_are_out_of_use_and_decoders_are_not(fleet: Fleet, media: Path) -> None:
    fleet.break_engines(FIRST.uuid, NO_NVENC)
    fleet.nvml.report(FIRST.uuid, 47)
    fleet.nvml.report(FIRST.uuid, 65)
    sick = becomes(fleet, FIRST, lambda now: now.health.faulty_engines, "its encoders are out of use")
    assert (is_ready(sick), sick.health.reason) == (True, "ENCODER_OUT_OF_USE")
    assert list(sick.health.faulty_engines) == [device_pb2.CODING_DIRECTION_ENCODE]
    encodes = [one for one in sick.capabilities if one.direction == device_pb2.CODING_DIRECTION_ENCODE and one.hardware]
    assert not any(one.works for one in encodes)
    assert placed_on(fleet, small(media), 10) == {SECOND.uuid}
    in_software = small(media)
    in_software.transcode.allow_software_encode = True
    with fleet.daemon.client() as client:
        client.update_device(SECOND.uuid, cordoned=True)
        plan = client.plan_session(in_software)
        client.update_device(SECOND.uuid, cordoned=False)
    assert plan.placement.device == f"devices/{FIRST.uuid}"
    assert {"-hwaccel", "libx264"} <= set(plan.argv)
    fleet.mend()
    becomes(fleet, FIRST, lambda now: not now.health.faulty_engines, "its encoders are back")
    assert placed_on(fleet, small(media)) == {FIRST.uuid}


def test_a_kill_of_our_own_is_no_fault_of_the_gpu(fleet: Fleet, media: Path) -> None:
    asked = transcode_of(live_input(media / "long.mp4"), with_sound(encoded(height=90), "none"))
    with fleet.daemon.client() as client:
        for _ in range(3):
            name = client.create_session(asked).name
            await_state(client, name, RUNNING)
            folder = fleet.daemon.attempt_folder(name)
            os.kill(int((folder / "program.pid").read_text()), signal.SIGKILL)
            fleet.nvml.report(FIRST.uuid, 45)
            ended = client.wait(name)
            assert (ended.failure.reason, ended.device) == ("KILLED", f"devices/{FIRST.uuid}")
    told = device(fleet, FIRST)
    assert (is_ready(told), told.health.state) == (True, device_pb2.HEALTH_STATE_OK)
    log = (fleet.daemon.state_dir / "agents" / FIRST.uuid / "agent.log").read_text()
    assert "XID 45" in log, "it was heard, and counted for nothing"


def test_sessions_on_a_gpu_that_falls_ill_go_on_elsewhere_where_their_rule_lets_them(fleet: Fleet, media: Path) -> None:
    pytest.importorskip("balancer.session_moves")

    def lasting(mode: session_pb2.RestartMode.ValueType) -> session_pb2.Session:
        asked = transcode_of(live_input(media / "long.mp4"), with_sound(encoded(height=90), "none"))
        asked.restart.mode = mode
        return asked

    with fleet.daemon.client() as client:
        moving = client.create_session(lasting(session_pb2.RESTART_MODE_ON_FAILURE)).name
        staying = client.create_session(lasting(session_pb2.RESTART_MODE_NEVER)).name
        for name in (moving, staying):
            assert await_state(client, name, RUNNING).device == f"devices/{FIRST.uuid}"
        fleet.nvml.report(FIRST.uuid, 119, recovery_action=1)

        def moved() -> session_pb2.Session | None:
            now = client.get_session(moving)
            return now if now.device == f"devices/{SECOND.uuid}" and now.state == RUNNING else None

        session = eventually(moved, "the session runs elsewhere", timeout_s=120)
        assert (session.attempt, session.last_restart.failure.reason) == (2, "DEVICE_UNHEALTHY")
        assert "XID 119" in session.last_restart.failure.message or "recovered" in session.last_restart.failure.message
        stayed = client.get_session(staying)
        assert (stayed.attempt, stayed.device) == (1, f"devices/{FIRST.uuid}"), "it may end there, and says how then"
        for name in (moving, staying):
            client.stop_session(name)
            client.wait(name)
    fleet.nvml.change(FIRST.uuid, recovery_action=0)


def test_gpus_that_all_go_while_the_daemon_runs_are_the_containers_fault_told_once(fleet: Fleet, media: Path) -> None:
    fleet.describe(*(replace(gpu, errors={"*": UNKNOWN_ERROR}) for gpu in fleet.gpus))
    for gpu in fleet.gpus:
        told = becomes(fleet, gpu, lambda now: "any of the 2 GPUs" in now.state_message, "it is told as one fault")
        assert "re-creating" in told.state_message
    assert fleet.daemon.log.count("all GPUs were lost at once") == 1
    shown = fleet.daemon.cli("devices", "show", FIRST.uuid).stdout
    assert "CONTAINER_LOST_GPUS" in shown
    impatient = RetryPolicy(patience=timedelta(0))
    with Client(fleet.daemon.address, retry_policy=impatient) as client, pytest.raises(RequestFailure) as caught:
        client.create_session(small(media))
    assert caught.value.reason is Reason.NO_DEVICE_READY
    fleet.describe(*fleet.gpus)
    for gpu in fleet.gpus:
        becomes(fleet, gpu, is_ready, "the GPUs are back")


def test_a_gpu_whose_driver_hangs_is_unhealthy_and_the_others_work(fleet: Fleet, media: Path, tmp_path: Path) -> None:
    fleet.nvml.change(FIRST.uuid, hangs=("*",))
    sick = becomes(fleet, FIRST, is_unhealthy, "the GPU is unhealthy")
    assert sick.health.reason == "DRIVER_HANGS"
    health_file = fleet.daemon.state_dir / "agents" / FIRST.uuid / "health.json"
    eventually(lambda: health_file.exists() and "DRIVER_HANGS" in health_file.read_text(), "it is kept")
    kill_agent(fleet, FIRST)
    becomes(fleet, FIRST, is_unhealthy, "its new agent, which serves although the driver hangs, tells of it")
    with fleet.daemon.client() as client:
        session, _ = done(client, small(media), tmp_path / "out")
    assert session.device == f"devices/{SECOND.uuid}"
    fleet.nvml.change(FIRST.uuid, hangs=())
    becomes(fleet, FIRST, is_ready, "the GPU is back")


def test_a_card_without_a_further_encoder_session_hands_its_session_on_unseen(
    fleet: Fleet, media: Path, tmp_path: Path
) -> None:
    assert placed_on(fleet, small(media)) == {FIRST.uuid}
    unhealthy_before = fleet.daemon.log.count(Reason.DEVICE_UNHEALTHY.name)
    fleet.break_card(FIRST.uuid, "OpenEncodeSessionEx failed: out of memory (10): (no details)")
    with fleet.daemon.client() as client:
        session, _ = done(client, small(media), tmp_path / "out")
    assert (session.device, session.attempt) == (f"devices/{SECOND.uuid}", 2)
    assert not session.HasField("failure")
    assert "learned the encoder session cap of this host" in fleet.daemon.log
    assert is_ready(device(fleet, FIRST))
    assert fleet.daemon.log.count(Reason.DEVICE_UNHEALTHY.name) == unhealthy_before
    fleet.mend()
