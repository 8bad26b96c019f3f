"""Sessions that wait for a device, give way or are held: how they are asked for, and what is shown of them."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from gpu_balancer import Reason, RequestFailure
from gpu_balancer.cli.exit_codes import ExitCode, exit_code_of
from gpu_balancer.cli.session_progress import SessionProgress
from gpu_balancer.cli.session_words import progress_words, queue_words
from gpu_balancer.cli.words import about
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command

    from fakes.balancer_server import FakeBalancer

QUEUED, RUNNING = session_pb2.SESSION_STATE_QUEUED, session_pb2.SESSION_STATE_RUNNING


def waiting(position: int, seconds: int | None = None, message: str = "") -> session_pb2.QueueStatus:
    estimate = None if seconds is None else Duration(seconds=seconds)
    return session_pb2.QueueStatus(position=position, estimated_wait=estimate, message=message)


def test_waiting_giving_way_and_speed_are_asked_for(finishing: FakeBalancer, run: Command, source: Path) -> None:
    words = ("--wait-for-device", "10m", "--priority", "batch", "--preemptible", "--reserved-speed", "1.5x")
    assert run("transcode", str(source), "--detach", *words).code == 0
    asked = finishing.received[-1].session  # type: ignore[attr-defined]
    assert asked.max_wait == Duration(seconds=600)
    assert (asked.priority, asked.preemptible, asked.reserved_speed) == (session_pb2.PRIORITY_BATCH, True, 1.5)
    assert run("transcode", str(source), "--detach").code == 0
    plain = finishing.received[-1].session  # type: ignore[attr-defined]
    assert not plain.HasField("max_wait")
    assert not plain.HasField("reserved_speed")
    assert not plain.preemptible


@pytest.mark.parametrize(
    "words",
    [
        ("in.mov", "--wait-for-device", "0"),
        ("in.mov", "--wait-for-device", "soon"),
        ("in.mov", "--reserved-speed", "0"),
        ("in.mov", "--reserved-speed", "1001"),
        ("in.mov", "--reserved-speed", "nan"),
        ("in.mov", "--reserved-speed", "2", "--priority", "live"),
        ("in.mov", "--reserved-speed", "2", "--native-rate"),
        ("in.mov", "--preemptible", "--priority", "live"),
        ("--ingest", "rtmp", "--input-facts", "1280x720@30", "--preemptible"),
    ],
)
def test_what_cannot_be_meant_is_exit_code_2_and_asks_the_daemon_nothing(
    fake: FakeBalancer, run: Command, words: tuple[str, ...]
) -> None:
    ran = run("transcode", *words)
    assert (ran.code, ran.out) == (2, "")
    assert not fake.calls


def test_who_waits_is_told_his_place_then_his_device(fake: FakeBalancer, run: Command, source: Path) -> None:
    def queue(session: session_pb2.Session) -> None:
        fake.advance(session.name, state=QUEUED, queue=waiting(3, 118))

    def go_on(session: session_pb2.Session) -> None:
        if session.state == QUEUED:
            session.ClearField("queue")
            fake.advance(session.name, state=RUNNING, device="devices/cpu-0")
        else:
            fake.advance(session.name, state=session_pb2.SESSION_STATE_SUCCEEDED)

    fake.on_create, fake.on_told = queue, go_on
    ran = run("transcode", str(source), "--wait-for-device", "10m")
    assert ran.code == 0
    assert ran.err.splitlines()[:4] == [
        "Session s1 waits for a device",
        "s1: waiting for a device: place 3, about 2 min",
        "s1: running on cpu-0",
        "s1: succeeded on cpu-0",
    ]


class Clock:
    """A clock that runs by a minute at each look."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic_s(self) -> float:
        self.now_s += 60
        return self.now_s


def test_the_same_place_again_is_no_news(capsys: pytest.CaptureFixture[str]) -> None:
    from gpu_balancer.cli.screen import Screen

    session = session_pb2.Session(name="sessions/a", state=QUEUED)
    with SessionProgress(Screen(json=False), clock=Clock()) as progress:  # type: ignore[arg-type]
        for position in (0, 3, 3, 3, 2):
            session.queue.position = position
            progress.show(session)
    assert capsys.readouterr().err.splitlines() == [
        "a: waiting for a device",
        "a: waiting for a device: place 3",
        "a: waiting for a device: place 2",
    ]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "about 10 s"), (31, "about 40 s"), (50, "about 50 s"), (51, "about 1 min"), (118, "about 2 min"),
        (5399, "about 90 min"), (5400, "about 2 h"), (86_400, "about 24 h"),
    ],
)  # fmt: skip
def test_an_estimate_is_no_finer_than_it_is(seconds: int, words: str) -> None:
    assert about(Duration(seconds=seconds)) == words
    assert queue_words(session_pb2.Session(queue=waiting(1, seconds))) == f"place 1, {words}"


def test_a_queue_that_is_full_is_exit_code_5_and_says_when_to_come_again(
    fake: FakeBalancer, run: Command, source: Path
) -> None:
    message = "Cannot queue the session: 256 sessions wait already. Try again later."
    fake.refuse(
        "CreateSession",
        RequestFailure(reason=Reason.QUEUE_FULL, message=message, retry_after=timedelta(seconds=30)),
    )
    ran = run("transcode", str(source), "--wait-for-device", "1h")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.startswith(f"Error: {message}\n")
    assert ran.err.endswith("Try again in 30 s.\n")


def test_who_is_refused_for_want_of_room_is_told_that_he_could_wait(
    fake: FakeBalancer, run: Command, source: Path
) -> None:
    refusal = RequestFailure(reason=Reason.NO_CAPACITY, message="Cannot place the session.")
    fake.refuse("CreateSession", refusal, refusal)
    assert "--wait-for-device 10m" in run("transcode", str(source)).err
    assert "--wait-for-device" not in run("transcode", str(source), "--wait-for-device", "5").err


def test_waiting_in_vain_is_exit_code_5_and_says_where_the_reasons_are(
    fake: FakeBalancer, run: Command, source: Path
) -> None:
    message = "Cannot place the session: no device had room within 600 s. Try again later."
    failure = session_pb2.Failure(reason="QUEUE_TIMEOUT", message=message)
    fake.on_create = lambda session: fake.advance(session.name, state=session_pb2.SESSION_STATE_FAILED, failure=failure)
    ran = run("transcode", str(source), "--wait-for-device", "10m")
    assert ran.code == 5
    assert ran.err.splitlines()[-2:] == [
        f"Error: {message} (QUEUE_TIMEOUT)",
        "What it waited for: gpu-balancer explain s1",
    ]
    assert run("watch", "s1").code == 5
    assert exit_code_of(RequestFailure(reason=Reason.QUEUE_TIMEOUT, message="")) is ExitCode.NO_ROOM


@pytest.fixture
def mixed(fake: FakeBalancer) -> FakeBalancer:
    """A fake with a session that waits, one that is held, and one that was stopped for another."""

    def fill() -> None:
        queue = waiting(3, 118, "It waits for an encoder on cpu-0.")
        queue.queued_time.CopyFrom(Timestamp(seconds=1_700_000_000))
        queue.deadline.CopyFrom(Timestamp(seconds=1_700_000_600))
        fake.add_session("waits", state=QUEUED, queue=queue, max_wait=Duration(seconds=600), priority=2)
        progress = session_pb2.Progress(speed=1.5, out_time=Duration(seconds=15), total_time=Duration(seconds=60))
        fake.add_session(
            "held",
            state=RUNNING,
            device="devices/cpu-0",
            progress=progress,
            speed_limit=1.5,
            reserved_speed=0.5,
            preemptible=True,
            priority=session_pb2.PRIORITY_BATCH,
        )
        fake.add_session("back", state=QUEUED, queue=waiting(4), preemption_count=1)
        fake.page_size = 10

    fake.do(fill)
    return fake


def test_lists_show_places_and_speeds(mixed: FakeBalancer, run: Command) -> None:
    for command in ("sessions", "top"):
        rows = [line.split("\t") for line in run(command).out.splitlines() if line]
        assert [(row[0], row[1], row[3]) for row in rows] == [
            ("back", "queued", "place 4"),
            ("held", "running", "25% 1.5x ≤1.5x"),
            ("waits", "queued", "place 3, about 2 min"),
        ]


def facts(out: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for line in out.splitlines():
        name = line.split("  ")[0].strip() or name
        found[name] = f"{found[name]}|{line.strip()}" if name in found else line[len(name) :].strip()
    return found


def test_a_session_that_waits_tells_everything_about_it(mixed: FakeBalancer, run: Command) -> None:
    told = facts(run("session", "waits").out)
    place, since, until, message = told["queue"].split("|")
    assert (place, message) == ("place 3, about 2 min", "It waits for an encoder on cpu-0.")
    assert re.fullmatch(r"since 2023-11-1\d \d\d:\d\d:\d\d", since)
    assert until.startswith("given up at 2023-11-1")
    assert told["waits"] == "10:00 at most for a device"
    assert "never given up" in facts(run("session", "back").out)["queue"]


def test_a_session_that_gives_way_tells_how(mixed: FakeBalancer, run: Command) -> None:
    told = facts(run("session", "held").out)
    assert told["priority"] == "batch, may be stopped for live work and queued again"
    assert told["speed"] == "0.5x real time kept free, held at 1.5x while live work shares its device"
    assert "preempted" not in told
    assert facts(run("session", "back").out)["preempted"] == "once"


def test_a_speed_limit_is_only_told_while_it_runs() -> None:
    ended = session_pb2.Session(state=session_pb2.SESSION_STATE_SUCCEEDED, speed_limit=1)
    ended.progress.frames = 1
    assert progress_words(ended) == "100%"
