"""Real daemons for tests: started like a user starts them, stopped like a user stops them, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import imageio_ffmpeg
import pytest

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(slots=True, kw_only=True)
class RunningDaemon:
    """A gpu-balancerd process of a test."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    settings_path: Path
    log_path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return f"unix:{self.state_dir}/balancer.sock"

    def cli(self, *arguments: str | Path, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Runs `gpu-balancer` against this daemon."""
        return subprocess.run(
            [sys.executable, "-m", "gpu_balancer.cli", "--address", self.address, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
        )

    def json(self, *arguments: str | Path) -> dict:
        """Runs a command with --json and reads its answer; fails the test when the command fails."""
        done = self.cli(*arguments, "--json")
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{done.stdout}"
        return json.loads(done.stdout)

    def await_devices_ready(self, count: int, timeout_s: float = 30) -> list[dict]:
        """Polls until so many devices are READY."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline and self.process.poll() is None:
            done = self.cli("devices", "--json")
            devices = json.loads(done.stdout)["devices"] if done.returncode == 0 else []
            if sum(device["state"] == "DEVICE_STATE_READY" for device in devices) == count:
                return devices
            time.sleep(0.1)
        pytest.fail(f"no {count} devices became ready; the daemon's log:\n{self.log_path.read_text()}")

    def agent_pids(self) -> list[int]:
        """Pids of living agents of this daemon."""
        return [pid for pid in map(_locked_pid, self.state_dir.glob("agents/*/agent.lock")) if pid]

    def processes(self) -> list[int]:
        """Every living process that has the state folder in its command line."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.state_dir).encode() in (folder / "cmdline").read_bytes():
                    found.append(int(folder.name))
        return found


def _locked_pid(path: Path) -> int | None:
    from gpu_balancer.runtime.folder_lock import lock_owner

    return lock_owner(path)


StartDaemon = Callable[..., RunningDaemon]


@contextlib.contextmanager
def daemon_running(
    folder: Path, settings: str = "", environment: Mapping[str, str] | None = None
) -> Iterator[RunningDaemon]:
    """Starts a daemon in a folder and ends it, its sessions and its agents."""
    folder.mkdir(parents=True, exist_ok=True)
    state_dir, settings_path, log_path = folder / "state", folder / "balancer.toml", folder / "gpu-balancerd.log"
    if "[server]" not in settings:
        settings = f'[server]\nlisten = ["unix:{{state_dir}}/balancer.sock"]\nhttp = "127.0.0.1:0"\n{settings}'
    settings_path.write_text(settings)
    environment = {**os.environ, **(environment or {})}
    command = [sys.executable, "-m", "balancer", "--config", str(settings_path), "--state-dir", str(state_dir)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment)
    daemon = RunningDaemon(
        process=process, state_dir=state_dir, settings_path=settings_path, log_path=log_path, environment=environment
    )
    try:
        yield daemon
    finally:
        _end(daemon)


def _end(daemon: RunningDaemon) -> None:
    if daemon.process.poll() is None:
        daemon.cli("shutdown", "--stop-sessions")
    try:
        daemon.process.wait(20)
    except subprocess.TimeoutExpired:
        daemon.process.kill()
        daemon.process.wait()
    for pid in daemon.processes():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start_daemon(tmp_path: Path) -> Iterator[StartDaemon]:
    """Gives a function that starts a daemon: `start_daemon(settings="", environment=None)`."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start(settings: str = "", environment: Mapping[str, str] | None = None) -> RunningDaemon:
            nonlocal count
            count += 1
            return stack.enter_context(daemon_running(tmp_path / f"daemon-{count}", settings, environment))

        yield start


@pytest.fixture(scope="session")
def cpu_daemon(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Iterator[RunningDaemon]:
    """One daemon with one CPU device, ready, shared by the tests that do it no harm."""
    with daemon_running(tmp_path_factory.mktemp("cpu"), f'[inputs]\nroots = ["{media}"]\n') as daemon:
        daemon.await_devices_ready(1)
        yield daemon


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clip.mp4`: 2 s of 320x180 at 30 frames/s, moving, with sound; and `long.mp4`: 60 s of it."""
    folder = tmp_path_factory.mktemp("media")
    for name, seconds in (("clip.mp4", 2), ("long.mp4", 60)):
        command = [FFMPEG, "-hide_banner", "-loglevel", "error", "-f", "lavfi", "-i", "testsrc2=size=320x180:rate=30"]
        command += ["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000", "-t", str(seconds)]
        command += ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac", str(folder / name)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return folder
