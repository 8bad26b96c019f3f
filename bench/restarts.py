"""How soon everything is known again after a kill: by a balancer of its agents, by an agent of its attempts."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import imageio_ffmpeg
from grpc_health.v1 import health_pb2, health_pb2_grpc

from agents.lock_holders import kill_holders
from agents.process_marks import name_of_agent
from agents.sessions.attempt import AttemptKey, AttemptStatus, Phase
from agents.sessions.folder import SessionFolders
from agents.sessions.records import LaunchRecord, dump_launch, dump_status
from agents.sessions.spawning import spawn_shim
from bench.daemons import BenchDaemon, bench_daemon
from bench.measuring import Figure, make_video, spread
from gpu_balancer.runtime.clock import SystemClock
from gpu_balancer.runtime.folder_lock import lock_owner
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RUNNING = session_pb2.SESSION_STATE_RUNNING
_PATIENCE_S = 60.0
_STEADY_S = 6.0


def measure(*, runs: int = 5, session_count: int = 6, attempt_count: int = 64) -> list[Figure]:
    """Measures restarts.

    Args:
        runs: Kills of each kind.
        session_count: Live sessions, with real ffmpegs, while balancer and agent are killed.
        attempt_count: Live attempts that an agent finds, of programs that do nothing.
    """
    return [*_kills(runs, session_count), *_takeovers(runs, attempt_count)]


def _kills(runs: int, session_count: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
        home = Path(scratch)
        make_video(imageio_ffmpeg.get_ffmpeg_exe(), home / "clip.mp4", seconds=2, size="320x180")
        with bench_daemon(f'[inputs]\nroots = ["{home}"]\n', folder=home) as daemon:
            daemon.await_ready()
            names = _begun(daemon, home / "clip.mp4", session_count)
            balancer = [_balancer_killed_s(daemon, names) for _ in range(runs)]
            agent = [_agent_killed_s(daemon, names) for _ in range(runs)]
    with_sessions = f"{session_count} sessions; "
    return [
        Figure(
            name="balancer killed: SERVING, all known",
            value=max(balancer),
            unit="s",
            bound="<= 3",
            detail=with_sessions + spread(balancer, "s"),
        ),
        Figure(
            name="agent killed: SERVING, all adopted",
            value=max(agent),
            unit="s",
            bound="<= 3",
            detail=with_sessions + spread(agent, "s"),
        ),
    ]


def _begun(daemon: BenchDaemon, clip: Path, count: int) -> list[str]:
    source = media_pb2.Input(uri=str(clip), native_rate=True, repeat_forever=True)
    rendition = media_pb2.Rendition(
        id="out",
        encode=media_pb2.VideoEncoding(
            codec=media_pb2.VIDEO_CODEC_H264, height=36, speed=media_pb2.ENCODING_SPEED_FASTEST
        ),
    )
    spec = media_pb2.TranscodeSpec(input=source, renditions=[rendition])
    with daemon.client() as client:
        names = [client.create_session(session_pb2.Session(transcode=spec)).name for _ in range(count)]
        _await(lambda: _all_run(daemon, names), "all sessions run")
    return names


def _all_run(daemon: BenchDaemon, names: list[str]) -> bool:
    with daemon.client() as client:
        sessions = [client.get_session(name) for name in names]
    return all(session.state == _RUNNING and not session.conditions for session in sessions)


def _balancer_killed_s(daemon: BenchDaemon, names: list[str]) -> float:
    daemon.restart()
    taken_s = daemon.await_serving()
    if not _all_run(daemon, names):
        raise RuntimeError("a session was lost with the balancer")
    return taken_s


def _agent_killed_s(daemon: BenchDaemon, names: list[str]) -> float:
    # An agent that ends soon after its start is started again later and later.
    time.sleep(_STEADY_S)
    (before,) = daemon.agent_pids()
    (lock,) = daemon.state_dir.glob("agents/*/agent.lock")
    began_s = time.monotonic()
    os.kill(before, signal.SIGKILL)
    _await(lambda: lock_owner(lock) not in (None, before) and _serves(lock.with_name("agent.sock")), "it serves")
    taken_s = time.monotonic() - began_s
    _await(lambda: _all_run(daemon, names), "all sessions run")
    return taken_s


def _takeovers(runs: int, attempt_count: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
        state_dir = Path(scratch)
        (state_dir / "agent.toml").write_text('[device]\nkind = "cpu"\nid = "cpu-0"\n')
        _start_s(state_dir)
        bare = [_start_s(state_dir) for _ in range(runs)]
        with _attempts(state_dir, attempt_count):
            full = [_start_s(state_dir) for _ in range(runs)]
    return [
        Figure(
            name="agent started: SERVING, nothing to adopt",
            value=statistics.median(bare),
            unit="s",
            bound="-",
            detail=spread(bare, "s"),
        ),
        Figure(
            name=f"agent started: SERVING, {attempt_count} attempts adopted",
            value=max(full),
            unit="s",
            bound="<= 3",
            detail=spread(full, "s"),
        ),
    ]


@contextlib.contextmanager
def _attempts(state_dir: Path, count: int) -> Iterator[None]:
    """Live attempts of programs that do nothing: real folders, shims, locks and marks."""
    folders = SessionFolders(root=state_dir / "sessions", agent=name_of_agent(state_dir))
    argv = ("/bin/sleep", "3600")
    record = LaunchRecord(argv=argv, has_video=True, first_frame_timeout=timedelta(hours=1))
    now = SystemClock().now()
    made = []
    try:
        for number in range(count):
            key = AttemptKey(session=f"s{number}", attempt=1)
            status = AttemptStatus(
                key=key, event_number=number + 1, phase=Phase.RUNNING, launch_time=now, running_time=now
            )
            folder = folders.of(key)
            folder.create({"launch.json": dump_launch(record), "status.json": dump_status(status)})
            made.append((folder, spawn_shim(folder, argv, {})))
        yield
    finally:
        for folder, shim in made:
            kill_holders(folder.lock)
            os.waitpid(shim, 0)


def _start_s(state_dir: Path) -> float:
    began_s = time.monotonic()
    command = [sys.executable, "-P", "-m", "agents", "--config", str(state_dir / "agent.toml")]
    with (state_dir / "agent.log").open("ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _await(lambda: _serves(state_dir / "agent.sock"), "the agent serves")
        return time.monotonic() - began_s
    finally:
        process.kill()
        process.wait()


def _serves(socket: Path) -> bool:
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _await(truth: Callable[[], bool], what: str) -> None:
    deadline_s = time.monotonic() + _PATIENCE_S
    while not truth():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"it did not come true that {what}")
        time.sleep(0.01)
