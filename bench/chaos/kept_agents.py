"""Agents that somebody else than the balancer starts, and starts again when they end, as a service manager does."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import grpc

from gpu_balancer.v1 import agent_service_pb2, agent_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_AGAIN_S = 0.25
_EXIT_S = 20.0


class KeptAgent:
    """An agent that is started again a quarter of a second after it ended, however it did. Ends with `end`."""

    def __init__(self, folder: Path, settings: str, environment: Mapping[str, str]) -> None:
        """Starts it.

        Args:
            folder: Its state folder.
            settings: Its settings file's text.
            environment: All its variables.
        """
        self._folder, self._environment = folder, environment
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "agent.toml").write_text(settings)
        self._ended = threading.Event()
        self._process = self._start()
        self._thread = threading.Thread(target=self._keep, name=f"keep {folder.name}", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends it for good."""
        self._ended.set()
        self._thread.join(_EXIT_S)
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        with (self._folder / "agent.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "agents", "--config", str(self._folder / "agent.toml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=self._environment,
            )

    def _keep(self) -> None:
        while not self._ended.wait(0.02):
            if self._process.poll() is not None and not self._ended.wait(_AGAIN_S):
                self._process = self._start()


def live_attempts(socket: Path) -> frozenset[str] | None:
    """Asks an agent itself which sessions it has that live.

    Args:
        socket: Where it listens.

    Returns:
        Names of the sessions. None: it does not answer yet.
    """
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        try:
            for event in stub.WatchEvents(agent_service_pb2.WatchEventsRequest(), timeout=1):
                if event.WhichOneof("event") == "caught_up":
                    return frozenset(attempt.session for attempt in event.caught_up.live_attempts)
        except grpc.RpcError:
            return None
    return None
