"""How daemons, agents and sessions end, and what of them lives on: restarts, kills, reloads, shutdowns."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asked import RUNNING, SUCCEEDED, await_state, encoded, live_input, transcode_of
from daemons import RunningDaemon, daemon_running, eventually
from decoded import decode

from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.process


def lasting(media: Path, seconds: float) -> session_pb2.Session:
    """A session that runs so long, in real time, and then is done."""
    source = media_pb2.Input(uri=str(media / "long.mp4"), native_rate=True)
    source.duration.FromTimedelta(timedelta(seconds=seconds))
    return transcode_of(source, encoded(height=36))


def endless(media: Path) -> session_pb2.Session:
    """A session that runs until it is stopped, however slow the machine is."""
    return transcode_of(live_input(media / "clip.mp4"), encoded(height=36))


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, media: Path, probe_results: Path) -> Iterator[RunningDaemon]:
    """The daemon of all these tests, whose agent soon goes when there is neither balancer nor session."""
    settings = f'# mine\n[inputs]\nroots = ["{media}"]\n[agents]\norphan_exit_s = 5.0\n'
    with daemon_running(tmp_path_factory.mktemp("house"), settings, probe_results=probe_results) as daemon:
        yield daemon


@pytest.fixture
def daemon(house: RunningDaemon) -> RunningDaemon:
    """The same, ready: started again where a test has ended it."""
    if house.process.poll() is not None:
        house.start()
    house.await_devices_ready()
    return house


@pytest.fixture
def tunable_daemon(daemon: RunningDaemon) -> Iterator[RunningDaemon]:
    """The daemon, whose settings are put back afterwards."""
    before = daemon.settings_path.read_text()
    yield daemon
    daemon.settings_path.write_text(before)
    daemon.json("reload")


def test_a_session_loses_no_frame_when_balancer_and_agent_end_and_are_killed_meanwhile(
    daemon: RunningDaemon, media: Path, tmp_path: Path
) -> None:
    """The balancer ends by SIGTERM, then by SIGKILL, then the agent by SIGKILL."""
    with daemon.client() as client:
        ended = client.wait(client.create_session(transcode_of(media / "clip.mp4", encoded(height=36))))
        session = client.create_session(lasting(media, 20))
        await_state(client, session.name, RUNNING)
        names = [one.name for one in client.list_sessions()]
    (program,) = [pid for pid, line in daemon.processes().items() if "ffmpeg" in line.split(" ")[0]]
    agents = daemon.agent_pids()

    assert daemon.terminate() == 0
    assert Path(f"/proc/{program}").exists()
    daemon.start()
    daemon.await_serving()
    with daemon.client() as client:
        assert [one.name for one in client.list_sessions()] == names
        assert client.get_session(session.name).state == RUNNING
        assert client.get_session(ended.name) == ended

    daemon.kill()
    daemon.start()
    daemon.await_serving()
    assert daemon.agent_pids() == agents, "the agent outlives the balancer"
    os.kill(agents["cpu-0"], signal.SIGKILL)
    with daemon.client() as client:
        assert [one.name for one in client.list_sessions()] == names
        adopter = eventually(
            lambda: daemon.agent_pids().get("cpu-0", agents["cpu-0"]) != agents["cpu-0"], "the agent is started again"
        )
        assert adopter
        last = client.wait(session.name)
        assert last.state == SUCCEEDED, last.failure
        assert last.attempt == 1
        assert client.wait(client.create_session(transcode_of(media / "clip.mp4", encoded(height=36)))).end_time
        client.download_artifacts(session.name, tmp_path / "out")
    made = decode(tmp_path / "out" / "out.mp4")
    assert made.frames == 600
    assert not made.complaints


def test_a_session_that_ends_while_nobody_is_there_is_known_as_it_ended(daemon: RunningDaemon, media: Path) -> None:
    with daemon.client() as client:
        good = client.create_session(lasting(media, 3))
        bad = client.create_session(transcode_of(live_input(media / "clip.mp4"), encoded(height=54)))
        await_state(client, good.name, RUNNING)
        await_state(client, bad.name, RUNNING)
    folder = str(daemon.attempt_folder(bad.name))
    agents = daemon.agent_pids()
    daemon.kill()
    for pid in agents.values():
        os.kill(pid, signal.SIGKILL)
    programs = {pid: line for pid, line in daemon.processes().items() if "ffmpeg" in line.split(" ")[0]}
    (doomed,) = [pid for pid, line in programs.items() if folder in line]
    os.kill(doomed, signal.SIGKILL)
    eventually(lambda: not daemon.processes(), "all processes have ended")
    daemon.start()
    daemon.await_serving()
    with daemon.client() as client:
        assert client.wait(good.name).state == SUCCEEDED
        failed = client.wait(bad.name)
        assert (failed.state, failed.failure.reason) == (session_pb2.SESSION_STATE_FAILED, "KILLED")
        assert failed.failure.exit_code == 128 + signal.SIGKILL


def test_shutdown_with_its_sessions_completes_their_outputs_and_leaves_no_process(
    daemon: RunningDaemon, media: Path
) -> None:
    with daemon.client() as client:
        asked = [
            transcode_of(live_input(media / "clip.mp4"), encoded("out", height=36)),
            transcode_of(live_input(media / "clip.mp4"), encoded("out", "hevc", height=36)),
        ]
        names = [client.create_session(one).name for one in asked]
        for name in names:
            await_state(client, name, RUNNING)
    told = daemon.json("shutdown", "--stop-sessions", apart=True)
    assert (told["stoppedSessions"], told["runningSessions"]) == (2, [])
    assert daemon.await_exit() == 0
    eventually(lambda: not daemon.processes(), "no process is left")
    for name in names:
        made = decode(daemon.attempt_folder(name) / "artifacts" / "out.mp4")
        assert made.frames > 0
        assert not made.complaints
    assert "Traceback" not in daemon.log


def test_a_reload_applies_all_of_a_file_or_nothing_and_leaves_sessions_alone(
    tunable_daemon: RunningDaemon, media: Path
) -> None:
    daemon = tunable_daemon
    before = daemon.settings_path.read_text()
    cpu = '[[cpu_devices]]\nname = "cpu-0"\ncores = "0"\n'
    with daemon.client() as client:
        session = client.create_session(endless(media))
        await_state(client, session.name, RUNNING)
        daemon.settings_path.write_text(f'{before}[placement]\npolicy = "wowza"\nheadroom = 0.5\n')
        told = daemon.json("reload")
        version = int(told["settingsVersion"])
        assert any("wowza" in change for change in told["changes"])
        assert client.get_balancer().policy == "wowza"

        daemon.settings_path.write_text(f"{before}[placement]\nheadroom = 0.7\nfactor = 2\n")
        line = before.count("\n") + 3
        refused = daemon.cli("reload")
        assert refused.returncode == 3
        assert f"line {line}: placement.factor: is no key. Did you mean factors?" in refused.stderr
        assert client.get_balancer().settings_version == version
        refusals = daemon.log.count("settings refused")
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: daemon.log.count("settings refused") > refusals, "the signal's refusal stands in the log")
        assert client.get_balancer().policy == "wowza"

        daemon.settings_path.write_text(f"{before}[sessions]\nkeep_ended_h = 5\n")
        # What waits for a restart is named at every reload, not only at the first.
        assert [daemon.json("reload")["restartKeys"] for _ in range(2)] == [["sessions.keep_ended_h"]] * 2

        daemon.settings_path.write_text(f"{before}{cpu}weight = 40\n")
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: client.get_device("cpu-0").weight == 40, "the signal has applied the weight")
        assert client.get_balancer().policy == "least_weighted_load"
        daemon.settings_path.write_text(f'{before}[[devices]]\nmatch = "T4"\n{cpu}weight = 0\n')
        assert "none takes a session" in daemon.json("reload")["changes"][-1], "the others of the file are not there"
        assert client.get_session(session.name).state == RUNNING
        client.stop_session(session.name)
        client.wait(session.name)


def test_a_weight_that_is_saved_keeps_every_comment_of_the_file(tunable_daemon: RunningDaemon) -> None:
    daemon = tunable_daemon
    daemon.settings_path.write_text(
        f"{daemon.settings_path.read_text()}# which cores\n[[cpu_devices]]  # ours\nname = 'cpu-0'\ncores = '0-1'\n"
        "weight = 70  # measured in May\n"
    )
    daemon.settings_path.chmod(0o640)
    told = daemon.json("devices", "set-weight", "cpu-0", "55", "--save")
    assert told["device"]["weight"] == 55
    assert told["savedPath"] == str(daemon.settings_path)
    text = daemon.settings_path.read_text()
    for kept in ("# mine", "# which cores", "# ours", "weight = 55  # measured in May"):
        assert kept in text
    assert daemon.settings_path.stat().st_mode & 0o777 == 0o640
    assert daemon.cli("devices", "set-weight", "cpu-0", "10001").returncode in (2, 3)
    # For now only: the file stays as it is, and a reload brings its weight back.
    assert daemon.json("devices", "set-weight", "cpu-0", "20")["device"]["weight"] == 20
    assert daemon.settings_path.read_text() == text
    daemon.json("reload")
    assert daemon.json("devices", "show", "cpu-0")["weight"] == 55


def test_a_deleted_session_takes_its_files_along(daemon: RunningDaemon, media: Path) -> None:
    with daemon.client() as client:
        running = client.create_session(endless(media))
        await_state(client, running.name, RUNNING)
        refused = daemon.cli("delete", running.name)
        assert refused.returncode == 3
        assert "it is running. Try to stop it first" in refused.stderr
        client.stop_session(running.name)
        client.wait(running)
        folder = daemon.attempt_folder(running.name)
        assert folder.exists()
        daemon.json("delete", running.name)
        eventually(lambda: not folder.exists(), "its folder is gone")
        assert running.name not in [one.name for one in client.list_sessions()]


def test_an_agent_without_sessions_goes_when_its_balancer_stays_away(daemon: RunningDaemon) -> None:
    assert daemon.terminate() == 0
    eventually(lambda: not daemon.processes(), "the agent has gone by itself")
