"""Writes the history: follows both watches of the balancer through all its deaths, and looks at processes.

Each source has a thread of its own that appends to its own list, so that nothing needs a lock: appending is atomic.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from bench.chaos.history import DeviceView, FeedMark, SessionView, Snapshot
from bench.chaos.write_watch import watching_writes
from gpu_balancer import Client, RequestFailure, RetryPolicy
from gpu_balancer.v1 import device_pb2, session_pb2, session_service_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.chaos.history import History
    from bench.chaos.house import House

_PATIENT = RetryPolicy(patience=timedelta(hours=2), longest_delay=timedelta(seconds=0.2))
_UPDATED = session_service_pb2.SESSION_CHANGE_TYPE_UPDATED


def session_view(session: session_pb2.Session) -> SessionView:
    """Takes from a session what the judge looks at, as seen now."""
    return SessionView(
        at_s=time.monotonic(),
        name=session.name,
        state=session_pb2.SessionState.Name(session.state).removeprefix("SESSION_STATE_"),
        revision=session.revision,
        attempt=session.attempt,
        device=session.device,
        frames=session.progress.frames if session.HasField("progress") else None,
        failure=session.failure.reason,
        end_time=session.end_time.ToJsonString() if session.HasField("end_time") else "",
        conditions=tuple(condition.type for condition in session.conditions),
    )


def device_view(device: device_pb2.Device) -> DeviceView:
    """Takes from a device what the judge looks at, as seen now."""
    return DeviceView(
        at_s=time.monotonic(),
        name=device.name,
        state=device_pb2.DeviceState.Name(device.state).removeprefix("DEVICE_STATE_"),
        session_count=device.session_count,
        used=sum(load.used for load in device.loads),
    )


class Observer:
    """Writes one history."""

    def __init__(self, history: History, house: House, *, look_every_s: float = 0.25) -> None:
        """Prepares.

        Args:
            history: What to append to.
            house: What to look at. Its balancer need not be there yet.
            look_every_s: Seconds between looks at processes.
        """
        self._history, self._house = history, house
        self._address, self._sighter = house.address, house.sighter
        self._look_every_s = look_every_s
        self._ended = threading.Event()

    @contextmanager
    def observing(self) -> Iterator[None]:
        """Observes until the block ends."""
        clients = [Client(self._address, retry_policy=_PATIENT, stream_policy=_PATIENT) for _ in range(2)]
        threads = [
            self._thread("sessions", lambda: self._follow_sessions(clients[0])),
            self._thread("devices", lambda: self._follow_devices(clients[1])),
            self._thread("processes", self._look),
        ]
        try:
            folders = (self._house.state_dir, self._house.out_root)
            with watching_writes(self._history, self._sighter, folders) as listening:
                if not listening:
                    print("  writes are not listened to, which takes root: TWO_WRITERS sees less")
                yield
        finally:
            self._ended.set()
            for client in clients:
                client.close()
            for thread in threads:
                thread.join(10)

    def take_snapshot(self, client: Client, *, tries: int = 20) -> Snapshot | None:
        """Asks for devices, sessions and devices again until nothing changed meanwhile. None: it never stood still."""
        for _ in range(tries):
            before = [_facts(device) for device in client.list_devices()]
            sessions = tuple(session_view(session) for session in client.list_sessions())
            devices = list(client.list_devices())
            if before == [_facts(device) for device in devices]:
                views = tuple(device_view(device) for device in devices)
                snapshot = Snapshot(at_s=time.monotonic(), sessions=sessions, devices=views)
                self._history.snapshots.append(snapshot)
                return snapshot
            time.sleep(0.05)
        return None

    def _thread(self, name: str, work: Callable[[], None]) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"observe {name}", daemon=True)
        thread.start()
        return thread

    def _follow_sessions(self, client: Client) -> None:
        self._history.marks.append(FeedMark(at_s=time.monotonic(), kind="OPENED"))
        try:
            for answer in client.watch_sessions():
                if answer.type == _UPDATED:
                    self._history.sessions.append(session_view(answer.session))
                else:
                    kind = session_service_pb2.SessionChangeType.Name(answer.type)
                    mark = FeedMark(
                        at_s=time.monotonic(),
                        kind=kind.removeprefix("SESSION_CHANGE_TYPE_"),
                        name=answer.session.name,
                    )
                    self._history.marks.append(mark)
        except (RequestFailure, ValueError):
            self._complain("sessions")

    def _follow_devices(self, client: Client) -> None:
        try:
            for device in client.watch_devices():
                self._history.devices.append(device_view(device))
        except (RequestFailure, ValueError):
            self._complain("devices")

    def _complain(self, what: str) -> None:
        """Closing the client ends its stream so, and only that may."""
        if not self._ended.is_set():
            self._history.leftovers.append(f"the watch of {what} ended before its time")

    def _look(self) -> None:
        while not self._ended.wait(self._look_every_s):
            self._history.sightings.append(self._sighter.look())


def _facts(device: device_pb2.Device) -> tuple[str, int, int, int]:
    used = sum(load.used for load in device.loads)
    return device.name, device.state, device.session_count, used
