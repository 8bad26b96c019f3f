"""Recordings asked for, seen and controlled over a real wire; their agents live in the test."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, timedelta
from pathlib import Path

import pytest

from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.session import Condition, Failure, MeasuredUse, Progress
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.simulation.trace_lines import parse_trace
from fakes.agent_client import RECORDS, SNAPSHOT
from fakes.agent_media import WRITTEN
from fakes.balancer_house import BalancerHouse, balancer_house, failure_of
from fakes.session_texts import LADDER, session
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.v1 import device_service_pb2, placement_pb2, recording_pb2, session_pb2
from gpu_balancer.v1 import session_service_pb2 as pb

PAGE = 'recording { page { url: "https://example.org/" } %s }'
RUNNING = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING)
DONE = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.COMPLETED)
PAUSE, RESUME = "PauseSession", "ResumeSession"


def create(inside: str = "", around: str = "") -> pb.CreateSessionRequest:
    return pb.CreateSessionRequest(session=session(PAGE % inside + around))


async def created(house: BalancerHouse, inside: str = "", around: str = "") -> session_pb2.Session:
    return (await house.sessions.CreateSession(create(inside, around))).session


async def running(house: BalancerHouse, inside: str = "", around: str = "") -> session_pb2.Session:
    """Creates a recording and lets it run."""
    made = await created(house, inside, around)
    await house.engine.apply(id_of(made), RUNNING)
    return made


def id_of(made: session_pb2.Session) -> SessionId:
    return SessionId(made.name.removeprefix("sessions/"))


async def told(house: BalancerHouse, made: session_pb2.Session) -> session_pb2.Session:
    return (await house.sessions.GetSession(pb.GetSessionRequest(name=made.name))).session


async def extend(house: BalancerHouse, made: session_pb2.Session, seconds: int | None) -> session_pb2.Session:
    request = pb.ExtendSessionRequest(name=made.name)
    if seconds is not None:
        request.max_duration.seconds = seconds
    return (await house.sessions.ExtendSession(request)).session


# ------------------------------------------------------------------------------------------------------------ asking


async def test_a_recording_is_placed_without_asking_anybody_what_it_is(house: BalancerHouse) -> None:
    made = await created(house)
    assert made.state == session_pb2.SESSION_STATE_STARTING
    assert made.priority == session_pb2.PRIORITY_LIVE
    assert made.recording.renditions[0].id == "720p"
    assert made.workload.capture.browser
    assert made.workload.decode_pixels_per_second == 0
    assert house.agent.probed == house.agent.checked == []
    assert house.engine.ledger.used(house.agent.device_id)[Dimension.DISPLAYS] == 1
    explained = await house.sessions.ExplainSession(pb.ExplainSessionRequest(name=made.name))
    assert explained.placements[0].workload == made.workload


async def test_a_mistake_is_refused_before_anything_is_done(house: BalancerHouse) -> None:
    failure = await failure_of(house.sessions.CreateSession(create("capture { width: 0 }", "priority: PRIORITY_BATCH")))
    assert failure.reason is Reason.INVALID_REQUEST
    assert {one.field for one in failure.violations} == {"session.recording.capture.width", "session.priority"}
    assert not house.store.records


async def test_outputs_beyond_the_artifacts_are_checked_by_an_agent(house: BalancerHouse) -> None:
    house.agent.output_failure = RequestFailure(
        reason=Reason.OUTPUT_NOT_ALLOWED,
        message="Cannot write there.",
        violations=(Violation(field="outputs[0].file.path", description="is outside the roots"),),
    )
    failure = await failure_of(house.sessions.CreateSession(create('outputs { file { path: "/etc/x.mp4" } }')))
    assert [one.field for one in failure.violations] == ["session.recording.outputs[0].file.path"]


async def test_a_watermark_is_looked_at_by_an_agent(house: BalancerHouse) -> None:
    await created(house, 'watermark { path: "/srv/media/logo.png" }')
    assert [given.uri for given in house.agent.probed] == ["/srv/media/logo.png"]
    house.agent.probe_failure = RequestFailure(
        reason=Reason.INPUT_NOT_FOUND,
        message="Cannot find the input.",
        violations=(Violation(field="input.uri", description="does not exist"),),
    )
    failure = await failure_of(house.sessions.CreateSession(create('watermark { path: "/srv/media/none.png" }')))
    assert failure.reason is Reason.INPUT_NOT_FOUND
    assert [one.field for one in failure.violations] == ["session.recording.watermark.path"]


async def test_a_watermark_without_a_picture_is_refused(house: BalancerHouse) -> None:
    house.agent.facts = house.agent.facts.__class__(audio_codec="aac")
    failure = await failure_of(house.sessions.CreateSession(create('watermark { path: "/srv/media/sound.png" }')))
    assert failure.reason is Reason.INPUT_NO_VIDEO
    assert [one.field for one in failure.violations] == ["session.recording.watermark.path"]


async def test_the_same_request_gives_the_same_recording_though_its_watermark_has_gone(house: BalancerHouse) -> None:
    request = create('watermark { path: "/srv/media/logo.png" }')
    request.request_id = "once"
    first = (await house.sessions.CreateSession(request)).session
    house.agent.probe_failure = RequestFailure(reason=Reason.INPUT_NOT_FOUND, message="Cannot find it.")
    assert (await house.sessions.CreateSession(request)).session.name == first.name


async def test_a_device_that_cannot_record_refuses_with_its_agents_reason(house: BalancerHouse) -> None:
    house.agent.recording = replace(RECORDS, available=False, fault_message="Cannot record: Xvfb is missing.")
    house.registry.update_agent(replace(house.agent.report(), capabilities=house.registry.views()[0].capabilities))
    failure = await failure_of(house.sessions.CreateSession(create()))
    assert failure.reason is Reason.NO_CAPABLE_DEVICE
    assert "Xvfb is missing" in failure.message
    (placement,) = failure.details
    assert isinstance(placement, placement_pb2.Placement)
    assert placement.verdicts[0].refusal.rule == "CAPABILITY"


async def test_a_plan_tells_what_a_recording_would_take(house: BalancerHouse) -> None:
    plan = await house.sessions.PlanSession(pb.PlanSessionRequest(session=session(PAGE % "")))
    needed = {need.dimension for need in plan.placement.verdicts[0].needs if not need.host}
    assert {placement_pb2.DIMENSION_CORES, placement_pb2.DIMENSION_DISPLAYS} <= needed
    assert plan.session.recording.outputs[0].file.path == "recording.mp4"
    assert house.agent.described[0].WhichOneof("spec") == "recording"
    assert not house.store.records


async def test_two_cores_take_one_recording_and_refuse_the_next(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 2}) as house:
        await created(house)
        failure = await failure_of(house.sessions.CreateSession(create()))
        assert failure.reason is Reason.NO_CAPACITY


async def test_devices_tell_what_they_record(house: BalancerHouse) -> None:
    house.agent.ready_display_count = 3
    views = house.registry.views()
    house.registry.update_agent(replace(house.agent.report(), identity=views[0].identity))
    house.registry.update_agent(
        replace(house.agent.report(), identity=views[0].identity, capabilities=views[0].capabilities)
    )
    before = house.registry.views()
    house.agent.ready_display_count = 2
    house.registry.update_agent(
        replace(house.agent.report(), identity=views[0].identity, capabilities=views[0].capabilities)
    )
    assert house.registry.views() is before, "what stands ready is no reason to place anew"
    device = (await house.devices.GetDevice(device_service_pb2.GetDeviceRequest(name="cpu-0"))).device
    assert device.recording == recording_pb2.RecordingAbility(
        available=True,
        display_count=100,
        ready_display_count=2,
        browser="Chromium 1",
        largest_width=3840,
        largest_height=2160,
    )
    (displays,) = [load for load in device.loads if load.dimension == placement_pb2.DIMENSION_DISPLAYS]
    assert (displays.capacity, displays.used) == (100, 0)


# ------------------------------------------------------------------------------------------------------------ seeing


async def test_conditions_reports_and_measurements_are_told(house: BalancerHouse) -> None:
    made = await created(house)
    waiting = Condition(type="AWAITING_GATE", message="The page has not painted yet.", since_time=WRITTEN)
    starting = AttemptReported(attempt=1, phase=AttemptPhase.STARTING, conditions=(waiting,))
    await house.engine.apply(id_of(made), starting)
    assert [one.type for one in (await told(house, made)).conditions] == ["AWAITING_GATE"]
    report = recording_pb2.RecordingReport(captured_frames=450, renderer="SwiftShader")
    used = MeasuredUse(cores=900_000, memory_mib=1200, measured_time=timedelta(seconds=15))
    await house.engine.apply(
        id_of(made), replace(RUNNING, recording_report=report.SerializeToString(), measured_use=used)
    )
    seen = await told(house, made)
    assert seen.recording_report == report
    assert (seen.measured_use.cores, seen.measured_use.memory_mib) == (900_000, 1200)
    assert not seen.conditions
    assert house.engine.ledger.used(house.agent.device_id)[Dimension.CORES] == 900_000


async def test_an_exported_trace_has_recordings_and_does_not_name_applications(house: BalancerHouse) -> None:
    house.agent.recording = replace(RECORDS, applications=frozenset({"clock"}))
    view = house.registry.views()[0]
    house.registry.update_agent(replace(house.agent.report(), identity=view.identity, capabilities=view.capabilities))
    await house.sessions.CreateSession(
        pb.CreateSessionRequest(session=session('recording { application { name: "clock" } }'))
    )
    lines = [line async for answer in house.sessions.ExportTrace(pb.ExportTraceRequest()) for line in answer.lines]
    assert "clock" not in "".join(lines)
    (one,) = parse_trace(lines).sessions
    assert one.workload.capture is not None
    assert (one.workload.capture.width, one.workload.capture.browser) == (1280, False)


# ------------------------------------------------------------------------------------------------------- controlling


async def test_a_running_recording_is_paused_resumed_and_looked_at(house: BalancerHouse) -> None:
    made = await running(house)
    paused = await house.sessions.PauseSession(pb.PauseSessionRequest(name=made.name))
    resumed = await house.sessions.ResumeSession(pb.ResumeSessionRequest(name=made.name))
    assert paused.session.name == resumed.session.name == made.name
    picture = await house.sessions.SnapshotSession(pb.SnapshotSessionRequest(name=made.name, width=320))
    assert picture.image == SNAPSHOT.image
    assert picture.snapshot_time.ToDatetime(tzinfo=UTC) == SNAPSHOT.snapshot_time
    await house.sessions.SnapshotSession(pb.SnapshotSessionRequest(name=made.name))
    session_id = id_of(made)
    assert house.agent.controls == [
        ("pause", session_id, 1),
        ("resume", session_id, 1),
        ("snapshot 320", session_id, 1),
        ("snapshot None", session_id, 1),
    ]


async def test_a_recording_that_rests_before_it_has_begun_is_resumed(house: BalancerHouse) -> None:
    """It was moved while it rested: whether it does, its agent knows."""
    made = await created(house)
    await house.sessions.ResumeSession(pb.ResumeSessionRequest(name=made.name))
    assert house.agent.controls == [("resume", id_of(made), 1)]


async def test_more_time_is_told_to_the_agent_and_kept(house: BalancerHouse) -> None:
    made = await running(house, around="max_duration { seconds: 60 }")
    assert (await extend(house, made, 300)).max_duration.seconds == 300
    assert house.agent.durations == {id_of(made): timedelta(minutes=5)}
    kept = session_pb2.Session.FromString(house.store.records[id_of(made)].payload)
    assert kept.max_duration.seconds == 300
    assert not (await extend(house, made, None)).HasField("max_duration")
    assert house.agent.durations == {id_of(made): None}


async def test_of_more_time_a_further_attempt_gets_what_is_left(house: BalancerHouse) -> None:
    policy = "restart { mode: RESTART_MODE_ON_FAILURE first_backoff {} }"
    made = await running(house, around=f"max_duration {{ seconds: 60 }} {policy}")
    session_id = id_of(made)
    killed = Failure(reason="KILLED", message="It was killed.")
    ran = AttemptReported(
        attempt=1,
        phase=AttemptPhase.ENDED,
        outcome=AttemptOutcome.FAILED,
        failure=killed,
        progress=Progress(out_time=timedelta(seconds=40)),
    )
    await house.engine.apply(session_id, ran)
    async for change in house.sessions.WatchSession(pb.WatchSessionRequest(name=made.name)):
        if change.session.attempt == 2:
            break
    assert (await extend(house, made, 300)).max_duration.seconds == 300
    assert house.agent.durations == {session_id: timedelta(seconds=260)}


async def test_a_recording_that_waits_is_extended_where_it_waits(tmp_path: Path) -> None:
    async with balancer_house(tmp_path, devices={"cpu-0": 2}) as house:
        await created(house)
        waiting = await created(house, around="max_wait { seconds: 60 }")
        assert waiting.state == session_pb2.SESSION_STATE_QUEUED
        assert (await extend(house, waiting, 300)).max_duration.seconds == 300
        assert house.agent.controls == []
        for method, request in (
            (PAUSE, pb.PauseSessionRequest(name=waiting.name)),
            ("SnapshotSession", pb.SnapshotSessionRequest(name=waiting.name)),
        ):
            failure = await failure_of(getattr(house.sessions, method)(request))
            assert failure.reason is Reason.SESSION_NOT_RECORDING
            assert "it is queued" in failure.message


async def test_more_time_never_overtakes_the_launch(house: BalancerHouse) -> None:
    house.agent.launch_gate.clear()
    made = await created(house)
    async with asyncio.TaskGroup() as clients:
        extending = clients.create_task(extend(house, made, 300))
        await house.agent.launch_asked.wait()
        assert (await told(house, made)).state == session_pb2.SESSION_STATE_STARTING
        assert house.agent.controls == []
        house.agent.launch_gate.set()
    assert extending.result().max_duration.seconds == 300
    assert house.agent.controls == [("extend", id_of(made), 1)]


REQUESTS = [
    (PAUSE, pb.PauseSessionRequest),
    (RESUME, pb.ResumeSessionRequest),
    ("ExtendSession", pb.ExtendSessionRequest),
    ("SnapshotSession", pb.SnapshotSessionRequest),
]


@pytest.mark.parametrize(("method", "request_"), REQUESTS, ids=[method for method, _ in REQUESTS])
async def test_what_cannot_be_controlled_says_why(house: BalancerHouse, method: str, request_: type) -> None:
    call = getattr(house.sessions, method)
    assert (await failure_of(call(request_(name="sessions/nope")))).reason is Reason.SESSION_NOT_FOUND
    assert (await failure_of(call(request_(name="nope")))).reason is Reason.INVALID_REQUEST
    transcode = (await house.sessions.CreateSession(pb.CreateSessionRequest(session=session(LADDER)))).session
    failure = await failure_of(call(request_(name=transcode.name)))
    assert failure.reason is Reason.SESSION_NOT_RECORDING
    assert "no recording" in failure.message
    made = await running(house)
    house.agent.control_failure = RequestFailure(
        reason=Reason.SESSION_NOT_RECORDING, message="Cannot do that: the attempt is just ending. Try its artifacts."
    )
    failure = await failure_of(call(request_(name=made.name)))
    assert failure.reason is Reason.SESSION_NOT_RECORDING
    assert "just ending" in failure.message
    house.agent.reachable = False
    assert (await failure_of(call(request_(name=made.name)))).reason is Reason.AGENT_UNREACHABLE
    agent = house.agents.pop(DeviceId("cpu-0"))
    assert (await failure_of(call(request_(name=made.name)))).reason is Reason.AGENT_UNREACHABLE
    house.agents[DeviceId("cpu-0")] = agent
    await house.engine.apply(id_of(made), DONE)
    failure = await failure_of(call(request_(name=made.name)))
    assert failure.reason is Reason.SESSION_NOT_RECORDING
    assert "has ended" in failure.message
    kept = session_pb2.Session.FromString(house.store.records[id_of(made)].payload)
    assert not kept.HasField("max_duration")


async def test_figures_out_of_bounds_are_refused(house: BalancerHouse) -> None:
    made = await running(house)
    for width in (15, 8193):
        failure = await failure_of(
            house.sessions.SnapshotSession(pb.SnapshotSessionRequest(name=made.name, width=width))
        )
        assert [one.field for one in failure.violations] == ["width"]
    for seconds in (0, 366 * 86_400 + 1):
        failure = await failure_of(extend(house, made, seconds))
        assert [one.field for one in failure.violations] == ["max_duration"]
    assert house.agent.controls == []


async def test_a_recording_whose_copies_are_not_delivered_yet_is_not_deleted(house: BalancerHouse) -> None:
    made = await running(house, 'destinations: "archive"')
    await house.engine.apply(id_of(made), DONE)
    house.agent.delete_failure = RequestFailure(
        reason=Reason.DELIVERY_PENDING, message="Cannot delete it: a copy is still to be delivered. Try again later."
    )
    request = pb.DeleteSessionRequest(name=made.name)
    assert (await failure_of(house.sessions.DeleteSession(request))).reason is Reason.DELIVERY_PENDING
    assert (await told(house, made)).state == session_pb2.SESSION_STATE_SUCCEEDED
    house.agent.delete_failure = None
    await house.sessions.DeleteSession(request)
    assert house.agent.deleted == [id_of(made)]
