"""Real daemons for tests: started like a user starts them, stopped like a user stops them, nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agents.process_marks import OWNER_VARIABLE, name_of_agent
from gpu_balancer.cli.app import app
from gpu_balancer.client import Client
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.runtime.folder_lock import lock_owner
from gpu_balancer.v1 import device_pb2

LISTEN = '[server]\nlisten = ["unix:{state_dir}/balancer.sock"]\nhttp = "127.0.0.1:0"\n'
"""Addresses that no two daemons share."""
_EXIT_S = 25.0


needs_displays = pytest.mark.skipif(
    not all(map(shutil.which, ("Xvfb", "openbox", "pulseaudio", "chromium"))),
    reason="needs Xvfb, openbox, PulseAudio and Chromium",
)


def eventually(condition: Callable[[], Any], what: str, *, timeout_s: float = 60.0) -> Any:
    """Gives the first true value of a condition of other processes; fails the test when it stays false too long."""
    deadline_s = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline_s, f"in {timeout_s:g} s it did not become true that {what}"
        time.sleep(0.05)
    return value


def processes_of(folder: Path) -> dict[int, str]:
    """Gives the command line of every living process that names a folder, by process id."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (entry / "cmdline").read_bytes()
            if str(folder).encode() in line and int(entry.name) != os.getpid():
                found[int(entry.name)] = line.replace(b"\0", b" ").decode(errors="replace")
    return found


@dataclass(slots=True, kw_only=True)
class RunningDaemon:
    """A gpu-balancerd process of a test."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    settings_path: Path
    log_path: Path
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    served_before: int = 0
    """How often it had said that it serves before its present process."""

    @property
    def address(self) -> str:
        return f"unix:{self.state_dir}/balancer.sock"

    @property
    def log(self) -> str:
        """Everything it wrote to stdout and stderr so far, over all its starts."""
        return self.log_path.read_text()

    def client(self) -> Client:
        """Gives a client of this daemon, to be used as a context manager."""
        return Client(self.address)

    def cli(self, *arguments: str | Path, apart: bool = False) -> subprocess.CompletedProcess[str]:
        """Runs `gpu-balancer` against this daemon.

        Args:
            arguments: The command, without the address.
            apart: As a program of its own, as a user starts it. Otherwise in this process, which is spared its start.
        """
        words = ["--address", self.address, *map(str, arguments)]
        if apart:
            command = [sys.executable, "-m", "gpu_balancer.cli", *words]
            return subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL
            )
        ran = CliRunner().invoke(app, words)
        if ran.exception is not None and not isinstance(ran.exception, SystemExit):
            raise ran.exception
        return subprocess.CompletedProcess(words, ran.exit_code, ran.stdout, ran.stderr)

    def json(self, *arguments: str | Path, apart: bool = False) -> Any:
        """Runs a command with --json and reads its answer; fails the test when the command fails."""
        done = self.cli(*arguments, "--json", apart=apart)
        assert done.returncode == 0, f"{arguments}: {done.stderr}\n{done.stdout}"
        return json.loads(done.stdout)

    def start(self) -> None:
        """Starts the process, again when it has ended, with everything as it was."""
        self.served_before = self.log.count(self._said)
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self.environment
            )

    @property
    def _said(self) -> str:
        return f"is serving; state in {self.state_dir}"

    def await_serving(self, timeout_s: float = 60) -> None:
        """Waits until the present process has said that it serves."""

        def serving() -> bool:
            assert self.process.poll() is None, f"the daemon ended:\n{self.log}"
            return self.log.count(self._said) > self.served_before

        eventually(serving, "the daemon serves", timeout_s=timeout_s)

    def await_devices_ready(self, count: int = 1, timeout_s: float = 60) -> None:
        """Waits until so many devices are READY."""
        self.await_serving()
        devices: list[device_pb2.Device] = []
        with self.client() as client:

            def ready() -> bool:
                assert self.process.poll() is None, f"the daemon ended:\n{self.log}"
                devices[:] = client.list_devices()
                return [device.state for device in devices].count(device_pb2.DEVICE_STATE_READY) == count

            try:
                eventually(ready, f"{count} devices are ready", timeout_s=timeout_s)
            except AssertionError as error:
                states = [f"{one.name} {device_pb2.DeviceState.Name(one.state)} {one.state_message}" for one in devices]
                raise AssertionError("\n".join((str(error), *states))) from None

    def await_agent_back(self, device: str = "cpu-0") -> None:
        """Waits until the one device of an agent that was just killed is READY again, not READY still."""
        with self.client() as client, contextlib.suppress(AssertionError):
            # It is lost for a moment only: by then who has not seen it has missed it.
            eventually(
                lambda: client.get_device(device).state != device_pb2.DEVICE_STATE_READY,
                "its loss is known",
                timeout_s=10,
            )
        self.await_devices_ready()

    def await_exit(self, timeout_s: float = _EXIT_S) -> int:
        """Waits for the process's end and gives its exit status."""
        return self.process.wait(timeout_s)

    def terminate(self) -> int:
        """Ends it as systemd does and gives its exit status."""
        self.process.terminate()
        return self.await_exit()

    def kill(self) -> None:
        """Ends it as the kernel does when memory is short."""
        self.process.kill()
        self.process.wait()

    def agent_pids(self) -> dict[str, int]:
        """Gives the process id of every living agent of this daemon by its device."""
        locks = self.state_dir.glob("agents/*/agent.lock")
        return {lock.parent.name: pid for lock in locks if (pid := lock_owner(lock))}

    def attempt_folder(self, session: str, attempt: int = 1) -> Path:
        """Gives the folder of a session's attempt, on whatever device it is."""
        name = session.removeprefix("sessions/")
        return next(self.state_dir.glob(f"agents/*/sessions/{name}/{attempt}"))

    def session_folders(self) -> set[str]:
        """Gives the ids of all sessions that have a folder with some agent."""
        return {folder.name for folder in self.state_dir.glob("agents/*/sessions/*")}

    def processes(self) -> dict[int, str]:
        """Gives every living process that has the state folder in its command line."""
        return processes_of(self.state_dir)

    def ffmpeg_processes(self) -> dict[int, str]:
        """Gives every living process of a session, shims and ffmpegs."""
        return {
            pid: line
            for pid, line in self.processes().items()
            if f"{self.state_dir}/agents/" in line and "/sessions/" in line
        }


StartDaemon = Callable[..., RunningDaemon]


@contextlib.contextmanager
def daemon_running(
    folder: Path,
    settings: str = "",
    environment: Mapping[str, str] | None = None,
    *,
    probe_results: Path | None = None,
    probed_devices: Sequence[str] = ("cpu-0",),
    arguments: Sequence[str] = (),
) -> Iterator[RunningDaemon]:
    """Starts a daemon in a folder and ends it, its sessions and its agents.

    Args:
        folder: Gets state, settings and log.
        settings: Its settings; addresses of its own come before them, unless they have a [server].
        environment: Variables besides this process's own.
        probe_results: What another daemon's device "cpu-0" found out, so that this one is ready at once.
        probed_devices: The devices that are to know it.
        arguments: Further ones for its command line.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state_dir, settings_path, log_path = folder / "state", folder / "balancer.toml", folder / "gpu-balancerd.log"
    settings_path.write_text(settings if "[server]" in settings else f"{LISTEN}{settings}")
    if probe_results is not None:
        for name in probed_devices:
            device = state_dir / "agents" / name
            device.mkdir(mode=0o700, parents=True)
            (device / probe_results.name).write_text(probe_results.read_text().replace('"cpu-0|', f'"{name}|'))
    command = [sys.executable, "-m", "balancer", "--config", str(settings_path), "--state-dir", str(state_dir)]
    command += arguments
    with log_path.open("wb") as log:
        whole = {**os.environ, **(environment or {})}
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=whole)
    daemon = RunningDaemon(
        process=process,
        state_dir=state_dir,
        settings_path=settings_path,
        log_path=log_path,
        command=command,
        environment=whole,
    )
    try:
        yield daemon
    finally:
        _end(daemon)


def _end(daemon: RunningDaemon) -> None:
    if daemon.process.poll() is None:
        try:
            with daemon.client() as client:
                client.shutdown(stop_sessions=True)
        except RequestFailure:
            daemon.process.terminate()
    try:
        daemon.process.wait(_EXIT_S)
    except subprocess.TimeoutExpired:
        daemon.kill()
    # Agents first, or they would restart nothing but report lost shims; then whatever is left.
    # Each looked for once the former are gone, which could start more of them.
    for left in (daemon.agent_pids().values, daemon.processes, lambda: _marked_processes(daemon.state_dir)):
        for pid in left():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _marked_processes(state_dir: Path) -> list[int]:
    """Lists what agents started that names no folder of theirs: displays, which outlive an agent that was killed."""
    owners = [f"{OWNER_VARIABLE}={name_of_agent(folder)}:".encode() for folder in state_dir.glob("agents/*")]
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            content = b"\0" + (entry / "environ").read_bytes()
            if any(b"\0" + owner in content for owner in owners):
                found.append(int(entry.name))
    return found
