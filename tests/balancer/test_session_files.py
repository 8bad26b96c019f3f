"""What a session left is found on every device where it was, its newest files first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import EndedAttempt, Failure, LastRestart, SessionRecord, SessionState
from balancer.session_files import SessionFiles
from fakes.agent_media import FakeAgentMedia
from fakes.session_records import session_record
from fakes.virtual_time import START_TIME
from gpu_balancer.runtime.failures import Reason, RequestFailure

OLD, MIDDLE, NEW = (DeviceId(name) for name in ("cpu-0", "cpu-1", "cpu-2"))
ENDED = (
    EndedAttempt(attempt=1, device_id=OLD, folder="/1"),
    EndedAttempt(attempt=2, device_id=MIDDLE, folder="/2"),
    EndedAttempt(attempt=3, device_id=OLD, folder="/3"),
)
LAST = LastRestart(
    attempt=3,
    device_id=OLD,
    failure=Failure(reason="KILLED", message="It was killed."),
    restart_time=START_TIME + timedelta(minutes=1),
)
PLACED = session_record(1, attempt=4, device_id=NEW, ended_attempts=ENDED, last_restart=LAST)
RESTING = session_record(
    1, state=SessionState.QUEUED, attempt=3, device_id=None, ended_attempts=ENDED, last_restart=LAST
)
SESSION = PLACED.id


class Places:
    """Three devices with files of one session."""

    def __init__(self, record: SessionRecord = PLACED) -> None:
        self.agents = {device_id: FakeAgentMedia(device_id) for device_id in (OLD, MIDDLE, NEW)}
        self.agents[OLD].artifacts = {"one.mp4": b"old one", "three.mp4": b"old three"}
        self.agents[MIDDLE].artifacts = {"one.mp4": b"middle one", "two.mp4": b"middle two"}
        self.agents[NEW].artifacts = {"two.mp4": b"new two", "four.mp4": b"new four"}
        self.files = SessionFiles(lambda _: record, self.agents)

    async def read(self, path: str) -> bytes:
        return b"".join([piece.data async for piece in self.files.artifact(SessionId(SESSION), path)])

    async def sizes(self) -> dict[str, int]:
        return {artifact.path: artifact.size_bytes for artifact in await self.files.artifacts(SESSION)}


async def test_files_of_earlier_attempts_stand_beside_the_present_ones_and_the_newest_of_a_name_counts() -> None:
    places = Places()
    listed = await places.files.artifacts(SESSION)
    assert [artifact.path for artifact in listed] == ["four.mp4", "one.mp4", "three.mp4", "two.mp4"]
    assert all(artifact.http_path.endswith(artifact.path) for artifact in listed)
    # Attempt 3 was on the oldest device again.
    assert [await places.read(artifact.path) for artifact in listed] == [
        b"new four",
        b"old one",
        b"old three",
        b"new two",
    ]
    assert await places.sizes() == {artifact.path: len(await places.read(artifact.path)) for artifact in listed}


async def test_what_a_lost_device_has_is_left_out_and_the_rest_is_listed() -> None:
    places = Places()
    places.agents[OLD].reachable = False
    del places.agents[MIDDLE]
    assert (await places.sizes()).keys() == {"two.mp4", "four.mp4"}
    assert await places.read("four.mp4") == b"new four"


async def test_no_older_file_stands_in_for_one_that_cannot_be_seen_now() -> None:
    places = Places()
    places.agents[NEW].reachable = False
    for asked in (places.sizes(), places.read("two.mp4")):
        with pytest.raises(RequestFailure) as refused:
            await asked
        assert refused.value.reason is Reason.AGENT_UNREACHABLE


async def test_a_session_whose_last_attempt_was_refused_has_what_earlier_ones_left() -> None:
    places = Places()
    places.agents[NEW].media_failure = RequestFailure(reason=Reason.SESSION_NOT_FOUND, message="Cannot find it.")
    assert (await places.sizes()).keys() == {"one.mp4", "two.mp4", "three.mp4"}
    assert await places.read("two.mp4") == b"middle two"
    with pytest.raises(RequestFailure) as refused:
        await places.read("four.mp4")
    assert refused.value.reason is Reason.ARTIFACT_NOT_FOUND
    alone = Places(session_record(1, device_id=NEW))
    alone.agents[NEW].media_failure = places.agents[NEW].media_failure
    assert await alone.sizes() == {}
    with pytest.raises(RequestFailure) as refused:
        await alone.read("four.mp4")
    assert refused.value.reason is Reason.ARTIFACT_NOT_FOUND


async def test_a_session_that_was_to_begin_anew_and_did_not_has_what_its_earlier_attempt_left() -> None:
    refused = session_record(1, state=SessionState.FAILED, attempt=3, device_id=NEW, earlier_device_ids=(OLD, MIDDLE))
    places = Places(refused)
    places.agents[NEW].media_failure = RequestFailure(reason=Reason.SESSION_NOT_FOUND, message="Cannot find it.")
    assert (await places.sizes()).keys() == {"one.mp4", "two.mp4", "three.mp4"}
    assert await places.read("one.mp4") == b"middle one"
    began = Places(replace(refused, running_time=START_TIME))
    began.agents[NEW].media_failure = places.agents[NEW].media_failure
    assert await began.sizes() == {}, "its own attempt takes their place"


async def test_what_nobody_has_is_not_found() -> None:
    with pytest.raises(RequestFailure) as refused:
        await Places().read("five.mp4")
    assert refused.value.reason is Reason.ARTIFACT_NOT_FOUND


async def test_a_session_that_waits_to_begin_again_has_its_files_and_its_last_log() -> None:
    places = Places(RESTING)
    assert (await places.sizes()).keys() == {"one.mp4", "two.mp4", "three.mp4"}
    assert await places.read("two.mp4") == b"middle two"
    places.agents[OLD].log = ["it was killed"]
    log = places.files.log(SESSION, tail_lines=None, follow=False)
    assert [lines async for lines in log] == [["it was killed"]]
    assert places.agents[OLD].logs_read == [3]


async def test_a_log_that_is_followed_goes_on_with_the_attempts_that_come() -> None:
    """Whether or not it had begun when it was asked for; an attempt that begins twice is read once."""
    places = Places(RESTING)
    first = replace(PLACED, state=SessionState.STARTING)
    began = replace(first, state=SessionState.RUNNING, running_time=START_TIME)
    elsewhere = replace(began, attempt=5, device_id=MIDDLE)
    waiting = replace(began, state=SessionState.QUEUED, device_id=None, running_time=None)
    ended = replace(elsewhere, state=SessionState.FAILED, attempt=6, device_id=NEW, running_time=None)

    async def changes(_: SessionId) -> AsyncIterator[SessionRecord]:
        for record in (RESTING, first, began, began, waiting, elsewhere, waiting, ended):
            yield record

    files = SessionFiles(lambda _: RESTING, places.agents, changes=changes)
    for name, agent in places.agents.items():
        agent.log, agent.follows_for_ever = [f"on {name}"], False
    followed = [line async for lines in files.log(SESSION, tail_lines=None, follow=True) for line in lines]
    assert followed == ["on cpu-0", "on cpu-2", "on cpu-1", "on cpu-2"]
    assert [agent.logs_read for agent in places.agents.values()] == [[3], [5], [4, 6]]
    plain = [line async for lines in files.log(SESSION, tail_lines=None, follow=False) for line in lines]
    assert plain == ["on cpu-0"]


async def test_a_session_that_was_never_placed_has_neither_files_nor_log() -> None:
    waiting = session_record(1, state=SessionState.QUEUED, attempt=0, device_id=None)
    places = Places(waiting)
    assert await places.sizes() == {}
    assert [lines async for lines in places.files.log(SESSION, tail_lines=None, follow=False)] == []
    with pytest.raises(RequestFailure) as refused:
        await places.read("one.mp4")
    assert refused.value.reason is Reason.ARTIFACT_NOT_FOUND
