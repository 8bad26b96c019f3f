"""Both clients against a real server: calls, pages, repeats, streams after a cut, failures in words."""

from __future__ import annotations

import inspect
import socket
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor import ServiceDescriptor

from fakes.balancer_server import SOUND_TIMING, FakeBalancer, start_server
from gpu_balancer import AsyncClient, BalancerUnreachable, Client, Reason, RequestFailure, RetryPolicy, Violation
from gpu_balancer.client import methods
from gpu_balancer.client.steps import Steps
from gpu_balancer.v1 import (
    balancer_service_pb2,
    device_pb2,
    device_service_pb2,
    placement_pb2,
    session_pb2,
    session_service_pb2,
    upload_service_pb2,
)

if TYPE_CHECKING:
    from pathlib import Path

CONTRACT = (session_service_pb2, device_service_pb2, upload_service_pb2, balancer_service_pb2)
TABLE = [value for value in vars(methods).values() if isinstance(value, methods.Method)]


def contract_services() -> list[ServiceDescriptor]:
    return [service for module in CONTRACT for service in module.DESCRIPTOR.services_by_name.values()]


def test_the_table_of_calls_is_the_contract() -> None:
    contract = {
        (service.name, call.name): (call.input_type.full_name, call.output_type.full_name, call.server_streaming)
        for service in contract_services()
        for call in service.methods
    }
    # WriteUpload streams towards the daemon and is without a bound too.
    table = {
        (call.service, call.name): (
            call.request.DESCRIPTOR.full_name,
            call.response.DESCRIPTOR.full_name,
            call.timeout is None and call.name != "WriteUpload",
        )
        for call in TABLE
    }
    assert table == contract
    assert all(call.path == f"/gpu_balancer.v1.{call.service}/{call.name}" for call in TABLE)


def test_the_blocking_client_has_every_method_of_the_asynchronous_one() -> None:
    steps = {name for name, member in inspect.getmembers(Steps) if inspect.isfunction(member)}
    public = {name for name in steps if not name.startswith("_")}
    assert public
    assert public <= set(dir(Client))


def test_a_blocking_method_has_the_words_and_parameters_of_its_step() -> None:
    assert Client.update_device.__doc__ == AsyncClient.update_device.__doc__
    assert "weight" in inspect.signature(Client.update_device).parameters


async def test_a_session_is_created_named_and_found(client: AsyncClient) -> None:
    made = await client.create_session(session_pb2.Session(labels={"show": "news"}))
    found = await client.get_session(made.name.removeprefix("sessions/"))
    assert found == made
    assert found.labels["show"] == "news"


def test_a_blocking_client_does_the_same(blocking_client: Client) -> None:
    made = blocking_client.create_session(session_pb2.Session(labels={"show": "news"}))
    assert blocking_client.get_session(made.name) == made
    assert [session.name for session in blocking_client.list_sessions()] == [made.name]


async def test_a_create_whose_answer_is_lost_makes_one_session(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.lose_answer("CreateSession", times=2)
    made = await client.create_session(session_pb2.Session())
    assert list(fake.sessions) == [made.name]
    assert fake.calls["CreateSession"] == 3


async def test_two_creates_make_two_sessions(fake: FakeBalancer, client: AsyncClient) -> None:
    await client.create_session(session_pb2.Session())
    await client.create_session(session_pb2.Session())
    assert len(fake.sessions) == 2


async def test_a_delete_whose_answer_is_lost_is_done(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("a", state=session_pb2.SESSION_STATE_FAILED)
    fake.lose_answer("DeleteSession")
    await client.delete_session("a")
    assert fake.sessions == {}


async def test_deleting_what_never_was_is_refused(client: AsyncClient) -> None:
    with pytest.raises(RequestFailure) as caught:
        await client.delete_session("a")
    assert caught.value.reason is Reason.SESSION_NOT_FOUND


async def test_a_reload_is_not_repeated(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.refuse("ReloadSettings", grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(BalancerUnreachable):
        await client.reload_settings()
    assert fake.calls["ReloadSettings"] == 1


async def test_lists_go_on_to_the_last_page(fake: FakeBalancer, client: AsyncClient) -> None:
    for number in range(5):
        fake.add_session(f"s{number}")
        fake.add_device(device_pb2.Device(name=f"devices/cpu-{number}"))
        fake.add_artifact("sessions/s0", f"{number}.mp4", b"x")
    assert [session.name async for session in client.list_sessions()] == [f"sessions/s{n}" for n in (4, 3, 2, 1, 0)]
    assert [device.name async for device in client.list_devices()] == [f"devices/cpu-{n}" for n in range(5)]
    assert [one.path async for one in client.list_artifacts("s0")] == [f"{n}.mp4" for n in range(5)]


async def test_a_page_is_asked_for_when_it_is_needed(fake: FakeBalancer, client: AsyncClient) -> None:
    for number in range(5):
        fake.add_session(f"s{number}")
    async with aclosing(client.list_sessions()) as sessions:
        await anext(sessions)
    assert fake.calls["ListSessions"] == 1


async def test_a_refusal_keeps_reason_violations_figures_and_details(fake: FakeBalancer, client: AsyncClient) -> None:
    refusal = placement_pb2.DeviceVerdict(
        device="devices/cpu-0", refusal=placement_pb2.Refusal(rule="CAPACITY", message="is full")
    )
    fake.refuse(
        "CreateSession",
        RequestFailure(
            reason=Reason.NO_CAPACITY,
            message="Cannot place it.",
            violations=(Violation(field="session", description="too much"),),
            retry_after=timedelta(seconds=7),
            metadata={"needed": "3"},
            details=(placement_pb2.Placement(verdicts=[refusal]),),
        ),
    )
    with pytest.raises(RequestFailure) as caught:
        await client.create_session(session_pb2.Session())
    failure = caught.value
    assert (failure.reason, failure.message, failure.retry_after) == (
        Reason.NO_CAPACITY,
        "Cannot place it.",
        timedelta(seconds=7),
    )
    assert failure.violations == (Violation(field="session", description="too much"),)
    assert failure.metadata == {"needed": "3"}
    assert failure.details == (placement_pb2.Placement(verdicts=[refusal]),)


async def test_a_daemon_that_is_not_ready_is_asked_again(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.refuse("CreateSession", RequestFailure(reason=Reason.NO_DEVICE_READY, message="Cannot place it yet."))
    assert (await client.create_session(session_pb2.Session())).name


async def test_patience_ends(fake: FakeBalancer) -> None:
    fake.refuse("GetBalancer", *[grpc.StatusCode.UNAVAILABLE] * 50)
    policy = RetryPolicy(patience=timedelta(milliseconds=60), first_delay=timedelta(milliseconds=10))
    async with AsyncClient(fake.address, retry_policy=policy) as client:
        with pytest.raises(BalancerUnreachable):
            await client.get_balancer()
    assert 2 <= fake.calls["GetBalancer"] <= 10


def test_a_missing_socket_is_told_at_once(tmp_path: Path) -> None:
    with Client(f"unix:{tmp_path}/no.sock") as client, pytest.raises(BalancerUnreachable) as caught:
        client.get_balancer()
    assert caught.value.reason is Reason.BALANCER_UNREACHABLE
    assert "there is no socket" in caught.value.message
    assert "Try to start gpu-balancerd" in caught.value.message


def test_a_socket_without_a_daemon_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    policy = RetryPolicy(patience=timedelta(0))
    with Client(f"unix:{path}", retry_policy=policy) as client, pytest.raises(BalancerUnreachable) as caught:
        client.get_balancer()
    assert "Connection refused" in caught.value.message
    assert "last error" not in caught.value.message


async def test_a_daemon_that_is_being_restarted_has_no_socket_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "balancer.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    servers: list[grpc.aio.Server] = []
    policy = RetryPolicy(patience=timedelta(seconds=20), longest_delay=timedelta(milliseconds=20))
    async with AsyncClient(f"unix:{path}", retry_policy=policy) as client:
        pause = client._connection.pause
        pauses: list[timedelta] = []

        async def restarting(delay: timedelta) -> None:
            """Between the tries the socket of the killed daemon is removed, and then that of the next one is there."""
            pauses.append(delay)
            if len(pauses) == 1:
                path.unlink()
            elif not servers:
                servers.append(await start_server(FakeBalancer(f"unix:{path}")))
            await pause(delay)

        monkeypatch.setattr(client._connection, "pause", restarting)
        assert (await client.create_session(session_pb2.Session())).name
    await servers[0].stop(0)
    assert len(pauses) >= 2


async def test_a_server_of_another_kind_is_told_in_words(tmp_path: Path) -> None:
    server = grpc.aio.server()
    server.add_insecure_port(f"unix:{tmp_path}/other.sock")
    await server.start()
    async with AsyncClient(f"unix:{tmp_path}/other.sock") as client:
        with pytest.raises(RequestFailure, match="does not know it"):
            await client.get_balancer()
    await server.stop(0)


async def test_watching_a_session_goes_on_after_a_cut(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("a")
    fake.cut("WatchSession", 1, 1)
    seen = []
    async with aclosing(client.watch_session("a")) as changes:
        async for session in changes:
            seen.append(session.revision)
            if session.revision == 1:
                fake.advance("sessions/a", state=session_pb2.SESSION_STATE_RUNNING)
            elif session.revision == 2:
                fake.advance("sessions/a", state=session_pb2.SESSION_STATE_SUCCEEDED)
    assert seen == [1, 2, 3]
    asked = [one.after_revision for one in fake.received if isinstance(one, session_service_pb2.WatchSessionRequest)]
    assert asked == [0, 1, 2]


async def test_watching_sessions_resumes_with_the_last_token(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("a")
    fake.cut("WatchSessions", 2)
    seen = []
    async with aclosing(client.watch_sessions()) as changes:
        async for change in changes:
            seen.append((change.type, change.session.name))
            if change.type == session_service_pb2.SESSION_CHANGE_TYPE_SYNCED:
                fake.add_session("b")
            if change.session.name == "sessions/b":
                break
    updated, synced = session_service_pb2.SESSION_CHANGE_TYPE_UPDATED, session_service_pb2.SESSION_CHANGE_TYPE_SYNCED
    assert seen == [(updated, "sessions/a"), (synced, ""), (updated, "sessions/b")]
    tokens = [one.resume_token for one in fake.received if isinstance(one, session_service_pb2.WatchSessionsRequest)]
    assert tokens == ["", "1"]


async def test_waiting_tells_each_change_and_gives_the_end(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("a")
    states = []

    def on_change(session: session_pb2.Session) -> None:
        states.append(session.state)
        if len(states) == 1:
            fake.advance("sessions/a", state=session_pb2.SESSION_STATE_FAILED)

    ended = await client.wait("a", on_change=on_change)
    assert ended.state == session_pb2.SESSION_STATE_FAILED
    assert states == [session_pb2.SESSION_STATE_STARTING, session_pb2.SESSION_STATE_FAILED]


def test_a_blocking_watch_ends_its_call_when_its_reader_leaves(
    fake_aside: FakeBalancer, blocking_client: Client
) -> None:
    fake_aside.do(lambda: fake_aside.add_session("a"))
    changes = blocking_client.watch_session("a")
    assert next(changes).name == "sessions/a"
    changes.close()
    assert list(changes) == []


async def test_devices_are_watched_again_from_the_beginning_after_a_cut(
    fake: FakeBalancer, client: AsyncClient
) -> None:
    fake.add_device(device_pb2.Device(name="devices/cpu-0"))
    fake.add_device(device_pb2.Device(name="devices/cpu-1"))
    fake.cut("WatchDevices", 1)
    seen = []
    async with aclosing(client.watch_devices()) as devices:
        async for device in devices:
            seen.append(device.name)
            if len(seen) == 3:
                break
    assert seen == ["devices/cpu-0", "devices/cpu-0", "devices/cpu-1"]


async def test_a_weight_of_zero_is_sent_and_an_absent_one_is_not(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_device(device_pb2.Device(name="devices/cpu-0", weight=100))
    await client.update_device("cpu-0", cordoned=True)
    assert fake.devices["devices/cpu-0"].weight == 100
    answer = await client.update_device("cpu-0", weight=0, save=True)
    assert fake.devices["devices/cpu-0"].weight == 0
    assert answer.saved_path == "/etc/gpu-balancer/balancer.toml"


async def test_a_drain_says_how_and_until_when(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_device(device_pb2.Device(name="devices/cpu-0", session_count=1))
    assert (await client.drain_device("cpu-0")).state == device_pb2.DEVICE_STATE_DRAINING
    await client.drain_device("cpu-0", move=True, deadline=timedelta(minutes=10))
    waits, moves = [one for one in fake.received if isinstance(one, device_service_pb2.DrainDeviceRequest)]
    assert (waits.mode, waits.HasField("deadline")) == (device_pb2.DRAIN_MODE_WAIT, False)
    assert (moves.mode, moves.deadline.seconds) == (device_pb2.DRAIN_MODE_MOVE, 600)


async def test_what_is_to_be_calibrated_is_said(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_device(device_pb2.Device(name="devices/cpu-0"))
    sound = [answer async for answer in client.calibrate_device("cpu-0", sound=True)]
    device = [answer async for answer in client.calibrate_device("cpu-0")]
    assert sound[-1].device.recording.sound_timing == SOUND_TIMING
    assert (len(sound[-1].suggested_weights), len(device[-1].suggested_weights)) == (0, 1)
    asked = [one for one in fake.received if isinstance(one, device_service_pb2.CalibrateDeviceRequest)]
    assert [(one.name, one.sound) for one in asked] == [("devices/cpu-0", True), ("devices/cpu-0", False)]


async def test_a_log_is_given_by_line_and_may_begin_late(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("a")
    fake.logs["sessions/a"] = ["one", "two", "three"]
    assert [line async for line in client.read_session_log("a")] == ["one", "two", "three"]
    assert [line async for line in client.read_session_log("a", tail_lines=2)] == ["two", "three"]
    assert [line async for line in client.read_session_log("a", tail_lines=0)] == []


async def test_a_log_cut_before_its_first_line_is_asked_for_again(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("a")
    fake.logs["sessions/a"] = ["one"]
    fake.cut("ReadSessionLog", 0)
    assert [line async for line in client.read_session_log("a")] == ["one"]


async def test_a_log_cut_later_is_told_rather_than_repeated(fake: FakeBalancer, client: AsyncClient) -> None:
    fake.add_session("a")
    fake.logs["sessions/a"] = ["one", "two"]
    fake.cut("ReadSessionLog", 1)
    async with aclosing(client.read_session_log("a")) as lines:
        assert await anext(lines) == "one"
        with pytest.raises(BalancerUnreachable):
            await anext(lines)
