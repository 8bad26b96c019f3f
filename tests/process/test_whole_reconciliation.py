"""Restarts with real daemons: what is known before anybody is served, agents that hang, and orphans."""

from __future__ import annotations

import os
import shutil
import signal
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from asked import RUNNING, SUCCEEDED, await_state, encoded, live_input, transcode_of
from daemons import RunningDaemon, daemon_running, eventually

from gpu_balancer.client import Client, RetryPolicy
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.v1.session_pb2 import Session

pytestmark = pytest.mark.process

FAILED = session_pb2.SESSION_STATE_FAILED
CANCELLED = session_pb2.SESSION_STATE_CANCELLED


def lasting(media: Path) -> Session:
    """A session that runs until it is stopped, and does not begin anew by itself."""
    asked = transcode_of(live_input(media / "clip.mp4"), encoded(height=36))
    asked.restart.mode = session_pb2.RESTART_MODE_NEVER
    return asked


def conditions(session: Session) -> set[str]:
    return {condition.type for condition in session.conditions}


def program_of(daemon: RunningDaemon, session: Session) -> int:
    """Gives the process id of a session's ffmpeg."""
    folder = str(daemon.attempt_folder(session.name))
    (program,) = [pid for pid, line in daemon.processes().items() if "ffmpeg" in line.split(" ")[0] and folder in line]
    return program


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has reaped counts."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, media: Path, probe_results: Path) -> Iterator[RunningDaemon]:
    """The daemon of all these tests, which replaces agents as soon as they count as unreachable."""
    settings = f'[inputs]\nroots = ["{media}"]\n[agents]\nreplace_hung_after_s = 12.0\n'
    with daemon_running(tmp_path_factory.mktemp("house"), settings, probe_results=probe_results) as running:
        yield running


@pytest.fixture
def daemon(house: RunningDaemon) -> RunningDaemon:
    """The same, ready."""
    house.await_devices_ready()
    return house


def test_an_agent_that_hangs_is_replaced_and_its_session_runs_on(daemon: RunningDaemon, media: Path) -> None:
    """Nor does it keep a balancer that starts meanwhile from serving."""
    with daemon.client() as client:
        session = client.create_session(lasting(media))
        await_state(client, session.name, RUNNING)
    program = program_of(daemon, session)
    hung = daemon.agent_pids()["cpu-0"]
    os.kill(hung, signal.SIGSTOP)
    try:
        daemon.kill()
        daemon.start()
        daemon.await_serving()
        assert "serving before everything is known" in daemon.log
        with daemon.client() as client:
            assert client.get_session(session.name).state == RUNNING
            eventually(
                lambda: "UNREACHABLE" in conditions(client.get_session(session.name)), "the session is unreachable"
            )
            assert daemon.agent_pids()["cpu-0"] == hung, "it is told before anything is done about it"
            successor = eventually(
                lambda: daemon.agent_pids().get("cpu-0", hung) != hung and daemon.agent_pids(), "it is replaced"
            )
            eventually(lambda: not conditions(client.get_session(session.name)), "the session is heard again")
            assert "killed an agent that did not answer" in daemon.log
            running = client.get_session(session.name)
            assert (running.state, running.attempt) == (RUNNING, 1)
            assert program_of(daemon, session) == program
            assert daemon.agent_pids() == successor
            client.stop_session(session.name)
            assert client.wait(session.name).state == CANCELLED
    finally:
        # The daemon's pidfd may not have come to it.
        if daemon.agent_pids().get("cpu-0") == hung:
            os.kill(hung, signal.SIGCONT)


def test_an_end_that_came_while_no_balancer_was_there_is_known_when_the_next_one_serves(
    daemon: RunningDaemon, media: Path
) -> None:
    with daemon.client() as client:
        session = client.create_session(lasting(media))
        await_state(client, session.name, RUNNING)
    program = program_of(daemon, session)
    daemon.kill()
    os.kill(program, signal.SIGKILL)
    eventually(lambda: not daemon.ffmpeg_processes(), "its shim has told how it ended")
    daemon.start()
    daemon.await_serving()
    with daemon.client() as client:
        ended = client.get_session(session.name)
        assert (ended.state, ended.failure.exit_code) == (FAILED, 128 + signal.SIGKILL)


def test_a_session_that_is_asked_for_while_the_balancer_comes_up_is_taken(daemon: RunningDaemon, media: Path) -> None:
    asked = transcode_of(media / "clip.mp4", encoded(height=36))
    daemon.kill()
    daemon.start()
    with Client(daemon.address, retry_policy=RetryPolicy(patience=timedelta(seconds=60))) as client:
        session = client.create_session(asked)
        assert client.wait(session.name).state == SUCCEEDED


def test_what_runs_of_a_session_whose_folder_is_gone_is_ended_before_that_is_told(
    daemon: RunningDaemon, media: Path
) -> None:
    with daemon.client() as client:
        kept, lost = (client.create_session(lasting(media)) for _ in range(2))
        for session in (kept, lost):
            await_state(client, session.name, RUNNING)
        kept_program, orphan = program_of(daemon, kept), program_of(daemon, lost)
        folder = daemon.attempt_folder(lost.name)
        log = daemon.state_dir / "agents" / "cpu-0" / "agent.log"

        def told_of_orphans() -> int:
            return log.read_text().count("Ended processes that belonged to nothing here")

        told_before = told_of_orphans()
        agent = daemon.agent_pids()["cpu-0"]
        os.kill(agent, signal.SIGKILL)
        shutil.rmtree(folder.parent)
        eventually(lambda: client.get_session(lost.name).state == FAILED, "the loss is told")
        assert gone(orphan), "nothing of it runs when it is told as lost"
        assert client.get_session(lost.name).failure.reason == "ATTEMPT_LOST"
        assert client.get_session(kept.name).state == RUNNING
        assert program_of(daemon, kept) == kept_program
        assert told_of_orphans() > told_before
        client.stop_session(kept.name)
        assert client.wait(kept.name).state == CANCELLED
