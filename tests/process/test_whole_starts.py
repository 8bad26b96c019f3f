"""How a daemon starts: with and without settings, where it may not, and with devices of several core sets."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import httpx
import pytest
from asked import FFMPEG, await_state, encoded, live_input, transcode_of
from daemons import eventually, processes_of
from grpc_health.v1 import health_pb2, health_pb2_grpc

from balancer.__main__ import main
from gpu_balancer.client import Client, RetryPolicy
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.v1 import device_pb2, session_pb2

if TYPE_CHECKING:
    from daemons import RunningDaemon, StartDaemon

    from gpu_balancer.client import Client

pytestmark = pytest.mark.process

_DAEMON = (sys.executable, "-m", "balancer")


def started_in_vain(*arguments: str | Path, as_nobody: bool = False) -> tuple[int, str]:
    """Starts a daemon that must not start, and gives its exit status and what it wrote."""
    command = [*_DAEMON, *map(str, arguments)]
    if as_nobody and os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, stdin=subprocess.DEVNULL)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr


def test_without_any_settings_a_daemon_serves_or_says_whose_port_it_wants(tmp_path: Path) -> None:
    """Its ports are the default ones, which another program of this machine may have."""
    state, log = tmp_path / "state", tmp_path / "log"
    with log.open("wb") as file:
        environment = {**os.environ, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
        process = subprocess.Popen([*_DAEMON, "--state-dir", state], stdout=file, stderr=file, env=environment)
    try:
        eventually(lambda: "is serving" in log.read_text() or process.poll() is not None, "it serves or has ended")
        if process.poll() is None:
            assert f"gRPC  unix:{state}/balancer.sock" in log.read_text()
            assert "gRPC  127.0.0.1:50051" in log.read_text()
            assert "HTTP  http://127.0.0.1:8080" in log.read_text()
            assert stat.S_IMODE(state.stat().st_mode) == 0o700
            assert stat.S_IMODE((state / "balancer.sock").stat().st_mode) == 0o600
        else:
            assert process.returncode == 1
            assert re.search(r"Cannot listen on 127\.0\.0\.1:(50051|8080): the port is in use", log.read_text())
    finally:
        process.terminate()
        process.wait(20)
        for pid in processes_of(state):
            os.kill(pid, signal.SIGKILL)


def test_a_daemon_is_serving_by_its_health_and_prints_where_and_what_it_has(
    cpu_daemon: RunningDaemon, cpu_client: Client
) -> None:
    with grpc.insecure_channel(cpu_daemon.address) as channel:
        ask = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", "gpu_balancer.v1.SessionService", "gpu_balancer.v1.DeviceService"):
            answer = ask(health_pb2.HealthCheckRequest(service=service), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    facts = cpu_client.get_balancer()
    assert f"gRPC  {cpu_daemon.address}" in cpu_daemon.log
    assert f"HTTP  {facts.http_address}" in cpu_daemon.log
    row = next(line for line in cpu_daemon.log.splitlines() if line.startswith("cpu-0 "))
    assert "h264/8+10" in row
    assert "ready" in row
    assert httpx.get(f"{facts.http_address}/healthz").status_code == 200
    assert "gpu_balancer" in httpx.get(f"{facts.http_address}/metrics").text


def test_a_state_folder_has_one_daemon_and_the_second_names_the_first(cpu_daemon: RunningDaemon) -> None:
    status, told = started_in_vain("--config", cpu_daemon.settings_path, "--state-dir", cpu_daemon.state_dir)
    assert status == 1
    assert f"(process {cpu_daemon.process.pid})" in told
    assert str(cpu_daemon.state_dir) in told
    assert cpu_daemon.json("version")["balancer"]["processId"] == cpu_daemon.process.pid


def test_a_state_folder_that_cannot_be_written_is_told_with_what_to_try(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    tmp_path.chmod(0o700)
    status, told = started_in_vain("--state-dir", closed / "state", as_nobody=True)
    assert status == 1
    assert re.search(r"Cannot use the state folder .*: Permission denied\. Try", told), told
    (tmp_path / "file").write_text("")
    status, told = started_in_vain("--state-dir", tmp_path / "file" / "state")
    assert status == 1
    assert "Not a directory" in told


@pytest.mark.parametrize("key", ["listen", "http"])
def test_a_port_that_somebody_has_is_told_with_who_may_have_it(tmp_path: Path, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        value = f'["127.0.0.1:{port}"]' if key == "listen" else f'"127.0.0.1:{port}"'
        other = 'http = ""' if key == "listen" else 'listen = ["unix:{state_dir}/balancer.sock"]'
        settings = tmp_path / "balancer.toml"
        settings.write_text(f"[server]\n{key} = {value}\n{other}\n")
        status, told = started_in_vain("--config", settings, "--state-dir", tmp_path / "state")
    assert status == 1
    assert f"Cannot listen on 127.0.0.1:{port}: the port is in use" in told
    assert f":{port}" in told.partition("ss -ltnp")[2]
    assert not processes_of(tmp_path / "state"), "no agent may be left"


@pytest.mark.parametrize(
    ("settings", "line", "key", "words"),
    [
        ('[server]\nhttp = ""\n\n[placment]\n', 4, "placment", "Did you mean placement?"),
        ("[placement]\nheadroom = 2\n", 2, "placement.headroom", "at most 1"),
        ('[placement]\nheadroom = "high"\n', 2, "placement.headroom", "number"),
        ("[placement]\nfactors = { decode = 1, encode = -5 }\n", 2, "placement.factors.encode", "0"),
        ('[server]\nlisten = ["0.0.0.0:50051"]\n', 2, "server.listen[0]", "Try 127.0.0.1"),
        ('[[cpu_devices]]\nname = "a"\ncores = "0-1"\nweight = 10001\n', 4, "cpu_devices[0].weight", "10,000"),
        ('[[cpu_devices]]\nname = "a"\ncores = "9000"\n', 3, "cpu_devices[0].cores", "core"),
        ("[inputs\n", 1, "", "line 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_with_line_and_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: str, line: int, key: str, words: str
) -> None:
    path = tmp_path / "balancer.toml"
    path.write_text(settings)
    assert main(["--check", "--config", str(path)]) == 2
    told = capsys.readouterr().err
    assert f"line {line}" in told
    assert key in told
    assert words in told


def test_a_daemon_whose_settings_are_refused_begins_nothing(tmp_path: Path) -> None:
    path = tmp_path / "balancer.toml"
    path.write_text("[placement]\nheadroom = 2\n")
    status, told = started_in_vain("--config", path, "--state-dir", tmp_path / "state")
    assert status == 2
    assert "line 2: placement.headroom" in told
    assert not (tmp_path / "state" / "balancer.sqlite").exists()


def test_a_settings_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    status, told = started_in_vain("--config", tmp_path / "absent.toml", "--state-dir", tmp_path / "state")
    assert status == 2
    assert "absent.toml" in told


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_devices_of_core_sets_keep_their_sessions_on_their_cores_and_share_by_weight(
    start_daemon: StartDaemon, media: Path, probe_results: Path
) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    daemon = start_daemon(
        f'[inputs]\nroots = ["{media}"]\n[ffmpeg]\ncandidates = ["bundled"]\n'
        f'[[cpu_devices]]\nname = "strong"\ncores = "{first}"\nweight = 100\n'
        f'[[cpu_devices]]\nname = "weak"\ncores = "{second}"\nweight = 50\n',
        probe_results=probe_results,
        probed_devices=("strong", "weak"),
    )
    daemon.await_devices_ready(2)
    devices = daemon.json("devices")["devices"]
    assert {device["name"]: device["weight"] for device in devices} == {"devices/strong": 100, "devices/weak": 50}
    cores = {"strong": first, "weak": second}
    for device, pid in daemon.agent_pids().items():
        assert os.sched_getaffinity(pid) == {cores[device]}
    asked = transcode_of(live_input(media / "clip.mp4"), encoded(height=36))
    with daemon.client() as client:
        sessions = [client.create_session(asked) for _ in range(6)]
        placed = [session.device.removeprefix("devices/") for session in sessions]
        assert (placed.count("strong"), placed.count("weak")) == (4, 2)
        for session in sessions:
            await_state(client, session.name, session_pb2.SESSION_STATE_RUNNING)
        programs = {pid: line for pid, line in daemon.processes().items() if line.startswith(FFMPEG)}
        assert len(programs) == 6
        for pid, line in programs.items():
            found = re.search(r"/agents/(\w+)/", line)
            assert found
            threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
            assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset({cores[found[1]]})}


@pytest.fixture
def counted_ffmpeg(tmp_path: Path) -> tuple[Path, Path]:
    """An ffmpeg that writes down how it was called, and the file of its notes."""
    notes, script = tmp_path / "calls", tmp_path / "ffmpeg"
    script.write_text(f'#!/bin/sh\necho "$*" >> {notes}\nexec {FFMPEG} "$@"\n')
    script.chmod(0o755)
    return script, notes


def test_what_a_device_can_is_tried_once_and_kept(start_daemon: StartDaemon, counted_ffmpeg: tuple[Path, Path]) -> None:
    script, notes = counted_ffmpeg
    daemon = start_daemon(f'[ffmpeg]\ncandidates = ["{script}"]\n')
    daemon.await_devices_ready()
    before = daemon.json("devices")["devices"]
    trials = [line for line in notes.read_text().splitlines() if "-version" not in line]
    assert len(trials) > 6
    assert daemon.terminate() == 0
    for pid in daemon.agent_pids().values():
        os.kill(pid, signal.SIGTERM)
    eventually(lambda: not daemon.agent_pids(), "the agent has ended")
    notes.unlink()
    daemon.start()
    daemon.await_serving()
    daemon.await_devices_ready()
    after = daemon.json("devices")["devices"]
    assert after[0]["capabilities"] == before[0]["capabilities"]
    assert [line for line in notes.read_text().splitlines() if "-version" not in line] == []


def test_without_a_usable_ffmpeg_the_device_says_what_to_install(
    start_daemon: StartDaemon, media: Path, tmp_path: Path
) -> None:
    old, missing = tmp_path / "old-ffmpeg", tmp_path / "no-ffmpeg"
    old.write_text("#!/bin/sh\necho 'ffmpeg version 3.4.8 Copyright (c) 2000-2020'\necho 'libavcodec     57.107.100'\n")
    old.chmod(0o755)
    daemon = start_daemon(f'[inputs]\nroots = ["{media}"]\n[ffmpeg]\ncandidates = ["{missing}", "{old}"]\n')
    daemon.await_serving()
    with daemon.client() as client:

        def unhealthy() -> str:
            (device,) = list(client.list_devices())
            return device.state_message if device.state == device_pb2.DEVICE_STATE_UNHEALTHY else ""

        message = eventually(unhealthy, "the device is unhealthy")
        assert f"{missing}: there is no such file" in message
        assert f"{old}: version 3.4.8 is too old" in message
        assert "ffmpeg 5" in message or "imageio-ffmpeg" in message, message
    with Client(daemon.address, retry_policy=RetryPolicy(patience=timedelta(0))) as hasty:
        with pytest.raises(RequestFailure) as caught:
            hasty.create_session(transcode_of(media / "clip.mp4"))
        assert caught.value.reason is Reason.NO_DEVICE_READY
        assert caught.value.retry_after is not None
    assert not daemon.session_folders()
    shown = daemon.cli("devices", "show", "cpu-0")
    assert "version 3.4.8 is too old" in shown.stdout


def test_a_daemon_that_is_to_end_its_sessions_at_sigterm_does(
    start_daemon: StartDaemon, media: Path, probe_results: Path
) -> None:
    """As in a container, which takes its processes along."""
    daemon = start_daemon(
        f'[inputs]\nroots = ["{media}"]\n', probe_results=probe_results, arguments=("--stop-sessions-on-exit",)
    )
    daemon.await_devices_ready()
    with daemon.client() as client:
        session = client.create_session(transcode_of(live_input(media / "clip.mp4"), encoded(height=36)))
        await_state(client, session.name, session_pb2.SESSION_STATE_RUNNING)
        artifacts = daemon.attempt_folder(session.name) / "artifacts"
    assert daemon.terminate() == 0
    eventually(lambda: not daemon.processes(), "no process is left")
    assert (artifacts / "out.mp4").stat().st_size > 0
