"""Sessions seen over a real wire: lists, watches, ends, logs and artifacts."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from balancer.domain.ids import SessionId
from balancer.domain.restart import LOST_REASONS, RestartMode
from balancer.domain.session import Failure, Progress
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from fakes.agent_media import FULL_HD
from fakes.balancer_house import BalancerHouse, failure_of
from fakes.session_texts import LADDER, session
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.v1 import session_pb2
from gpu_balancer.v1 import session_service_pb2 as pb

RUNNING = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING)
DONE = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.COMPLETED)


async def created(house: BalancerHouse, **labels: str) -> str:
    """Creates a session; gives its name."""
    request = pb.CreateSessionRequest(session=session(LADDER))
    request.session.transcode.input.declared_facts.CopyFrom(FULL_HD)
    request.session.labels.update(labels)
    return (await house.sessions.CreateSession(request)).session.name


def id_of(name: str) -> SessionId:
    return SessionId(name.removeprefix("sessions/"))


UNKNOWN_SESSION = [
    ("GetSession", pb.GetSessionRequest(name="sessions/nope")),
    ("StopSession", pb.StopSessionRequest(name="sessions/nope")),
    ("DeleteSession", pb.DeleteSessionRequest(name="sessions/nope")),
    ("ListArtifacts", pb.ListArtifactsRequest(parent="sessions/nope")),
    ("WatchSession", pb.WatchSessionRequest(name="sessions/nope")),
    ("ReadSessionLog", pb.ReadSessionLogRequest(name="sessions/nope")),
    ("ReadArtifact", pb.ReadArtifactRequest(name="sessions/nope/artifacts/x.mp4")),
]


async def called(house: BalancerHouse, method: str, request: object) -> object:
    """Calls a method; of a stream it reads the first message."""
    call = getattr(house.sessions, method)(request)
    return await anext(aiter(call)) if hasattr(call, "__aiter__") else await call


@pytest.mark.parametrize(("method", "request_"), UNKNOWN_SESSION, ids=[method for method, _ in UNKNOWN_SESSION])
async def test_an_unknown_session_is_not_found(house: BalancerHouse, method: str, request_: object) -> None:
    assert (await failure_of(called(house, method, request_))).reason is Reason.SESSION_NOT_FOUND


@pytest.mark.parametrize(("method", "request_"), UNKNOWN_SESSION, ids=[method for method, _ in UNKNOWN_SESSION])
@pytest.mark.parametrize("name", ["", "nope", "sessions/", "sessions/../etc", "devices/cpu-0"])
async def test_what_is_no_name_is_refused_by_its_field(
    house: BalancerHouse, method: str, request_: object, name: str
) -> None:
    field = "parent" if method == "ListArtifacts" else "name"
    failure = await failure_of(called(house, method, type(request_)(**{field: name})))
    assert failure.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in failure.violations] == [field]


async def test_sessions_are_listed_newest_first_in_pages(house: BalancerHouse) -> None:
    names = [await created(house) for _ in range(5)]
    listed: list[str] = []
    token = ""
    while True:
        page = await house.sessions.ListSessions(pb.ListSessionsRequest(page_size=2, page_token=token))
        assert len(page.sessions) <= 2
        listed += [one.name for one in page.sessions]
        token = page.next_page_token
        if not token:
            break
    assert listed == names[::-1]


async def test_a_foreign_page_token_is_refused(house: BalancerHouse) -> None:
    failure = await failure_of(house.sessions.ListSessions(pb.ListSessionsRequest(page_token="nonsense")))
    assert failure.reason is Reason.PAGE_TOKEN_INVALID


async def test_a_list_is_narrowed_by_state_device_and_labels(house: BalancerHouse) -> None:
    red, blue = await created(house, colour="red"), await created(house, colour="blue")
    await house.engine.apply(id_of(red), RUNNING)

    async def found(**wanted: object) -> list[str]:
        request = pb.ListSessionsRequest(filter=pb.SessionFilter(**wanted))  # type: ignore[arg-type]
        return [one.name for one in (await house.sessions.ListSessions(request)).sessions]

    assert await found(states=[session_pb2.SESSION_STATE_RUNNING]) == [red]
    assert await found(states=[session_pb2.SESSION_STATE_STARTING]) == [blue]
    assert await found(labels={"colour": "blue"}) == [blue]
    assert await found(device="devices/cpu-0") == [blue, red]
    assert await found(device="devices/cpu-9") == []


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (pb.SessionFilter(states=[99]), "filter.states"),
        (pb.SessionFilter(device="cpu-0"), "filter.device"),
        (pb.SessionFilter(states=[session_pb2.SESSION_STATE_RUNNING] * 500_000), "filter.states"),
        (pb.SessionFilter(labels={f"{number}": "" for number in range(50_000)}), "filter.labels"),
    ],
    ids=["an unknown state", "no device", "too many states", "too many labels"],
)
async def test_a_filter_that_cannot_be_is_refused(house: BalancerHouse, wanted: pb.SessionFilter, field: str) -> None:
    failure = await failure_of(house.sessions.ListSessions(pb.ListSessionsRequest(filter=wanted)))
    assert failure.violations[0].field == field
    failure = await failure_of(called(house, "WatchSessions", pb.WatchSessionsRequest(filter=wanted)))
    assert failure.violations[0].field == field


async def test_a_watch_gives_the_present_state_then_changes_and_ends_with_the_final_one(house: BalancerHouse) -> None:
    name = await created(house)
    stream = aiter(house.sessions.WatchSession(pb.WatchSessionRequest(name=name)))
    first = (await anext(stream)).session
    assert first.state == session_pb2.SESSION_STATE_STARTING
    await house.engine.apply(id_of(name), RUNNING)
    running = (await anext(stream)).session
    assert running.state == session_pb2.SESSION_STATE_RUNNING
    assert running.HasField("running_time")
    progress = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING, progress=Progress(frames=50, speed=2.0))
    await house.engine.apply(id_of(name), progress)
    assert (await anext(stream)).session.progress.frames == 50
    await house.engine.apply(id_of(name), DONE)
    last = (await anext(stream)).session
    assert last.state == session_pb2.SESSION_STATE_SUCCEEDED
    assert first.revision < running.revision < last.revision
    assert [change async for change in stream] == []


async def test_a_watch_goes_on_after_the_last_revision_that_was_seen(house: BalancerHouse) -> None:
    name = await created(house)
    seen = (await house.sessions.GetSession(pb.GetSessionRequest(name=name))).session.revision
    stream = aiter(house.sessions.WatchSession(pb.WatchSessionRequest(name=name, after_revision=seen)))
    await house.engine.apply(id_of(name), DONE)
    assert (await anext(stream)).session.state == session_pb2.SESSION_STATE_SUCCEEDED


async def test_all_sessions_are_watched_and_a_cut_watch_is_resumed(house: BalancerHouse) -> None:
    one = await created(house)
    watch = house.sessions.WatchSessions(pb.WatchSessionsRequest())
    stream = aiter(watch)
    assert (await anext(stream)).session.name == one
    synced = await anext(stream)
    assert synced.type == pb.SESSION_CHANGE_TYPE_SYNCED
    watch.cancel()
    two = await created(house)
    resumed = aiter(house.sessions.WatchSessions(pb.WatchSessionsRequest(resume_token=synced.resume_token)))
    change = await anext(resumed)
    assert (change.type, change.session.name) == (pb.SESSION_CHANGE_TYPE_UPDATED, two)
    assert (await anext(resumed)).type == pb.SESSION_CHANGE_TYPE_SYNCED
    await house.engine.apply(id_of(one), DONE)
    assert (await anext(resumed)).session.state == session_pb2.SESSION_STATE_SUCCEEDED
    await house.sessions.DeleteSession(pb.DeleteSessionRequest(name=one))
    removed = await anext(resumed)
    assert removed.type == pb.SESSION_CHANGE_TYPE_REMOVED
    assert removed.session == session_pb2.Session(name=one)


async def test_a_foreign_resume_token_resets_the_watch(house: BalancerHouse) -> None:
    name = await created(house)
    stream = aiter(house.sessions.WatchSessions(pb.WatchSessionsRequest(resume_token="other-7")))
    reset = await anext(stream)
    assert reset.type == pb.SESSION_CHANGE_TYPE_RESET
    assert not reset.HasField("session")
    assert (await anext(stream)).session.name == name


async def test_a_stop_is_answered_at_once_and_asking_again_changes_nothing(house: BalancerHouse) -> None:
    name = await created(house)
    first = (await house.sessions.StopSession(pb.StopSessionRequest(name=name))).session
    again = (await house.sessions.StopSession(pb.StopSessionRequest(name=name))).session
    assert first.state == again.state == session_pb2.SESSION_STATE_STOPPING
    assert first.revision == again.revision


async def test_only_an_ended_session_is_deleted(house: BalancerHouse) -> None:
    name = await created(house)
    request = pb.DeleteSessionRequest(name=name)
    assert (await failure_of(house.sessions.DeleteSession(request))).reason is Reason.SESSION_NOT_ENDED
    await house.engine.apply(id_of(name), DONE)
    await house.sessions.DeleteSession(request)
    assert house.agent.deleted == [id_of(name)]
    assert (await failure_of(house.sessions.DeleteSession(request))).reason is Reason.SESSION_NOT_FOUND


async def test_a_failure_is_told_with_its_reason_and_last_lines(house: BalancerHouse) -> None:
    name = await created(house)
    failure = Failure(reason="DISK_FULL", message="No room.", exit_code=228, log_tail=("one", "two"))
    failed = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.FAILED, failure=failure)
    await house.engine.apply(id_of(name), failed)
    told = (await house.sessions.GetSession(pb.GetSessionRequest(name=name))).session
    assert told.state == session_pb2.SESSION_STATE_FAILED
    assert (told.failure.reason, told.failure.exit_code) == ("DISK_FULL", 228)
    assert list(told.failure.log_tail) == ["one", "two"]


async def test_a_log_is_streamed_from_the_agent(house: BalancerHouse) -> None:
    house.agent.log = ["one", "two", "three"]
    name = await created(house)

    async def lines(**how: int) -> list[str]:
        request = pb.ReadSessionLogRequest(name=name, **how)  # type: ignore[arg-type]
        return [line async for piece in house.sessions.ReadSessionLog(request) for line in piece.lines]

    assert await lines() == ["one", "two", "three"]
    assert await lines(tail_lines=2) == ["two", "three"]
    assert await lines(tail_lines=0) == []


async def test_a_client_that_hangs_up_ends_the_agents_stream(house: BalancerHouse) -> None:
    house.agent.log = ["one"]
    name = await created(house)
    call = house.sessions.ReadSessionLog(pb.ReadSessionLogRequest(name=name, follow=True))
    assert list((await anext(aiter(call))).lines) == ["one"]
    assert house.agent.open_streams == 1
    call.cancel()
    await house.agent.stream_closed.wait()
    assert house.agent.open_streams == 0


async def test_an_agent_that_is_away_is_told_of_when_its_files_are_asked_for(house: BalancerHouse) -> None:
    name = await created(house)
    house.agent.reachable = False
    for method, request in (
        ("ReadSessionLog", pb.ReadSessionLogRequest(name=name)),
        ("ListArtifacts", pb.ListArtifactsRequest(parent=name)),
        ("ReadArtifact", pb.ReadArtifactRequest(name=f"{name}/artifacts/a.mp4")),
    ):
        assert (await failure_of(called(house, method, request))).reason is Reason.AGENT_UNREACHABLE
    house.agents.clear()
    failure = await failure_of(called(house, "ListArtifacts", pb.ListArtifactsRequest(parent=name)))
    assert failure.reason is Reason.AGENT_UNREACHABLE


async def test_artifacts_are_listed_by_path_in_pages_with_where_they_are_on_http(house: BalancerHouse) -> None:
    name = await created(house)
    house.agent.artifacts = {f"{letter} ü.mp4": b"x" for letter in "abcde"}
    listed: list[session_pb2.Artifact] = []
    token = ""
    while True:
        request = pb.ListArtifactsRequest(parent=name, page_size=2, page_token=token)
        page = await house.sessions.ListArtifacts(request)
        listed += page.artifacts
        token = page.next_page_token
        if not token:
            break
    assert [artifact.path for artifact in listed] == sorted(house.agent.artifacts)
    assert listed[0].name == f"{name}/artifacts/a ü.mp4"
    assert listed[0].http_path == f"/v1/{name}/artifacts/a%20%C3%BC.mp4"
    for bad in ("!", "bm9wZQ"):
        request = pb.ListArtifactsRequest(parent=name, page_token=bad)
        assert (await failure_of(house.sessions.ListArtifacts(request))).reason is Reason.PAGE_TOKEN_INVALID


DATA = bytes(range(256)) * 4096


async def read(house: BalancerHouse, request: pb.ReadArtifactRequest) -> tuple[session_pb2.Artifact, bytes]:
    pieces = [piece async for piece in house.sessions.ReadArtifact(request)]
    assert all(not piece.HasField("artifact") for piece in pieces[1:])
    return pieces[0].artifact, b"".join(piece.data for piece in pieces)


async def test_an_artifact_is_streamed_whole_or_in_part(house: BalancerHouse) -> None:
    name = await created(house)
    house.agent.artifacts["hls/a.ts"] = DATA
    path = f"{name}/artifacts/hls/a.ts"
    artifact, data = await read(house, pb.ReadArtifactRequest(name=path))
    assert data == DATA
    assert (artifact.name, artifact.size_bytes, artifact.final) == (path, len(DATA), True)
    _, data = await read(house, pb.ReadArtifactRequest(name=path, offset_bytes=300_000, limit_bytes=300_000))
    assert data == DATA[300_000:600_000]
    _, data = await read(house, pb.ReadArtifactRequest(name=path, offset_bytes=len(DATA)))
    assert data == b""


async def test_what_cannot_be_read_of_artifacts_is_told(house: BalancerHouse) -> None:
    name = await created(house)
    house.agent.artifacts["a.mp4"] = b"12345"
    call = house.sessions.ReadArtifact(pb.ReadArtifactRequest(name=f"{name}/artifacts/b.mp4"))
    assert (await failure_of(anext(aiter(call)))).reason is Reason.ARTIFACT_NOT_FOUND
    for offset in (6, 2**64 - 1):
        request = pb.ReadArtifactRequest(name=f"{name}/artifacts/a.mp4", offset_bytes=offset)
        assert (await failure_of(anext(aiter(house.sessions.ReadArtifact(request))))).reason is Reason.RANGE_INVALID


async def test_a_slow_reader_holds_the_agent_back(house: BalancerHouse) -> None:
    name = await created(house)
    house.agent.artifacts["big.mp4"] = bytes(256 * 1024 * 1024)
    call = house.sessions.ReadArtifact(pb.ReadArtifactRequest(name=f"{name}/artifacts/big.mp4"))
    await anext(aiter(call))
    sent = -1
    while sent != house.agent.sent_bytes:
        sent = house.agent.sent_bytes
        # Other calls go through meanwhile, each giving the stream every chance to run on.
        await asyncio.gather(*(house.sessions.ListSessions(pb.ListSessionsRequest()) for _ in range(50)))
    assert sent < 64 * 1024 * 1024
    call.cancel()
    await house.agent.stream_closed.wait()
    assert house.agent.open_streams == 0


async def test_an_agent_that_dies_while_it_is_read_is_told_of(house: BalancerHouse) -> None:
    name = await created(house)
    house.agent.artifacts["a.mp4"] = DATA
    house.agent.cut_after_bytes = 256 * 1024
    failure = await failure_of(read(house, pb.ReadArtifactRequest(name=f"{name}/artifacts/a.mp4")))
    assert failure.reason is Reason.AGENT_UNREACHABLE


async def test_a_policy_that_is_asked_for_is_kept_and_shown(house: BalancerHouse) -> None:
    text = f"{LADDER} restart {{ mode: RESTART_MODE_ON_FAILURE max_restarts: 2 first_backoff {{ seconds: 7 }} }}"
    created = (await house.sessions.CreateSession(pb.CreateSessionRequest(session=session(text)))).session
    record = house.engine.get(SessionId(created.name.removeprefix("sessions/")))
    assert (record.restart.mode, record.restart.max_restarts) == (RestartMode.ON_FAILURE, 2)
    assert (record.restart.first_backoff, record.resumable) == (timedelta(seconds=7), False)
    shown = (await house.sessions.GetSession(pb.GetSessionRequest(name=created.name))).session
    assert shown.restart == created.restart
    assert (shown.restart.max_restarts, shown.restart.longest_backoff.seconds) == (2, 60)
    assert not shown.HasField("last_restart")


async def test_who_says_nothing_of_restarts_is_shown_what_holds(house: BalancerHouse) -> None:
    created = (await house.sessions.CreateSession(pb.CreateSessionRequest(session=session(LADDER)))).session
    assert created.restart.mode == session_pb2.RESTART_MODE_ON_FAILURE
    assert set(created.restart.reasons) == LOST_REASONS
    planned = await house.sessions.PlanSession(pb.PlanSessionRequest(session=session(LADDER)))
    assert planned.session.restart == created.restart


async def test_a_policy_that_cannot_be_meant_is_refused_before_anything_is_asked_or_booked(
    house: BalancerHouse,
) -> None:
    text = f'{LADDER} restart {{ mode: RESTART_MODE_ALWAYS reasons: "DISK_FULL" }}'
    failure = await failure_of(house.sessions.CreateSession(pb.CreateSessionRequest(session=session(text))))
    assert failure.reason is Reason.INVALID_REQUEST
    assert [one.field for one in failure.violations] == ["session.restart.reasons[0]", "session.restart.mode"]
    assert not house.store.records
    assert not house.agent.probed
