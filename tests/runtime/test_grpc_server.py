"""The server of a real service of the contract: who reaches it, what it refuses, and how errors arrive."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.runtime.grpc_server import GrpcServer, ServedService, ServerLimits, build_server
from gpu_balancer.runtime.listening import ListenFault
from gpu_balancer.runtime.rich_status import failure_from_rpc_error
from gpu_balancer.v1 import session_pb2, session_service_pb2, session_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

_NAME = session_service_pb2.DESCRIPTOR.services_by_name["SessionService"].full_name
_SECRET = "/srv/secret/path"
_NO_MESSAGE = b"\x0a\xff"
"""A text field that ends before it has begun."""


class _Sessions(session_service_pb2_grpc.SessionServiceServicer):
    """Answers by what it is asked for."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    async def GetSession(self, request: Any, context: Any) -> session_service_pb2.GetSessionResponse:  # noqa: N802
        match request.name:
            case "refuse":
                raise _refusal()
            case "crash":
                raise OSError(f"cannot read {_SECRET}")
            case "abort":
                await context.abort(grpc.StatusCode.DATA_LOSS, "its own word")
        return session_service_pb2.GetSessionResponse(session=session_pb2.Session(name=request.name))

    async def WatchSession(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[session_service_pb2.WatchSessionResponse]:
        try:
            yield session_service_pb2.WatchSessionResponse(session=session_pb2.Session(name=request.name))
            match request.name:
                case "refuse":
                    raise _refusal()
                case "crash":
                    raise OSError(f"cannot read {_SECRET}")
                case "wait":
                    await asyncio.Event().wait()
        finally:
            self.closed.set()


def _refusal() -> RequestFailure:
    return RequestFailure(
        reason=Reason.NO_CAPACITY,
        message="Cannot place the session: every device is full. Try again in 3 s.",
        violations=(Violation(field="session.transcode", description="must be smaller"),),
        retry_after=timedelta(seconds=3),
        metadata={"devices": "2"},
    )


def _server(*addresses: str, servicer: _Sessions | None = None, limits: ServerLimits | None = None) -> GrpcServer:
    service = ServedService(
        name=_NAME,
        add=session_service_pb2_grpc.add_SessionServiceServicer_to_server,
        servicer=servicer or _Sessions(),
    )
    return build_server(addresses=addresses, services=(service,), limits=limits)


def _stub(channel: grpc.aio.Channel) -> Any:
    return session_service_pb2_grpc.SessionServiceStub(channel)


async def _get(address: str, name: str = "sessions/1") -> Any:
    async with grpc.aio.insecure_channel(address) as channel:
        return await _stub(channel).GetSession(session_service_pb2.GetSessionRequest(name=name), timeout=10)


async def _watch(address: str, name: str) -> list[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        call = _stub(channel).WatchSession(session_service_pb2.WatchSessionRequest(name=name), timeout=10)
        return [response.session.name async for response in call]


async def _start(*addresses: str) -> None:
    async with _server(*addresses):
        raise AssertionError("it must not listen")


async def test_it_answers_on_a_unix_socket_and_on_loopback(tmp_path: Path) -> None:
    async with _server(f"unix:{tmp_path}/a.sock", "127.0.0.1:0", "localhost:0") as server:
        assert len(server.addresses) == 3
        for address in server.addresses:
            assert (await _get(address)).session.name == "sessions/1"


@pytest.mark.parametrize("call", [_get, _watch])
async def test_a_failure_arrives_with_reason_fields_and_retry(call: Any) -> None:
    async with _server("127.0.0.1:0") as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(server.addresses[0], "refuse")
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    failure = failure_from_rpc_error(caught.value)
    assert failure is not None
    expected = _refusal()
    assert (failure.reason, failure.message, failure.violations, failure.retry_after, dict(failure.metadata)) == (
        expected.reason, expected.message, expected.violations, expected.retry_after, {"devices": "2"},
    )  # fmt: skip


async def test_the_details_are_those_that_any_grpc_client_knows() -> None:
    from grpc_status import rpc_status

    async with _server("127.0.0.1:0") as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _get(server.addresses[0], "refuse")
    status = rpc_status.from_call(caught.value)
    known = (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo)
    assert all(detail.Is(kind.DESCRIPTOR) for detail, kind in zip(status.details, known, strict=True))


@pytest.mark.parametrize("call", [_get, _watch])
async def test_an_unexpected_error_leaks_nothing_and_is_logged_with_its_reference(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with _server("127.0.0.1:0") as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(server.addresses[0], "crash")
    error = caught.value
    assert error.code() is grpc.StatusCode.INTERNAL
    told = f"{error.details()}{error.debug_error_string()}{error.trailing_metadata()}"
    assert _SECRET not in told
    assert "OSError" not in told
    failure = failure_from_rpc_error(error)
    assert failure is not None
    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert failure.metadata["reference"] in failure.message
    assert failure.metadata["reference"] in record.getMessage()
    assert record.exc_info is not None
    assert _SECRET in str(record.exc_info[1])


async def test_an_abort_of_the_handlers_own_passes_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    async with _server("127.0.0.1:0") as server:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _get(server.addresses[0], "abort")
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.DATA_LOSS, "its own word")
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_answers_given_before_a_failure_arrive() -> None:
    async with _server("127.0.0.1:0") as server, grpc.aio.insecure_channel(server.addresses[0]) as channel:
        call = _stub(channel).WatchSession(session_service_pb2.WatchSessionRequest(name="refuse"), timeout=10)
        assert (await call.read()).session.name == "refuse"
        with pytest.raises(grpc.aio.AioRpcError):
            await call.read()


async def test_a_caller_that_hangs_up_frees_its_handler_at_once() -> None:
    servicer = _Sessions()
    async with (
        _server("127.0.0.1:0", servicer=servicer) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        call = _stub(channel).WatchSession(session_service_pb2.WatchSessionRequest(name="wait"), timeout=10)
        await call.read()
        call.cancel()
        await asyncio.wait_for(servicer.closed.wait(), 5)


async def test_a_method_that_nobody_serves_is_unimplemented() -> None:
    async with _server("127.0.0.1:0") as server, grpc.aio.insecure_channel(server.addresses[0]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/gpu_balancer.v1.SessionService/Nothing")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def _unary(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(f"/{_NAME}/GetSession")(_NO_MESSAGE, timeout=10)


def _answers(channel: grpc.aio.Channel) -> Any:
    return channel.unary_stream(f"/{_NAME}/WatchSession")(_NO_MESSAGE, timeout=10).read()


def _requests(channel: Any) -> Any:
    method = f"/{reflection.SERVICE_NAME}/ServerReflectionInfo"
    return channel.stream_stream(method)(iter([_NO_MESSAGE]), timeout=10).read()


@pytest.mark.parametrize("call", [_unary, _answers, _requests])
async def test_a_body_that_is_no_message_is_an_invalid_argument_and_logs_no_error(
    call: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with _server("127.0.0.1:0") as server, grpc.aio.insecure_channel(server.addresses[0]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)
        assert (await _get(server.addresses[0])).session.name == "sessions/1"
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    failure = failure_from_rpc_error(caught.value)
    assert failure is not None
    assert failure.reason is Reason.INVALID_REQUEST
    assert failure.message.startswith("Cannot read the request: ")
    assert "DecodeError" not in f"{caught.value.details()}{caught.value.debug_error_string()}"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
async def test_an_oversized_request_is_refused_also_when_packed(compression: grpc.Compression) -> None:
    request = session_service_pb2.GetSessionRequest(name="x" * 5000)
    limits = ServerLimits(max_receive_bytes=4096)
    async with (
        _server("127.0.0.1:0", limits=limits) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _stub(channel).GetSession(request, timeout=10, compression=compression)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_of_up_to_1_mib_is_taken_unless_told_otherwise() -> None:
    request = session_service_pb2.GetSessionRequest(name="x" * (1024 * 1024 - 100))
    async with _server("127.0.0.1:0") as server:
        assert (await _get(server.addresses[0], request.name)).session.name == request.name


async def test_it_is_not_serving_until_told_and_not_again_afterwards() -> None:
    known = health_pb2.HealthCheckResponse
    async with _server("127.0.0.1:0") as server, grpc.aio.insecure_channel(server.addresses[0]) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)

        async def statuses() -> set[int]:
            asked = [health_pb2.HealthCheckRequest(service=name) for name in ("", _NAME)]
            return {(await health.Check(request, timeout=10)).status for request in asked}

        assert await statuses() == {known.NOT_SERVING}
        await server.set_serving(serving=True)
        assert await statuses() == {known.SERVING}
        await server.set_serving(serving=False)
        assert await statuses() == {known.NOT_SERVING}


async def test_reflection_names_every_service() -> None:
    async with _server("127.0.0.1:0") as server, grpc.aio.insecure_channel(server.addresses[0]) as channel:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10)
        (answer,) = [response async for response in call]
    names = {service.name for service in answer.list_services_response.service}
    assert names == {_NAME, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}


async def test_one_caller_may_have_so_many_calls_open_and_no_more() -> None:
    limits = ServerLimits(max_concurrent_streams=2)
    async with (
        _server("127.0.0.1:0", limits=limits) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        watch = session_service_pb2.WatchSessionRequest(name="wait")
        calls = [_stub(channel).WatchSession(watch, timeout=10) for _ in range(2)]
        for call in calls:
            await call.read()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _stub(channel).GetSession(session_service_pb2.GetSessionRequest(name="x"), timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        # Channels of one process share a connection unless told not to.
        own_connection = (("grpc.use_local_subchannel_pool", 1),)
        async with grpc.aio.insecure_channel(server.addresses[0], options=own_connection) as another:
            request = session_service_pb2.GetSessionRequest(name="x")
            assert (await _stub(another).GetSession(request, timeout=5)).session.name == "x"
        for call in calls:
            call.cancel()


async def test_a_burst_of_calls_waits_for_its_turn_instead_of_being_refused() -> None:
    """Many times more calls than may be open, several times over, as finished ones are freed a moment later."""
    limits = ServerLimits(max_concurrent_streams=4)
    async with (
        _server("127.0.0.1:0", limits=limits) as server,
        grpc.aio.insecure_channel(server.addresses[0]) as channel,
    ):
        request = session_service_pb2.GetSessionRequest(name="x")
        for _ in range(4):
            answers = await asyncio.gather(*(_stub(channel).GetSession(request, timeout=30) for _ in range(100)))
            assert {answer.session.name for answer in answers} == {"x"}


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.168.1.4:50051", "example.com:80", ":50051"])
async def test_an_address_that_others_reach_is_refused_with_the_reason(address: str) -> None:
    with pytest.raises(ListenFault, match=r"no identities yet.*Try 127\.0\.0\.1"):
        await _start(address)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.0.0.1:99999", "unix:relative.sock", "::1:80", "unix:/" + "x" * 120]
)
async def test_what_is_no_address_is_refused_with_what_one_looks_like(address: str) -> None:
    with pytest.raises(ListenFault, match="it must"):
        await _start(address)


async def test_a_port_in_use_is_told_with_its_address_and_what_to_try() -> None:
    async with _server("127.0.0.1:0") as server:
        with pytest.raises(ListenFault, match=r"the port is in use\. Try another port") as caught:
            await _start(server.addresses[0])
        assert server.addresses[0] in str(caught.value)
        assert (await _get(server.addresses[0])).session.name == "sessions/1"


async def test_when_one_address_fails_none_is_listened_on(tmp_path: Path) -> None:
    async with _server("127.0.0.1:0") as server:
        with pytest.raises(ListenFault):
            await _start(f"unix:{tmp_path}/a.sock", server.addresses[0])
    assert not (tmp_path / "a.sock").exists()


async def test_a_socket_is_private_in_a_private_folder_and_gone_after_the_stop(tmp_path: Path) -> None:
    path = tmp_path / "state" / "agents" / "a.sock"
    before = os.umask(0)
    try:
        async with _server(f"unix:{path}"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(before)
    assert not path.exists()


async def test_a_folder_that_others_may_write_into_is_refused(tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o770)  # noqa: PTH101
    with pytest.raises(ListenFault, match=rf"others may write into the folder .*Try chmod 700 {tmp_path}"):
        await _start(f"unix:{tmp_path}/a.sock")


@pytest.fixture
def left_socket(tmp_path: Path) -> Path:
    """A socket whose process was killed while it listened."""
    path = tmp_path / "a.sock"
    listen = f"import os, socket; s = socket.socket(socket.AF_UNIX); s.bind({str(path)!r}); s.listen()"
    subprocess.run([sys.executable, "-c", f"{listen}; os.kill(os.getpid(), 9)"], check=False)
    assert path.is_socket()
    return path


async def test_a_socket_left_by_a_killed_process_is_replaced(left_socket: Path) -> None:
    async with _server(f"unix:{left_socket}") as server:
        assert (await _get(server.addresses[0])).session.name == "sessions/1"


async def test_a_socket_that_somebody_listens_on_is_left_to_him(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/a.sock"
    async with _server(address):
        with pytest.raises(ListenFault, match="another process listens there"):
            await _start(address)
        assert (await _get(address)).session.name == "sessions/1"


async def test_a_file_in_the_place_of_the_socket_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "a.sock"
    path.write_text("precious")
    with pytest.raises(ListenFault, match="a file that is no socket"):
        await _start(f"unix:{path}")
    assert path.read_text() == "precious"


async def test_a_stop_lets_an_open_call_end_within_its_grace_and_cuts_it_after_that() -> None:
    server = _server("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(server.addresses[0]) as channel:
        call = _stub(channel).WatchSession(session_service_pb2.WatchSessionRequest(name="wait"), timeout=10)
        await call.read()
        await server.stop(timedelta(milliseconds=50))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.code() in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}
    await server.stop()
