"""`Client`: the daemon for programs without an event loop.

It has no logic of its own: each method runs the asynchronous one of the same name over a blocking connection, on the
caller's own thread (see `connection`).
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from gpu_balancer.client.addresses import find_address
from gpu_balancer.client.blocking_connection import BlockingConnection
from gpu_balancer.client.connection import complete, iterate
from gpu_balancer.client.steps import Steps

if TYPE_CHECKING:
    from types import TracebackType

    from gpu_balancer.client.retries import RetryPolicy

P = ParamSpec("P")
T = TypeVar("T")


def _call(
    step: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """Makes a blocking method of an asynchronous one."""

    @functools.wraps(step)
    def call(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return complete(step(client.steps, *args, **kwargs))

    return call


def _stream(
    step: Callable[Concatenate[Any, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[Client, P], Generator[T, None, None]]:
    """Makes a blocking iterator of an asynchronous one."""

    @functools.wraps(step)
    def stream(client: Client, /, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        return iterate(step(client.steps, *args, **kwargs))

    return stream


class Client:
    """A client of the daemon. Use it as a context manager; threads may share it.

    Calls that fail because the daemon cannot answer are repeated where that does no harm; streams and transfers go on
    where they were cut. Whatever fails is a `RequestFailure`.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        retry_policy: RetryPolicy | None = None,
        stream_policy: RetryPolicy | None = None,
    ) -> None:
        """Prepares a client; nothing is connected before the first call.

        Args:
            address: `unix:/path`, an absolute path of a socket, or `host:port`. None: from GPU_BALANCER_ADDRESS, else
                the default Unix socket.
            retry_policy: For single calls. None: 5 s of patience.
            stream_policy: For streams and transfers. None: 60 s of patience.

        Raises:
            ValueError: When the address has none of these forms.
        """
        self.steps = Steps(
            BlockingConnection(find_address(address)), retry_policy=retry_policy, stream_policy=stream_policy
        )

    @property
    def address(self) -> str:
        """Where the daemon is, as gRPC takes it."""
        return self.steps.address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    close = _call(Steps.close)

    create_session = _call(Steps.create_session)
    get_session = _call(Steps.get_session)
    list_sessions = _stream(Steps.list_sessions)
    watch_session = _stream(Steps.watch_session)
    watch_sessions = _stream(Steps.watch_sessions)
    stop_session = _call(Steps.stop_session)
    delete_session = _call(Steps.delete_session)
    plan_session = _call(Steps.plan_session)
    explain = _call(Steps.explain)
    read_session_log = _stream(Steps.read_session_log)
    export_trace = _stream(Steps.export_trace)
    wait = _call(Steps.wait)

    list_artifacts = _stream(Steps.list_artifacts)
    read_artifact = _stream(Steps.read_artifact)
    download_artifact = _call(Steps.download_artifact)
    download_artifacts = _call(Steps.download_artifacts)
    check_files = _call(Steps.check_files)

    list_devices = _stream(Steps.list_devices)
    get_device = _call(Steps.get_device)
    watch_devices = _stream(Steps.watch_devices)
    update_device = _call(Steps.update_device)
    drain_device = _call(Steps.drain_device)
    probe_device = _call(Steps.probe_device)
    calibrate_device = _stream(Steps.calibrate_device)
    delete_calibration = _call(Steps.delete_calibration)
    reload_settings = _call(Steps.reload_settings)

    create_upload = _call(Steps.create_upload)
    get_upload = _call(Steps.get_upload)
    delete_upload = _call(Steps.delete_upload)
    upload_file = _call(Steps.upload_file)
    discard_upload = _call(Steps.discard_upload)

    get_balancer = _call(Steps.get_balancer)
    profile_renditions = _call(Steps.profile_renditions)
    shutdown = _call(Steps.shutdown)

    record = _call(Steps.record)
    pause = _call(Steps.pause)
    resume = _call(Steps.resume)
    extend = _call(Steps.extend)
    snapshot = _call(Steps.snapshot)

    transcode = _call(Steps.transcode)
    submit = _call(Steps.submit)
    plan = _call(Steps.plan)
    fetch = _call(Steps.fetch)
