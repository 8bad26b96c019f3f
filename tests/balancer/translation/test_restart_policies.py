"""What clients may say of restarts, what is filled in, and what sessions show of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from balancer.domain.restart import LOSSES_ONLY, PASSING_REASONS, RestartMode, RestartRule
from balancer.domain.session import Condition, Failure, LastRestart, SessionState
from balancer.domain.workload import CostFactors
from balancer.servicers.session_translation import (
    PreparedSession,
    planned_to_proto,
    prepare_recording,
    prepare_session,
    session_to_proto,
)
from fakes.session_records import session_record
from fakes.session_texts import draft
from fakes.virtual_time import START_TIME
from gpu_balancer.runtime.failures import RequestFailure
from gpu_balancer.v1 import media_pb2, session_pb2

WHERE = "session.restart"
FILE = 'uri: "/in.mp4"'
CAMERA = 'uri: "rtmp://camera.example/live/key"'
INGEST = "ingest {} declared_facts { width: 1280 height: 720 frame_rate { numerator: 30 denominator: 1 } }"
PLAYLIST = 'uri: "https://example.org/live.m3u8"'
RECORDING = 'recording { page { url: "https://example.org/" } }'
DEFAULT = RestartRule(
    mode=RestartMode.ALWAYS,
    max_restarts=9,
    first_backoff=timedelta(seconds=2),
    longest_backoff=timedelta(seconds=20),
    reasons=frozenset({"AGENT_LOST"}),
)


def transcode(source: str = FILE, rest: str = "") -> str:
    return f"transcode {{ input {{ {source} }} renditions {{ encode {{ height: 360 }} }} }} {rest}"


def policy(fields: str, source: str = CAMERA) -> str:
    return transcode(source, f"restart {{ {fields} }}")


def facts(*, media_format: str = "mov,mp4", seconds: int | None = 60) -> media_pb2.InputFacts:
    told = media_pb2.InputFacts(width=1280, height=720, video_codec=media_pb2.VIDEO_CODEC_H264, format=media_format)
    told.frame_rate.numerator, told.frame_rate.denominator = 30, 1
    if seconds is not None:
        told.duration.FromTimedelta(timedelta(seconds=seconds))
    return told


def prepared(text: str, rule: RestartRule = LOSSES_ONLY, seen: media_pb2.InputFacts | None = None) -> PreparedSession:
    return prepare_session(draft(text), seen or facts(), rule)


BAD = {
    "an unknown mode": (policy("mode: 9"), f"{WHERE}.mode"),
    "too many restarts": (policy("max_restarts: 1001"), f"{WHERE}.max_restarts"),
    "a rest backwards": (policy("first_backoff { seconds: -1 }"), f"{WHERE}.first_backoff"),
    "a first rest of two hours": (policy("first_backoff { seconds: 7200 }"), f"{WHERE}.first_backoff"),
    "a rest of two days": (policy("longest_backoff { seconds: 172800 }"), f"{WHERE}.longest_backoff"),
    "a longest rest that is shorter": (
        policy("first_backoff { seconds: 9 } longest_backoff { seconds: 8 }"),
        f"{WHERE}.longest_backoff",
    ),
    "a reason that is none": (policy('reasons: "KILLED" reasons: "RAIN"'), f"{WHERE}.reasons[1]"),
    "a reason that does not pass": (policy('reasons: "DISK_FULL"'), f"{WHERE}.reasons[0]"),
    "very many reasons": (policy('reasons: "KILLED" ' * 65), f"{WHERE}.reasons"),
    "a file for ever": (policy("mode: RESTART_MODE_ALWAYS", FILE), f"{WHERE}.mode"),
    "a file in real time for ever": (policy("mode: RESTART_MODE_ALWAYS", f"{FILE} native_rate: true"), f"{WHERE}.mode"),
    "a recording for ever": (f"{RECORDING} restart {{ mode: RESTART_MODE_ALWAYS }}", f"{WHERE}.mode"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_meant_is_refused_with_the_path_of_its_field(name: str) -> None:
    text, field = BAD[name]
    with pytest.raises(RequestFailure) as refused:
        draft(text)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_reason_that_does_not_pass_is_answered_with_those_that_do() -> None:
    with pytest.raises(RequestFailure) as refused:
        draft(policy('reasons: "DISK_FULL"'))
    assert all(reason in refused.value.violations[0].description for reason in PASSING_REASONS)


@pytest.mark.parametrize("source", [CAMERA, INGEST])
def test_a_live_input_may_be_awaited_for_ever(source: str) -> None:
    made = prepared(policy("mode: RESTART_MODE_ALWAYS", source))
    assert (made.restart.mode, made.resumable) == (RestartMode.ALWAYS, True)


def test_what_comes_over_http_may_be_awaited_for_ever_only_if_it_turns_out_to_be_live() -> None:
    asked = policy("mode: RESTART_MODE_ALWAYS", PLAYLIST)
    live = prepared(asked, seen=facts(media_format="hls", seconds=None))
    assert (live.restart.mode, live.resumable) == (RestartMode.ALWAYS, True)
    with pytest.raises(RequestFailure) as refused:
        prepared(asked, seen=facts(media_format="hls"))
    assert [violation.field for violation in refused.value.violations] == [f"{WHERE}.mode"]


@pytest.mark.parametrize(
    ("text", "resumable"),
    [(transcode(FILE), False), (transcode(f"{FILE} native_rate: true"), False), (transcode(CAMERA), True)],
)
def test_what_has_a_live_input_is_continued_and_everything_else_begins_anew(text: str, resumable: bool) -> None:
    assert prepared(text).resumable is resumable
    assert prepare_recording(draft(RECORDING)).resumable is True


def test_who_says_nothing_gets_what_the_settings_say() -> None:
    assert prepared(transcode(CAMERA), DEFAULT).restart == DEFAULT
    assert prepared(transcode(CAMERA)).restart == LOSSES_ONLY
    for made in (prepared(transcode(), DEFAULT), prepare_recording(draft(RECORDING), DEFAULT)):
        assert made.restart == replace(DEFAULT, mode=RestartMode.ON_FAILURE), "nothing there can be awaited"


def test_what_is_not_said_beside_a_mode_is_taken_from_the_settings_but_for_what_counts() -> None:
    made = prepared(policy("mode: RESTART_MODE_ON_FAILURE"), DEFAULT)
    assert made.restart == replace(DEFAULT, mode=RestartMode.ON_FAILURE, reasons=PASSING_REASONS)
    chosen = prepared(policy('max_restarts: 2 reasons: "KILLED"'), DEFAULT)
    assert chosen.restart == replace(DEFAULT, max_restarts=2, reasons=frozenset({"KILLED"}))


@pytest.mark.parametrize(
    ("fields", "first_s", "longest_s"),
    [
        ("first_backoff { seconds: 5 }", 5, 20),
        ("first_backoff { seconds: 50 }", 50, 50),
        ("first_backoff {}", 0, 20),
        ("longest_backoff { seconds: 1 }", 1, 1),
        ("first_backoff { seconds: 3 } longest_backoff { seconds: 4 }", 3, 4),
    ],
)
def test_a_rest_that_is_said_makes_the_other_one_follow(fields: str, first_s: int, longest_s: int) -> None:
    rule = prepared(policy(fields), DEFAULT).restart
    assert (rule.first_backoff, rule.longest_backoff) == (timedelta(seconds=first_s), timedelta(seconds=longest_s))


def test_sessions_and_plans_show_the_policy_that_holds() -> None:
    shown = planned_to_proto(prepared(transcode(CAMERA), DEFAULT)).restart
    assert shown.mode == session_pb2.RESTART_MODE_ALWAYS
    assert (shown.max_restarts, shown.first_backoff.seconds, shown.longest_backoff.seconds) == (9, 2, 20)
    assert list(shown.reasons) == ["AGENT_LOST"]
    all_of_them = planned_to_proto(prepared(policy("mode: RESTART_MODE_ON_FAILURE"))).restart
    assert not all_of_them.reasons, "which is how a client says it"
    never = planned_to_proto(prepared(policy("mode: RESTART_MODE_NEVER max_restarts: 5"))).restart
    assert never == session_pb2.RestartPolicy(mode=session_pb2.RESTART_MODE_NEVER)


def test_a_policy_that_was_shown_can_be_asked_for_again_and_means_the_same() -> None:
    for rule in (DEFAULT, LOSSES_ONLY, replace(DEFAULT, reasons=PASSING_REASONS)):
        shown = planned_to_proto(prepared(transcode(CAMERA), rule))
        given = draft(transcode(CAMERA))
        given.session.restart.CopyFrom(shown.restart)
        assert prepare_session(given, facts(), replace(LOSSES_ONLY, max_restarts=77)).restart == rule


def test_the_whole_time_of_a_session_is_the_shorter_of_its_bounds() -> None:
    both = transcode(f"{CAMERA} duration {{ seconds: 30 }}", "max_duration { seconds: 40 }")
    assert prepared(both).max_duration == timedelta(seconds=30)
    assert prepared(transcode(CAMERA, "max_duration { seconds: 40 }")).max_duration == timedelta(seconds=40)
    assert prepared(transcode(CAMERA)).max_duration is None


def test_a_retry_is_told_from_a_request_with_another_policy() -> None:
    plain, chosen = draft(transcode(CAMERA)), draft(policy("max_restarts: 2"))
    assert plain.digest != chosen.digest
    assert chosen.digest == draft(policy("max_restarts: 2")).digest


def test_a_session_tells_how_often_it_began_again_and_why_without_its_secrets() -> None:
    payload = prepared(transcode(CAMERA)).payload
    failure = Failure(reason="INPUT_LOST", message="Cannot read rtmp://camera.example/live/key: it broke off.")
    record = replace(
        session_record(payload=payload),
        restart_count=2,
        last_restart=LastRestart(
            attempt=1, device_id=session_record().device_id, failure=failure, restart_time=START_TIME
        ),
        conditions=(Condition(type="RESTARTING", message=f"It ended: {failure.message}", since_time=START_TIME),),
    )
    told = session_to_proto(record, CostFactors())
    assert told.restart_count == 2
    assert (told.last_restart.attempt, told.last_restart.device) == (1, "devices/cpu-0")
    assert told.last_restart.failure.reason == "INPUT_LOST"
    assert told.last_restart.restart_time.seconds == int(START_TIME.timestamp())
    assert "live/key" not in str(told)


def test_a_session_that_rests_tells_until_when() -> None:
    until = START_TIME + timedelta(seconds=4)
    waiting = session_record(payload=b"", state=SessionState.QUEUED, not_before_time=until)
    assert session_to_proto(waiting, CostFactors()).queue.not_before_time.seconds == int(until.timestamp())
    rested = replace(waiting, not_before_time=None)
    assert not session_to_proto(rested, CostFactors()).queue.HasField("not_before_time")
