"""Restarts: how they are asked for, what is shown of them, and that none of them is taken for the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command

    from fakes.balancer_server import FakeBalancer

QUEUED, STARTING, RUNNING = (
    session_pb2.SESSION_STATE_QUEUED,
    session_pb2.SESSION_STATE_STARTING,
    session_pb2.SESSION_STATE_RUNNING,
)
POLICY = session_pb2.RestartPolicy(
    mode=session_pb2.RESTART_MODE_ON_FAILURE,
    max_restarts=3,
    first_backoff=Duration(seconds=1),
    longest_backoff=Duration(seconds=60),
)
KILLED = session_pb2.Failure(reason="KILLED", message="Cannot go on: the program was killed.")
LAST = session_pb2.Restart(attempt=1, device="devices/cpu-0", failure=KILLED, restart_time=Timestamp(seconds=2_000_000))


def asked_by(fake: FakeBalancer) -> session_pb2.Session:
    session: session_pb2.Session = fake.received[-1].session  # type: ignore[attr-defined]
    return session


@pytest.mark.parametrize("words", [("transcode", "SOURCE"), ("record", "https://example.org/")])
def test_restarts_are_asked_for(finishing: FakeBalancer, run: Command, source: Path, words: tuple[str, str]) -> None:
    command = [str(source) if word == "SOURCE" else word for word in words]
    options = ("--restart", "on-failure", "--max-restarts", "7", "--restart-backoff", "2.5")
    assert run(*command, "--detach", *options, "--restart-on", "KILLED", "--restart-on", "input-lost").code == 0
    asked = asked_by(finishing).restart
    assert (asked.mode, asked.max_restarts) == (session_pb2.RESTART_MODE_ON_FAILURE, 7)
    assert asked.first_backoff == Duration(seconds=2, nanos=500_000_000)
    assert list(asked.reasons) == ["KILLED", "INPUT_LOST"]
    assert not asked.HasField("longest_backoff")
    assert run(*command, "--detach").code == 0
    assert not asked_by(finishing).HasField("restart"), "the daemon's settings say it"


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        (("--restart", "never"), session_pb2.RESTART_MODE_NEVER),
        (("--restart", "always"), session_pb2.RESTART_MODE_ALWAYS),
        (("--max-restarts", "5"), session_pb2.RESTART_MODE_ON_FAILURE),
        (("--restart-on", "KILLED"), session_pb2.RESTART_MODE_ON_FAILURE),
        (("--restart-backoff", "0"), session_pb2.RESTART_MODE_ON_FAILURE),
    ],
)
def test_who_says_how_it_restarts_means_that_it_does(
    finishing: FakeBalancer, run: Command, words: tuple[str, ...], mode: int
) -> None:
    assert run("transcode", "rtmp://camera.example/live", "--detach", *words).code == 0
    assert asked_by(finishing).restart.mode == mode
    assert asked_by(finishing).restart.HasField("first_backoff") == ("--restart-backoff" in words)


@pytest.mark.parametrize(
    "words",
    [
        ("transcode", "in.mov", "--restart", "sometimes"),
        ("transcode", "in.mov", "--restart", "never", "--max-restarts", "2"),
        ("transcode", "in.mov", "--max-restarts", "0"),
        ("transcode", "in.mov", "--max-restarts", "1001"),
        ("transcode", "in.mov", "--restart-backoff", "soon"),
        ("transcode", "in.mov", "--restart-backoff", "1:00:01"),
        ("record", "https://example.org/", "--restart", "always"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2_and_starts_nothing(
    fake: FakeBalancer, run: Command, words: tuple[str, ...]
) -> None:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert "CreateSession" not in fake.calls


def failing_once(fake: FakeBalancer) -> None:
    """Has sessions run, fail, rest, run again on another device and succeed."""
    message = "Attempt 1 ended: it was killed. It begins again after 1 s; restart 1 of 3."
    condition = session_pb2.Condition(type="RESTARTING", message=message)
    resting = session_pb2.QueueStatus(position=1, not_before_time=Timestamp(seconds=2_000_001))
    again = {"restart_count": 1, "last_restart": LAST}

    def run_and_fail(session: session_pb2.Session) -> None:
        fake.add_artifact(session.name, session.transcode.outputs[0].file.path, b"a film")
        fake.advance(session.name, state=RUNNING, device="devices/cpu-0", attempt=1)
        fake.advance(session.name, state=QUEUED, device="", queue=resting, conditions=[condition], **again)

    def go_on(session: session_pb2.Session) -> None:
        if session.state == QUEUED:
            session.ClearField("queue")
            del session.conditions[:]
            fake.advance(session.name, state=RUNNING, device="devices/cpu-1", attempt=2)
        elif session.state == RUNNING and session.attempt == 2:
            fake.advance(session.name, state=session_pb2.SESSION_STATE_SUCCEEDED)

    fake.on_create = run_and_fail
    fake.on_told = go_on


def test_a_restart_is_not_the_end_of_who_waits_for_the_result(
    fake: FakeBalancer, run: Command, source: Path, tmp_path: Path
) -> None:
    failing_once(fake)
    ran = run("transcode", str(source), "-o", str(tmp_path / "out.mp4"))
    assert ran.code == 0, ran.err
    assert (tmp_path / "out.mp4").read_bytes() == b"a film"
    assert "RESTARTING: Attempt 1 ended" in ran.err
    assert "beginning again: place 1" in ran.err
    assert "running on cpu-1" in ran.err


def test_watch_goes_on_over_a_restart(fake: FakeBalancer, run: Command) -> None:
    failing_once(fake)
    session = fake.add_session(state=QUEUED, attempt=1, conditions=[session_pb2.Condition(type="MOVING", message="!")])
    ran = run("watch", session.name)
    assert ran.code == 0, ran.err
    assert "moving to another device" in ran.err
    assert ran.out.strip().endswith(": succeeded")


def test_a_session_tells_its_policy_and_its_last_restart(fake: FakeBalancer, run: Command) -> None:
    queue = session_pb2.QueueStatus(position=1, not_before_time=Timestamp(seconds=2_000_001))
    told = fake.add_session(state=QUEUED, attempt=2, restart=POLICY, restart_count=2, last_restart=LAST, queue=queue)
    shown = run("session", told.name).out
    assert "on failure, 3 in a row, after 1 s to 1:00" in shown
    assert "everything that may pass" in shown
    assert "2 times" in shown
    assert "attempt 1 on cpu-0 ended 1970-01-2" in shown
    assert "the program was killed. (KILLED)" in shown
    assert "rests until 1970-01-2" in shown


def test_a_session_that_never_restarts_says_just_that(fake: FakeBalancer, run: Command) -> None:
    never = session_pb2.RestartPolicy(mode=session_pb2.RESTART_MODE_NEVER)
    shown = run("session", fake.add_session(state=RUNNING, attempt=1, restart=never).name).out
    assert "never\n" in shown
    assert "in a row" not in shown
    assert "last time" not in shown
