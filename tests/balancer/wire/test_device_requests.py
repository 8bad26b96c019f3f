"""Devices and the daemon itself, over a real wire."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from balancer.ports.agent_client import AgentReport, Measurements
from fakes.balancer_house import MAX_UPLOAD_BYTES, BalancerHouse, balancer_house, failure_of, report_of
from gpu_balancer import __version__
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import balancer_service_pb2, device_pb2
from gpu_balancer.v1 import device_service_pb2 as pb


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[BalancerHouse]:
    """A balancer with two devices."""
    async with balancer_house(tmp_path, devices={"cpu-0": 4, "cpu-1": 2}) as made:
        yield made


async def test_devices_are_listed_in_their_order_in_pages(pair: BalancerHouse) -> None:
    first = await pair.devices.ListDevices(pb.ListDevicesRequest(page_size=1))
    assert [device.name for device in first.devices] == ["devices/cpu-0"]
    rest = await pair.devices.ListDevices(pb.ListDevicesRequest(page_token=first.next_page_token))
    assert [device.name for device in rest.devices] == ["devices/cpu-1"]
    assert rest.next_page_token == ""


async def test_a_device_is_found_by_its_name_with_or_without_its_folder(pair: BalancerHouse) -> None:
    for name in ("devices/cpu-1", "cpu-1"):
        device = (await pair.devices.GetDevice(pb.GetDeviceRequest(name=name))).device
        assert device.name == "devices/cpu-1"
        assert device.state == device_pb2.DEVICE_STATE_READY
        assert device.agent_version == "0", "as its agent tells it"
    failure = await failure_of(pair.devices.GetDevice(pb.GetDeviceRequest(name="devices/nope")))
    assert failure.reason is Reason.DEVICE_NOT_FOUND


async def test_a_watch_gives_every_device_then_each_change(pair: BalancerHouse) -> None:
    stream = aiter(pair.devices.WatchDevices(pb.WatchDevicesRequest()))
    assert [(await anext(stream)).device.name for _ in range(2)] == ["devices/cpu-0", "devices/cpu-1"]
    pair.registry.update_measurements(pair.agent.device_id, Measurements(compute_utilization_percent=7))
    changed = (await anext(stream)).device
    assert (changed.name, changed.measurements.compute_utilization_percent) == ("devices/cpu-0", 7)


async def test_a_weight_is_set_until_the_next_reload(pair: BalancerHouse) -> None:
    answer = await pair.devices.UpdateDevice(pb.UpdateDeviceRequest(name="cpu-1", weight=33))
    assert (answer.device.weight, answer.device.weight_source, answer.saved_path) == (33, "operator", "")
    assert pair.reloader.saved == []


async def test_a_weight_is_saved_when_asked(pair: BalancerHouse) -> None:
    answer = await pair.devices.UpdateDevice(pb.UpdateDeviceRequest(name="cpu-1", weight=33, save=True))
    assert answer.saved_path == "/etc/balancer.toml"
    assert answer.device.weight == 33
    assert pair.reloader.saved == [("cpu-1", 33)]


async def test_a_device_is_closed_and_opened_and_its_weight_stays(pair: BalancerHouse) -> None:
    before = (await pair.devices.GetDevice(pb.GetDeviceRequest(name="cpu-0"))).device.weight
    closed = await pair.devices.UpdateDevice(pb.UpdateDeviceRequest(name="cpu-0", cordoned=True))
    assert closed.device.state == device_pb2.DEVICE_STATE_CORDONED
    assert closed.device.weight == before
    opened = await pair.devices.UpdateDevice(pb.UpdateDeviceRequest(name="cpu-0", cordoned=False))
    assert opened.device.state == device_pb2.DEVICE_STATE_READY


async def test_a_device_is_emptied_and_tells_how_far_it_is(pair: BalancerHouse) -> None:
    asked = pb.DrainDeviceRequest(name="cpu-0", mode=device_pb2.DRAIN_MODE_MOVE)
    asked.deadline.seconds = 600
    told = (await pair.devices.DrainDevice(asked)).device
    assert told.state == device_pb2.DEVICE_STATE_CORDONED, "it was empty"
    assert (told.drain.mode, told.drain.session_count) == (device_pb2.DRAIN_MODE_MOVE, 0)
    assert told.drain.deadline.seconds - told.drain.start_time.seconds in (599, 600, 601)
    assert pair.store.findings.keys() == {"closed/cpu-0"}
    opened = await pair.devices.UpdateDevice(pb.UpdateDeviceRequest(name="cpu-0", cordoned=False))
    assert (opened.device.state, opened.device.HasField("drain")) == (device_pb2.DEVICE_STATE_READY, False)
    assert pair.store.findings == {}
    told = (await pair.devices.DrainDevice(pb.DrainDeviceRequest(name="cpu-0"))).device
    assert (told.drain.mode, told.drain.HasField("deadline")) == (device_pb2.DRAIN_MODE_WAIT, False)


@pytest.mark.parametrize(("mode", "seconds", "field"), [(7, 1, "mode"), (1, -1, "deadline"), (2, 10**9, "deadline")])
async def test_a_bad_drain_changes_nothing(pair: BalancerHouse, mode: Any, seconds: int, field: str) -> None:
    asked = pb.DrainDeviceRequest(name="cpu-0", mode=mode)
    asked.deadline.seconds = seconds
    before = pair.registry.entries()
    failure = await failure_of(pair.devices.DrainDevice(asked))
    assert [violation.field for violation in failure.violations] == [field]
    assert pair.registry.entries() == before


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.UpdateDeviceRequest(name="cpu-0", weight=10_001, cordoned=True), "weight"),
        (pb.UpdateDeviceRequest(name="cpu-0", save=True, cordoned=True), "save"),
    ],
)
async def test_a_bad_update_changes_nothing(pair: BalancerHouse, request_: pb.UpdateDeviceRequest, field: str) -> None:
    before = pair.registry.entries()
    failure = await failure_of(pair.devices.UpdateDevice(request_))
    assert failure.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in failure.violations] == [field]
    assert pair.registry.entries() == before


async def test_a_settings_file_that_is_refused_leaves_weight_and_cordon_as_they_are(pair: BalancerHouse) -> None:
    pair.reloader.failure = RequestFailure(reason=Reason.SETTINGS_REFUSED, message="line 7 is wrong")
    before = pair.registry.entries()
    request = pb.UpdateDeviceRequest(name="cpu-0", weight=5, save=True, cordoned=True)
    assert (await failure_of(pair.devices.UpdateDevice(request))).reason is Reason.SETTINGS_REFUSED
    assert pair.registry.entries() == before
    failure = await failure_of(pair.devices.ReloadSettings(pb.ReloadSettingsRequest()))
    assert "line 7" in failure.message


async def test_a_reload_tells_what_changed_and_what_waits_for_a_restart(pair: BalancerHouse) -> None:
    answer = await pair.devices.ReloadSettings(pb.ReloadSettingsRequest())
    assert answer.settings_version == 2
    assert list(answer.changes) == ["The weight of cpu-0 is 50, not 100."]
    assert list(answer.restart_keys) == ["server.listen"]


async def test_a_device_is_tried_again_by_its_agent(pair: BalancerHouse, monkeypatch: pytest.MonkeyPatch) -> None:
    async def probe(*, by_operator: bool = False) -> AgentReport:
        return report_of("cpu-0", 8)

    monkeypatch.setattr(pair.agent, "probe", probe)
    device = (await pair.devices.ProbeDevice(pb.ProbeDeviceRequest(name="cpu-0"))).device
    assert list(device.identity.cores) == list(range(8))


async def test_a_device_whose_agent_is_away_cannot_be_tried(pair: BalancerHouse) -> None:
    pair.agent.reachable = False
    failure = await failure_of(pair.devices.ProbeDevice(pb.ProbeDeviceRequest(name="cpu-0")))
    assert failure.reason is Reason.AGENT_UNREACHABLE
    pair.agents.clear()
    failure = await failure_of(pair.devices.ProbeDevice(pb.ProbeDeviceRequest(name="cpu-0")))
    assert failure.reason is Reason.AGENT_UNREACHABLE


async def test_the_daemon_tells_what_it_is(house: BalancerHouse) -> None:
    told = await house.balancer.GetBalancer(balancer_service_pb2.GetBalancerRequest())
    assert (told.version, told.process_id) == (__version__, os.getpid())
    assert told.listen_addresses[0].endswith("balancer.sock")
    assert told.http_address == "http://127.0.0.1:8080"
    assert (told.settings_path, told.settings_version, told.policy) == ("", 1, "least_weighted_load")
    assert told.max_upload_bytes == MAX_UPLOAD_BYTES
    assert told.start_time.seconds == 1_893_456_000
    ladder = next(profile for profile in told.profiles if profile.name == "ladder-h264")
    assert [rendition.id for rendition in ladder.renditions] == ["1080p", "720p", "480p", "360p"]


@pytest.mark.parametrize(("stop", "stopped", "running"), [(True, 2, 0), (False, 0, 2)])
async def test_the_daemon_ends_with_or_without_its_sessions(
    house: BalancerHouse, stop: bool, stopped: int, running: int
) -> None:
    told = await house.balancer.Shutdown(balancer_service_pb2.ShutdownRequest(stop_sessions=stop))
    assert house.shutdown.asked == [stop]
    assert (told.stopped_sessions, len(told.running_sessions)) == (stopped, running)
