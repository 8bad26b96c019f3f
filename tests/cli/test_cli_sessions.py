"""The commands about sessions that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from gpu_balancer.v1 import media_pb2, session_pb2, session_service_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Command

    from fakes.balancer_server import FakeBalancer

RUNNING, SUCCEEDED = session_pb2.SESSION_STATE_RUNNING, session_pb2.SESSION_STATE_SUCCEEDED
FAILED = session_pb2.SESSION_STATE_FAILED


def failure() -> session_pb2.Failure:
    return session_pb2.Failure(
        reason="INPUT_UNREADABLE",
        message="Cannot decode the input: it is cut short. Try another copy.",
        exit_code=1,
        log_tail=["moov atom not found", "evil \x1b[2J line"],
    )


@pytest.fixture
def with_sessions(fake: FakeBalancer) -> FakeBalancer:
    def fill() -> None:
        spec = media_pb2.TranscodeSpec(input=media_pb2.Input(uri="/srv/in.mov"))
        fake.add_session("old", state=FAILED, transcode=spec, failure=failure())
        progress = session_pb2.Progress(
            frames=450, speed=2.4, out_time=Duration(seconds=15), total_time=Duration(seconds=60)
        )
        fake.add_session(
            "busy", state=RUNNING, device="devices/cpu-0", progress=progress, transcode=spec, labels={"show": "news"}
        )
        fake.add_session("done", state=SUCCEEDED, transcode=spec)

    fake.do(fill)
    return fake


def names(out: str) -> list[str]:
    return [line.split("\t")[0] for line in out.splitlines()]


def test_sessions_are_listed_newest_first(with_sessions: FakeBalancer, run: Command) -> None:
    ran = run("sessions")
    assert names(ran.out) == ["done", "busy", "old"]
    created = ran.out.splitlines()[1].split("\t")[4]
    assert ran.out.splitlines()[1].split("\t") == [
        "busy", "running", "cpu-0", "25% 2.4x", created, "show=news", "/srv/in.mov", "transcode",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("--state", "running"), ["busy"]),
        (("--state", "running", "--state", "failed"), ["busy", "old"]),
        (("--device", "cpu-0"), ["busy"]),
        (("--label", "show=news"), ["busy"]),
        (("--label", "show=other"), []),
    ],
)
def test_sessions_are_narrowed(
    with_sessions: FakeBalancer, run: Command, words: tuple[str, ...], found: list[str]
) -> None:
    ran = run("sessions", *words)
    assert names(ran.out) == found
    assert ran.code == 0


def test_a_limit_says_that_there_are_more(with_sessions: FakeBalancer, run: Command) -> None:
    ran = run("sessions", "--limit", "2")
    assert names(ran.out) == ["done", "busy"]
    assert "more than these 2" in ran.err
    assert names(run("sessions", "-n", "0").out) == ["done", "busy", "old"]
    assert "more" not in run("sessions", "--limit", "3").err


def test_sessions_as_json_are_the_contracts_answer(with_sessions: FakeBalancer, run: Command) -> None:
    sessions = run("sessions", "--json", "--state", "running").document["sessions"]
    assert [session["name"] for session in sessions] == ["sessions/busy"]
    assert sessions[0]["state"] == "SESSION_STATE_RUNNING"
    assert sessions[0]["progress"]["outTime"] == "15s"


def test_no_sessions_are_an_empty_list_in_json(run: Command) -> None:
    assert run("sessions", "--json").document == {"sessions": [], "nextPageToken": ""}


@pytest.mark.parametrize("words", [("--state", "asleep"), ("--label", "nothing")])
def test_a_filter_that_cannot_be_is_wrong_usage(run: Command, words: tuple[str, ...]) -> None:
    assert run("sessions", *words).code == 2


@pytest.mark.parametrize("name", ["old", "sessions/old"])
def test_a_session_is_shown_by_either_name(with_sessions: FakeBalancer, run: Command, name: str) -> None:
    out = run("session", name).out
    assert "Cannot decode the input: it is cut short. Try another copy. (INPUT_UNREADABLE)" in out
    assert "moov atom not found" in out


def test_what_a_file_is_called_does_not_steer_the_terminal(with_sessions: FakeBalancer, run: Command) -> None:
    assert "\x1b" not in run("session", "old").out
    assert "\x1b" not in run("watch", "old").err


def test_an_unknown_session_is_refused(run: Command) -> None:
    for words in (("session", "x"), ("stop", "x"), ("delete", "x"), ("watch", "x"), ("logs", "x"), ("artifacts", "x")):
        ran = run(*words)
        assert (ran.code, ran.out) == (3, "")
        assert "Error: Cannot find sessions/x: there is no such session. Try the list." in ran.err


def test_watching_a_failed_session_tells_why_with_exit_code_1(with_sessions: FakeBalancer, run: Command) -> None:
    ran = run("watch", "old")
    assert (ran.code, ran.out) == (1, "")
    assert "Error: Cannot decode the input: it is cut short. Try another copy. (INPUT_UNREADABLE, exit st" in ran.err
    assert "  | moov atom not found\n" in ran.err
    assert "gpu-balancer logs old" in ran.err


def test_watching_ends_with_the_session(with_sessions: FakeBalancer, run: Command) -> None:
    with_sessions.on_told = lambda session: with_sessions.advance(session.name, state=SUCCEEDED)
    ran = run("watch", "busy")
    assert (ran.code, ran.out) == (0, "busy: succeeded\n")
    assert ran.err.splitlines() == ["busy: running on cpu-0, 25% 2.4x", "busy: succeeded on cpu-0, 100%"]


def test_watching_as_json_gives_a_line_per_change(with_sessions: FakeBalancer, run: Command) -> None:
    ran = run("watch", "done", "--json")
    assert [record["state"] for record in ran.records] == ["SESSION_STATE_SUCCEEDED"]
    assert ran.code == 0


def test_a_log_is_written_as_it_is(with_sessions: FakeBalancer, run: Command) -> None:
    with_sessions.logs["sessions/old"] = ["one", "two\ttabs", "three"]
    assert run("logs", "old").out == "one\ntwo\ttabs\nthree\n"
    assert run("logs", "old", "-n", "1").out == "three\n"
    assert run("logs", "old", "-f", "--json").records == [{"lines": [x]} for x in ("one", "two\ttabs", "three")]


def test_a_session_is_stopped_and_deleted(with_sessions: FakeBalancer, run: Command) -> None:
    assert run("delete", "busy").code == 3
    assert run("stop", "busy").out == "busy: cancelled\n"
    assert run("stop", "busy", "--json").document["state"] == "SESSION_STATE_CANCELLED"
    assert run("delete", "busy").out == "busy: deleted\n"
    assert run("delete", "done", "--json").document == {}
    assert list(with_sessions.sessions) == ["sessions/old"]


@pytest.fixture
def with_artifacts(with_sessions: FakeBalancer) -> FakeBalancer:
    for path in ("720p.mp4", "hls/master.m3u8", "hls/720p/0.m4s"):
        with_sessions.add_artifact("sessions/done", path, path.encode() * 100)
    return with_sessions


def test_artifacts_are_listed(with_artifacts: FakeBalancer, run: Command) -> None:
    ran = run("artifacts", "done")
    assert names(ran.out) == ["720p.mp4", "hls/720p/0.m4s", "hls/master.m3u8"]
    assert ran.out.splitlines()[1].split("\t")[1] == "1.4 kB"
    assert len(run("artifacts", "done", "--json").document["artifacts"]) == 3


def test_artifacts_are_fetched_and_existing_files_kept(
    with_artifacts: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "got"
    ran = run("artifacts", "done", "--download", str(folder))
    assert ran.code == 0
    assert sorted(ran.out.splitlines()) == sorted(str(path) for path in folder.rglob("*") if path.is_file())
    assert (folder / "hls/720p/0.m4s").read_text() == "hls/720p/0.m4s" * 100
    again = run("artifacts", "done", "--download", str(folder))
    assert (again.code, again.out) == (6, "")
    assert "the file exists" in again.err
    assert run("artifacts", "done", "--download", str(folder), "-y").code == 0


def test_an_artifact_that_would_leave_the_folder_is_not_written(
    with_sessions: FakeBalancer, run: Command, tmp_path: Path
) -> None:
    with_sessions.add_artifact("sessions/done", "../evil", b"x")
    ran = run("artifacts", "done", "--download", str(tmp_path / "got"))
    assert ran.code == 2
    assert not (tmp_path / "evil").exists()


def test_a_change_is_a_line_with_tabs(with_sessions: FakeBalancer) -> None:
    from gpu_balancer.cli.watch_actions import SessionBoard, change_lines

    def change(kind: str, name: str = "", **fields: object) -> session_service_pb2.WatchSessionsResponse:
        number = session_service_pb2.SessionChangeType.Value(f"SESSION_CHANGE_TYPE_{kind}")
        session = session_pb2.Session(name=f"sessions/{name}", **fields) if name else None  # type: ignore[arg-type]
        return session_service_pb2.WatchSessionsResponse(type=number, session=session)

    changes = [change("UPDATED", "a", state=RUNNING), change("UPDATED", "b"), change("SYNCED"), change("REMOVED", "a")]
    assert [line.split("\t")[:3] for line in change_lines(changes)] == [
        ["updated", "a", "running"],
        ["updated", "b", "-"],
        ["synced"],
        ["removed", "a"],
    ]
    board = SessionBoard()
    for one in changes:
        board.take(one)
    assert [session.name for session in board.shown(5)] == ["sessions/b"]
    board.take(change("RESET"))
    assert board.shown(5) == []


def test_the_board_shows_live_sessions_before_ended_ones() -> None:
    from gpu_balancer.cli.watch_actions import SessionBoard

    board = SessionBoard()
    for number, state in enumerate((RUNNING, SUCCEEDED, RUNNING, FAILED)):
        session = session_pb2.Session(name=f"sessions/{number}", state=state)
        session.create_time.seconds = number + 1
        board.take(
            session_service_pb2.WatchSessionsResponse(
                type=session_service_pb2.SESSION_CHANGE_TYPE_UPDATED, session=session
            )
        )
    assert [session.name[-1] for session in board.shown(3)] == ["2", "0", "3"]
