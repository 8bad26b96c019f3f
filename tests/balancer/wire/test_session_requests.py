"""Asking for sessions, over a real wire: what is refused, what is asked of agents, what is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.text_format import Parse

from balancer.admission import Admission
from balancer.decision_text import decision_to_text
from balancer.domain.device import DeviceState
from balancer.domain.ids import DeviceId
from balancer.domain.session import SessionRecord
from balancer.ports.session_store import StoreFullError
from balancer.servicers import session_servicer
from fakes.agent_media import FULL_HD
from fakes.balancer_house import BalancerHouse, balancer_house, failure_of
from fakes.session_texts import LADDER, session
from fakes.virtual_time import START_TIME
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.v1 import media_pb2, placement_pb2, session_pb2
from gpu_balancer.v1 import session_service_pb2 as pb

SPEC = "session.transcode"
INGEST = """
transcode {
  input { ingest {} declared_facts { width: 1280 height: 720 frame_rate { numerator: 30 denominator: 1 } } }
  renditions { encode { height: 360 } }
}
"""


def create(text: str = LADDER, request_id: str = "") -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(session=session(text), request_id=request_id)


def plan(text: str = LADDER) -> pb.PlanSessionRequest:
    return pb.PlanSessionRequest(session=session(text))


def declared(text: str = LADDER) -> pb.CreateSessionRequest:
    request = create(text)
    request.session.transcode.input.declared_facts.CopyFrom(FULL_HD)
    return request


def nothing_was_done(house: BalancerHouse) -> bool:
    """Whether no session was kept, booked or started, and no agent was asked to look at anything."""
    return not (
        house.store.records
        or house.spawned
        or house.agent.probed
        or house.agent.checked
        or house.engine.ledger.session_count(house.agent.device_id)
    )


async def test_a_session_is_looked_at_placed_and_answered_once_it_is_durable(house: BalancerHouse) -> None:
    answer = (await house.sessions.CreateSession(create())).session
    assert answer.name.removeprefix("sessions/") in house.store.records
    assert answer.state == session_pb2.SESSION_STATE_STARTING
    assert (answer.device, answer.attempt) == ("devices/cpu-0", 1)
    assert answer.input_facts == FULL_HD
    assert [rendition.id for rendition in answer.transcode.renditions] == ["1080p", "720p", "480p"]
    assert answer.priority == session_pb2.PRIORITY_BATCH
    assert answer.workload.decode_pixels_per_second == 1920 * 1080 * 25
    assert answer.workload.cost_pixels_per_second > 0
    assert [source.uri for source in house.agent.probed] == ["/srv/media/in.mp4"]


BAD = {
    "odd size": (LADDER.replace("1280", "1279"), f"{SPEC}.renditions[1].encode.width"),
    "0x0": (LADDER.replace("width: 1280 height: 720", "width: 0 height: 0"), f"{SPEC}.renditions[1].encode.height"),
    "100000x100000": (
        LADDER.replace("width: 1280 height: 720", "width: 100000 height: 100000"),
        f"{SPEC}.renditions[1].encode.width",
    ),
    "absurd rate": (
        LADDER.replace("height: 720", "height: 720 frame_rate { numerator: 90000 denominator: 1 }"),
        f"{SPEC}.renditions[1].encode.frame_rate",
    ),
    "negative interval": (
        LADDER.replace("height: 720", "height: 720 keyframe_interval { seconds: -1 }"),
        f"{SPEC}.renditions[1].encode.keyframe_interval",
    ),
    "unknown codec": (LADDER.replace("height: 720", "height: 720 codec: 42"), f"{SPEC}.renditions[1].encode.codec"),
    "traversal": (
        'transcode { input { uri: "/i" } renditions { encode {} } outputs { file { path: "../../etc/x.mp4" } } }',
        f"{SPEC}.outputs[0].file.path",
    ),
    "relative input": ('transcode { input { uri: "in.mp4" } renditions { encode {} } }', f"{SPEC}.input.uri"),
    "another protocol": ('transcode { input { uri: "data:," } renditions { encode {} } }', f"{SPEC}.input.uri"),
    "nothing": ("", SPEC),
}


@pytest.mark.parametrize(("text", "field"), BAD.values(), ids=BAD.keys())
async def test_a_bad_request_is_refused_by_its_fields_before_anybody_is_asked(
    house: BalancerHouse, text: str, field: str
) -> None:
    for call in (house.sessions.CreateSession(create(text)), house.sessions.PlanSession(plan(text))):
        failure = await failure_of(call)
        assert failure.reason is Reason.INVALID_REQUEST
        assert field in [violation.field for violation in failure.violations]
    assert nothing_was_done(house)


async def test_an_unknown_profile_names_the_known_ones(house: BalancerHouse) -> None:
    failure = await failure_of(
        house.sessions.CreateSession(create('transcode { input { uri: "/i" } profile: "nope" }'))
    )
    assert failure.reason is Reason.PROFILE_UNKNOWN
    assert "ladder-h264" in failure.message
    assert nothing_was_done(house)


async def test_a_long_or_unprintable_request_id_is_refused(house: BalancerHouse) -> None:
    for request_id in ("x" * 129, "a\nb"):
        failure = await failure_of(house.sessions.CreateSession(create(request_id=request_id)))
        assert failure.violations[0].field == "request_id"
    assert nothing_was_done(house)


async def test_an_oversized_message_is_refused_by_the_server(house: BalancerHouse) -> None:
    request = create()
    request.session.labels["x"] = "y" * (2 * 1024 * 1024)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await house.sessions.CreateSession(request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert nothing_was_done(house)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.INPUT_NOT_FOUND,
        Reason.INPUT_NOT_ALLOWED,
        Reason.INPUT_UNREADABLE,
        Reason.INPUT_NO_VIDEO,
        Reason.INPUT_UNREACHABLE,
    ],
)
async def test_what_an_agent_says_of_an_input_passes_on_with_the_clients_path(
    house: BalancerHouse, reason: Reason
) -> None:
    house.agent.probe_failure = RequestFailure(
        reason=reason, message="Cannot read it.", violations=(Violation(field="input.uri", description="is bad"),)
    )
    failure = await failure_of(house.sessions.CreateSession(create()))
    assert failure.reason is reason
    assert [violation.field for violation in failure.violations] == [f"{SPEC}.input.uri"]
    assert not house.store.records
    assert not house.spawned


@pytest.mark.parametrize("reason", [Reason.OUTPUT_NOT_ALLOWED, Reason.OUTPUT_EXISTS, Reason.OUTPUT_UNWRITABLE])
async def test_outputs_beyond_the_artifacts_are_checked_by_an_agent(house: BalancerHouse, reason: Reason) -> None:
    text = """
    transcode {
      input { uri: "/in.mp4" } renditions { encode {} }
      outputs { file { path: "mine.mp4" } } outputs { file { path: "/srv/out/x.mp4" } }
    }
    """
    house.agent.output_failure = RequestFailure(
        reason=reason, message="Cannot.", violations=(Violation(field="outputs[1].file.path", description="no"),)
    )
    failure = await failure_of(house.sessions.CreateSession(create(text)))
    assert failure.reason is reason
    assert [violation.field for violation in failure.violations] == [f"{SPEC}.outputs[1].file.path"]
    assert [output.file.path for output in house.agent.checked] == ["mine.mp4", "/srv/out/x.mp4"]
    assert not house.store.records


async def test_nobody_is_asked_about_artifacts(house: BalancerHouse) -> None:
    await house.sessions.CreateSession(create())
    assert not house.agent.checked


async def test_declared_facts_spare_the_look_at_the_input(house: BalancerHouse) -> None:
    answer = (await house.sessions.CreateSession(declared())).session
    assert not house.agent.probed
    assert answer.input_facts == FULL_HD


async def test_what_was_declared_completes_what_an_agent_saw(house: BalancerHouse) -> None:
    request = create()
    request.session.transcode.input.declared_facts.chroma = "4:2:2"
    request.session.transcode.input.declared_facts.width = 640
    request.session.transcode.input.declared_facts.height = 360
    facts = (await house.sessions.CreateSession(request)).session.input_facts
    assert (facts.width, facts.height, facts.chroma) == (1920, 1080, "4:2:2")


async def test_an_ingest_is_taken_at_its_word_and_told_where_to_publish_to_its_holder_alone(
    house: BalancerHouse,
) -> None:
    house.agent.ingest_url = "rtmp://127.0.0.1:19350/live/key"
    name = (await house.sessions.CreateSession(create(INGEST))).session.name
    assert not house.agent.probed
    stream = house.sessions.WatchSession(pb.WatchSessionRequest(name=name))
    async for change in stream:
        if change.session.ingest_url:
            break
    stream.cancel()
    got = await house.sessions.GetSession(pb.GetSessionRequest(name=name))
    assert got.session.ingest_url == house.agent.ingest_url
    listed = await house.sessions.ListSessions(pb.ListSessionsRequest())
    assert [one.ingest_url for one in listed.sessions] == [""]
    watched = house.sessions.WatchSessions(pb.WatchSessionsRequest())
    assert (await anext(aiter(watched))).session.ingest_url == ""
    watched.cancel()
    stopped = await house.sessions.StopSession(pb.StopSessionRequest(name=name))
    assert stopped.session.ingest_url == ""


async def test_an_agent_that_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    # A second is allowed for the way to the agent and back; a millisecond of it is left.
    async with balancer_house(tmp_path, probe_timeout=timedelta(milliseconds=-999)) as house:
        house.agent.probe_gate.clear()
        failure = await failure_of(house.sessions.CreateSession(create()))
        assert failure.reason is Reason.AGENT_UNREACHABLE
        assert not house.store.records


async def test_another_agent_is_asked_when_one_is_away(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 100, "cpu-1": 100}) as house:
        house.agent.reachable = False
        await house.sessions.CreateSession(create())
        assert house.agents[DeviceId("cpu-1")].probed


async def test_without_an_agent_that_answers_the_client_is_told_so(house: BalancerHouse) -> None:
    house.agent.reachable = False
    assert (await failure_of(house.sessions.CreateSession(create()))).reason is Reason.AGENT_UNREACHABLE
    house.registry.mark_unreachable(house.agent.device_id, "It fell silent.")
    failure = await failure_of(house.sessions.CreateSession(create()))
    assert failure.reason is Reason.NO_DEVICE_READY
    assert failure.retry_after is not None


async def test_a_full_house_refuses_with_every_devices_refusal_and_when_to_come_again(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 3, "cpu-1": 3}) as house:
        big = declared(LADDER.replace("transcode {", "priority: PRIORITY_LIVE transcode {"))
        for _ in range(2):
            await house.sessions.CreateSession(big)
        records, spawned = dict(house.store.records), list(house.spawned)
        failure = await failure_of(house.sessions.CreateSession(big))
        assert failure.reason is Reason.NO_CAPACITY
        assert failure.retry_after is not None
        (placement,) = failure.details
        assert isinstance(placement, placement_pb2.Placement)
        assert [verdict.device for verdict in placement.verdicts] == ["devices/cpu-0", "devices/cpu-1"]
        for verdict in placement.verdicts:
            assert verdict.refusal.rule == "CAPACITY"
            assert verdict.refusal.needed > verdict.refusal.available
        assert house.store.records.keys() == records.keys()
        assert list(house.spawned) == spawned
        assert house.tracer.abandoned == [(house.tracer.begun[2], "NO_CAPACITY")]


async def test_what_no_device_can_do_is_not_to_be_tried_again(house: BalancerHouse) -> None:
    request = declared(LADDER.replace("width: 1920", "codec: VIDEO_CODEC_AV1 width: 1920"))
    failure = await failure_of(house.sessions.CreateSession(request))
    assert failure.reason is Reason.NO_CAPABLE_DEVICE
    assert failure.retry_after is None
    assert not house.store.records


async def test_a_full_disk_admits_nothing(house: BalancerHouse) -> None:
    house.store.failure = StoreFullError("no room")
    failure = await failure_of(house.sessions.CreateSession(declared()))
    assert failure.reason is Reason.DISK_FULL
    assert not house.spawned
    assert house.tracer.abandoned[0][1] == "DISK_FULL"


async def test_the_same_request_gives_the_same_session_though_its_input_has_gone_since(house: BalancerHouse) -> None:
    text = """
    transcode {
      input { uri: "/in.mp4" } renditions { encode {} } outputs { file { path: "/srv/out/x.mp4" } }
    }
    """
    first = await house.sessions.CreateSession(create(text, request_id="once"))
    house.agent.probe_failure = RequestFailure(reason=Reason.INPUT_NOT_FOUND, message="gone")
    house.agent.output_failure = RequestFailure(reason=Reason.OUTPUT_EXISTS, message="there")
    again = await house.sessions.CreateSession(create(text, request_id="once"))
    assert again.session.name == first.session.name
    assert len(house.store.records) == 1


async def test_a_try_that_finds_the_outputs_of_another_one_taken_gives_its_session(house: BalancerHouse) -> None:
    """It looked at its input while the other was admitted and begun."""
    text = """
    transcode {
      input { uri: "/in.mp4" } renditions { encode {} } outputs { file { path: "/srv/out/x.mp4" } }
    }
    """
    held, house.agent.probe_gate = house.agent.probe_gate, asyncio.Event()
    slow = asyncio.ensure_future(house.sessions.CreateSession(create(text, request_id="once")))
    async with asyncio.timeout(30):
        while not house.agent.probed:  # noqa: ASYNC110 - over a real wire
            await asyncio.sleep(0.01)
    house.agent.probe_gate, slow_gate = held, house.agent.probe_gate
    first = await house.sessions.CreateSession(create(text, request_id="once"))
    house.agent.output_failure = RequestFailure(reason=Reason.OUTPUT_EXISTS, message="there")
    slow_gate.set()
    assert (await slow).session.name == first.session.name
    assert (await failure_of(house.sessions.CreateSession(create(text, request_id="another")))).reason is (
        Reason.OUTPUT_EXISTS
    )


async def test_the_same_request_gives_the_same_session_where_nobody_is_asked(house: BalancerHouse) -> None:
    request = declared()
    request.request_id = "once"
    first, again = await asyncio.gather(house.sessions.CreateSession(request), house.sessions.CreateSession(request))
    assert first.session.name == again.session.name
    assert [reason for _, reason in house.tracer.abandoned] == ["REQUEST_REPEATED"]


@pytest.mark.parametrize("look", [True, False], ids=["after a look", "as declared"])
async def test_a_request_id_is_not_good_for_another_session(house: BalancerHouse, look: bool) -> None:
    first, other = (create(), create()) if look else (declared(), declared())
    first.request_id = other.request_id = "once"
    other.session.labels["x"] = "y"
    await house.sessions.CreateSession(first)
    assert (await failure_of(house.sessions.CreateSession(other))).reason is Reason.REQUEST_ID_REUSED
    assert len(house.store.records) == 1


async def test_a_client_that_hangs_up_does_not_undo_an_admission(house: BalancerHouse) -> None:
    house.store.gate.clear()
    call = house.sessions.CreateSession(declared())
    watch = house.sessions.WatchSessions(pb.WatchSessionsRequest())
    changes = aiter(watch)
    assert (await anext(changes)).type == pb.SESSION_CHANGE_TYPE_SYNCED
    await house.tracer.asked.wait()
    assert house.engine.ledger.session_count(house.agent.device_id) == 1
    call.cancel()
    house.store.gate.set()
    change = await anext(changes)
    assert change.type == pb.SESSION_CHANGE_TYPE_UPDATED
    assert len(house.store.records) == 1
    watch.cancel()


async def test_a_plan_tells_where_why_and_how_without_doing_it(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 1000, "cpu-1": 1}) as house:
        text = """
        priority: PRIORITY_LIVE
        transcode {
          input { uri: "https://user:hunter2secret@host/in.mp4" } renditions { encode {} }
          outputs { push { url: "rtmp://live.example/app/hunter2secret" } }
        }
        """
        answer = await house.sessions.PlanSession(plan(text))
        assert answer.placement.device == "devices/cpu-0"
        assert answer.placement.policy == "least_weighted_load"
        assert answer.placement.verdicts[0].WhichOneof("verdict") == "score"
        assert answer.placement.verdicts[1].refusal.rule == "CAPACITY"
        assert list(answer.argv) == ["ffmpeg", "-i", "https://***@host/in.mp4"]
        assert answer.session.input_facts == FULL_HD
        assert answer.session.name == ""
        assert "hunter2secret" not in str(answer)
        assert house.agent.checked
        assert house.agent.described[0].transcode.input.uri == "https://user:hunter2secret@host/in.mp4"
        assert not house.store.records
        assert not house.spawned


async def test_a_plan_that_no_device_takes_says_why_and_has_no_command(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 1}) as house:
        answer = await house.sessions.PlanSession(plan("priority: PRIORITY_LIVE " + LADDER))
        assert answer.placement.device == ""
        assert answer.placement.verdicts[0].refusal.rule == "CAPACITY"
        assert not answer.argv
        assert not house.agent.described


async def test_a_closed_devices_agent_still_looks_at_inputs_for_a_plan(house: BalancerHouse) -> None:
    house.registry.set_cordoned(house.agent.device_id, cordoned=True)
    assert house.registry.views()[0].state is DeviceState.CORDONED
    answer = await house.sessions.PlanSession(plan())
    assert answer.placement.verdicts[0].refusal.rule == "NOT_READY"


async def test_a_session_carries_the_trace_that_was_begun_for_it(house: BalancerHouse) -> None:
    answer = await house.sessions.CreateSession(create())
    assert answer.session.trace_id == f"{1:032x}"
    assert house.tracer.abandoned == []


async def test_a_plan_tells_what_the_session_would_take_of_each_device(house: BalancerHouse) -> None:
    (verdict,) = (await house.sessions.PlanSession(plan())).placement.verdicts
    [cores] = [need for need in verdict.needs if not need.host]
    assert cores.dimension == placement_pb2.DIMENSION_CORES
    assert 0 == cores.used < cores.needed < cores.bookable == 900_000_000


async def test_a_plan_over_very_many_devices_tells_those_that_mattered_and_counts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_servicer, "_MAX_PLANNED_VERDICTS", 40)
    crowd = {f"cpu-{number:03}": 1 for number in range(60)}
    async with balancer_house(tmp_path, devices={**crowd, "large": 100}) as house:
        placement = (await house.sessions.PlanSession(plan(f"priority: PRIORITY_LIVE {LADDER}"))).placement
        assert placement.device == "devices/large"
        assert placement.device in [verdict.device for verdict in placement.verdicts]
        assert len(placement.verdicts) < 40
        (omitted,) = placement.omitted_verdicts
        assert (omitted.rule, omitted.device_count) == ("CAPACITY", 61 - len(placement.verdicts))


async def test_the_engine_hears_how_long_a_session_may_wait_and_whether_it_gives_way(
    house: BalancerHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    admissions: list[Admission] = []
    admit = house.engine.admit

    async def noted(admission: Admission) -> SessionRecord:
        admissions.append(admission)
        return await admit(admission)

    monkeypatch.setattr(house.engine, "admit", noted)
    answer = await house.sessions.CreateSession(create(LADDER + "max_wait { seconds: 60 } preemptible: true"))
    await house.sessions.CreateSession(create())
    assert [(one.max_wait, one.preemptible) for one in admissions] == [(timedelta(minutes=1), True), (None, False)]
    assert (answer.session.max_wait.seconds, answer.session.preemptible) == (60, True)


async def test_a_session_is_explained_by_every_decision_that_was_made_for_it(house: BalancerHouse) -> None:
    name = (await house.sessions.CreateSession(create())).session.name
    (session_id,) = house.store.records
    decision = house.engine.plan(house.store.records[session_id].workload)
    lines = [decision_to_text(decision, attempt=number, decision_time=START_TIME) for number in (1, 2)]
    house.store.decisions[session_id] = [lines[0], '{"v": 999}', lines[1]]
    placements = (await house.sessions.ExplainSession(pb.ExplainSessionRequest(name=name))).placements
    assert [one.attempt for one in placements] == [1, 2], "a line that nobody can read costs that line alone"
    assert {one.decision_time.ToDatetime(UTC) for one in placements} == {START_TIME}
    assert placements[0].device == "devices/cpu-0"
    assert placements[0].verdicts[0].needs


async def test_nobody_explains_a_session_that_is_not_there(house: BalancerHouse) -> None:
    failure = await failure_of(house.sessions.ExplainSession(pb.ExplainSessionRequest(name="sessions/nope")))
    assert failure.reason is Reason.SESSION_NOT_FOUND


async def test_an_upload_must_be_there_and_whole(house: BalancerHouse) -> None:
    text = 'transcode { input { upload: "uploads/nope" } renditions { encode {} } }'
    failure = await failure_of(house.sessions.CreateSession(create(text)))
    assert failure.reason is Reason.UPLOAD_NOT_FOUND
    assert failure.violations[0].field == f"{SPEC}.input.upload"
    part = await house.uploads.create(file_name="a.mp4", size_bytes=5, request_id=None)
    failure = await failure_of(house.sessions.CreateSession(create(text.replace("uploads/nope", part.name))))
    assert failure.reason is Reason.UPLOAD_INCOMPLETE
    assert failure.violations[0].field == f"{SPEC}.input.upload"
    assert nothing_was_done(house)


def test_facts_of_the_fake_are_complete() -> None:
    """Otherwise `declared` would not spare the look."""
    assert Parse(str(FULL_HD), media_pb2.InputFacts()).video_codec


@pytest.mark.parametrize("method", ["CreateSession", "PlanSession"])
async def test_three_hundred_thousand_renditions_are_refused(house: BalancerHouse, method: str) -> None:
    kind = {"CreateSession": pb.CreateSessionRequest, "PlanSession": pb.PlanSessionRequest}[method]
    request = kind(session=session(LADDER))
    request.session.transcode.renditions.extend([media_pb2.Rendition()] * 300_000)
    failure = await failure_of(getattr(house.sessions, method)(request))
    assert failure.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in failure.violations] == ["session.transcode.renditions"]
