"""Sessions that begin again, with real daemons: ffmpeg is killed, an agent stands still for too long and comes back."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import signal
import subprocess
import threading
from datetime import timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from asked import CANCELLED, FFMPEG, RUNNING, await_state, encoded, to_file, transcode_of
from daemons import daemon_running, eventually

from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemons import RunningDaemon

    from gpu_balancer.client import Client

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores"),
]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as it is called there
        """Says nothing."""


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory, media: Path) -> Iterator[str]:
    """The URL of a live HLS presentation, which goes on whoever reads it."""
    folder = tmp_path_factory.mktemp("camera")
    command = [FFMPEG, "-loglevel", "error", "-re", "-stream_loop", "-1", "-i", str(media / "clip.mp4"), "-c", "copy"]
    command += ["-f", "hls", "-hls_time", "1", "-hls_list_size", "6", "-hls_flags", "delete_segments+omit_endlist"]
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    with subprocess.Popen([*command, str(folder / "live.m3u8")], stdin=subprocess.DEVNULL) as source:
        try:
            eventually(lambda: len(list(folder.glob("*.ts"))) > 2, "the camera has begun")
            yield f"http://127.0.0.1:{server.server_port}/live.m3u8"
        finally:
            source.kill()
            server.shutdown()
            serving.join()
            server.server_close()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, probe_results: Path) -> Iterator[RunningDaemon]:
    """A daemon with two devices whose agents are waited for until somebody has the settings say otherwise."""
    first, second = sorted(os.sched_getaffinity(0))[:2]
    settings = (
        "[inputs]\nallow_private_networks = true\n[restart]\nlost_after_s = 0\n"
        '[ffmpeg]\ncandidates = ["bundled"]\n'
        f'[[cpu_devices]]\nname = "cpu-0"\ncores = "{first}"\n[[cpu_devices]]\nname = "cpu-1"\ncores = "{second}"\n'
    )
    names, folder = ("cpu-0", "cpu-1"), tmp_path_factory.mktemp("restarts")
    with daemon_running(folder, settings, probe_results=probe_results, probed_devices=names) as running:
        running.await_devices_ready(2)
        yield running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    """A client of the daemon."""
    with daemon.client() as made:
        yield made


def from_camera(url: str, **restart: Any) -> session_pb2.Session:
    """A session that reads the camera until it is stopped."""
    asked = transcode_of(url, encoded(height=90), outputs=[to_file("out.ts")])
    if restart:
        asked.restart.CopyFrom(session_pb2.RestartPolicy(mode=session_pb2.RESTART_MODE_ON_FAILURE, **restart))
    return asked


def programs(daemon: RunningDaemon, session: session_pb2.Session, attempt: int) -> list[int]:
    """Gives the process ids of an attempt's ffmpeg."""
    where = re.compile(rf"/sessions/{session.name.removeprefix('sessions/')}/{attempt}\b")
    return [pid for pid, line in daemon.processes().items() if line.startswith(FFMPEG) and where.search(line)]


def test_a_killed_ffmpeg_is_begun_again_after_its_rest(daemon: RunningDaemon, client: Client, camera: str) -> None:
    created = client.create_session(from_camera(camera, max_restarts=3))
    first = await_state(client, created.name, RUNNING)
    assert (first.attempt, first.restart_count) == (1, 0)
    (pid,) = programs(daemon, created, 1)
    os.kill(pid, signal.SIGKILL)
    again = eventually(lambda: running_as(client, created, 2), "its second attempt runs")
    assert again.restart_count == 1
    last = again.last_restart
    assert (last.attempt, last.device, last.failure.reason) == (1, first.device, "KILLED")
    assert len(programs(daemon, created, 2)) == 1
    second = client.explain(created.name)[-1]
    assert second.attempt == 2
    rested = second.decision_time.ToDatetime() - last.restart_time.ToDatetime()
    assert rested >= timedelta(seconds=1) - timedelta(milliseconds=10)
    shown = daemon.cli("session", created.name).stdout
    assert "(KILLED)" in shown
    assert "attempt 1 on" in shown
    client.stop_session(created.name)
    assert client.wait(created.name).state == CANCELLED


def running_as(client: Client, session: session_pb2.Session, attempt: int) -> session_pb2.Session | None:
    """Gives a session once an attempt of it runs."""
    seen = client.get_session(session.name)
    assert seen.state not in (session_pb2.SESSION_STATE_FAILED, session_pb2.SESSION_STATE_SUCCEEDED), seen.failure
    return seen if seen.attempt == attempt and seen.state == RUNNING else None


def test_a_session_of_an_agent_that_is_lost_goes_on_elsewhere_and_what_was_left_behind_is_ended(
    daemon: RunningDaemon, client: Client, camera: str
) -> None:
    """Its client says nothing of restarts. The agent stands still, its ffmpeg runs on, and at last it comes back."""
    created = client.create_session(from_camera(camera))
    first = await_state(client, created.name, RUNNING)
    left = first.device.removeprefix("devices/")
    agent = daemon.agent_pids()[left]
    os.kill(agent, signal.SIGSTOP)
    with contextlib.ExitStack() as standing:
        standing.callback(os.kill, agent, signal.SIGCONT)
        eventually(lambda: client.get_session(created.name).conditions, "its agent is found silent")
        settings = daemon.settings_path.read_text()
        daemon.settings_path.write_text(settings.replace("lost_after_s = 0", "lost_after_s = 2.0"))
        assert daemon.json("reload")["changes"] == ["restart.lost_after_s was 0.0, is 2.0"]
        moved = eventually(lambda: running_as(client, created, 2), "its second attempt runs")
        assert moved.device != first.device
        assert (moved.last_restart.device, moved.last_restart.failure.reason) == (first.device, "AGENT_LOST")
    eventually(lambda: not programs(daemon, created, 1), "the attempt that was left behind is ended")
    now = client.get_session(created.name)
    assert (now.state, now.attempt, now.device) == (RUNNING, 2, moved.device)
    assert len(programs(daemon, created, 2)) == 1
    client.stop_session(created.name)
    assert client.wait(created.name).state == CANCELLED
    assert [artifact.path for artifact in client.list_artifacts(created.name)] == ["out.ts"], "both attempts, joined"
    daemon.await_devices_ready(2)
