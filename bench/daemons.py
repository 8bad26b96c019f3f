"""A daemon of a benchmark's own, started as a user starts it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gpu_balancer import Client, RequestFailure
from gpu_balancer.runtime.folder_lock import lock_owner
from gpu_balancer.v1 import device_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


LOG = "gpu-balancerd.log"
"""What a daemon writes, in its folder."""
_LAST_LINES = 30
known_probe: Path | None = None
"""What an earlier daemon found out about its device "cpu-0". Daemons get it that have no other devices."""


@dataclass(slots=True, kw_only=True)
class BenchDaemon:
    """A running gpu-balancerd."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    started_s: float
    start: Callable[[], subprocess.Popen[bytes]]
    """Starts it as it was started."""

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"unix:{self.state_dir}/balancer.sock"

    def client(self) -> Client:
        """Makes a client of it."""
        return Client(self.address)

    def restart(self) -> None:
        """Kills it and starts it anew; its agents and sessions run on."""
        self.process.kill()
        self.process.wait()
        self.started_s = time.monotonic()
        self.process = self.start()

    def agent_pids(self) -> list[int]:
        """Gives the pids of its living agents."""
        return [pid for path in self.state_dir.glob("agents/*/agent.lock") if (pid := lock_owner(path))]

    def await_serving(self, timeout_s: float = 30) -> float:
        """Waits for SERVING and tells how long after the start that was, in seconds."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with grpc.insecure_channel(self.address) as channel:
                try:
                    answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
                except grpc.RpcError:
                    answer = None
            if answer is not None and answer.status == health_pb2.HealthCheckResponse.SERVING:
                return time.monotonic() - self.started_s
            time.sleep(0.01)
        raise RuntimeError("the daemon does not serve")

    def await_ready(self, timeout_s: float = 60) -> float:
        """Waits until every device is READY and tells how long after the start that was, in seconds."""
        self.await_serving()
        deadline = time.monotonic() + timeout_s
        with self.client() as client:
            while time.monotonic() < deadline:
                try:
                    states = [device.state for device in client.list_devices()]
                except RequestFailure:
                    states = []
                if states and all(state == device_pb2.DEVICE_STATE_READY for state in states):
                    return time.monotonic() - self.started_s
                time.sleep(0.02)
        raise RuntimeError("not every device became ready")


@contextmanager
def bench_daemon(
    settings: str = "", *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[BenchDaemon]:
    """Starts a daemon, and ends it with its sessions and agents."""
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
        home = folder or Path(scratch)
        settings_path, state_dir = home / "balancer.toml", home / "state"
        settings_path.write_text(
            f'[server]\nlisten = ["unix:{{state_dir}}/balancer.sock"]\nhttp = "127.0.0.1:0"\n{settings}'
        )
        if known_probe is not None and environment is None and not state_dir.exists():
            kept = state_dir / "agents" / "cpu-0" / "probe.json"
            kept.parent.mkdir(mode=0o700, parents=True)
            shutil.copyfile(known_probe, kept)
        command = [sys.executable, "-m", "balancer", "--config", str(settings_path), "--state-dir", str(state_dir)]

        def start() -> subprocess.Popen[bytes]:
            whole = {**os.environ, **(environment or {})}
            with (home / LOG).open("ab") as log:
                return subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=whole)

        started_s = time.monotonic()
        daemon = BenchDaemon(process=start(), state_dir=state_dir, started_s=started_s, start=start)
        try:
            yield daemon
        except Exception:
            print(last_words(home), file=sys.stderr)
            raise
        finally:
            try:
                with daemon.client() as client:
                    client.shutdown(stop_sessions=True)
            except RequestFailure:
                daemon.process.terminate()
            daemon.process.wait(30)
            deadline = time.monotonic() + 10
            while daemon.agent_pids() and time.monotonic() < deadline:
                time.sleep(0.05)


def last_words(home: Path) -> str:
    """Gives the ends of the logs of a daemon and its agents, which go with its folder.

    Args:
        home: Where the daemon has its log and state.
    """
    told = []
    for path in sorted((*home.glob("*.log"), *home.glob("state/agents/*/*.log"))):
        lines = path.read_text(errors="replace").splitlines()[-_LAST_LINES:]
        told.append("\n".join((f"--- {path.relative_to(home)}", *lines)))
    return "\n".join(told)
