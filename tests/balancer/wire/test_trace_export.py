"""Traces exported over a real wire, and replayed."""

from __future__ import annotations

from datetime import timedelta

from balancer.domain.ids import SessionId
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.session_events import AttemptOutcome, AttemptPhase, AttemptReported
from balancer.simulation.fleet import fleet_of_models
from balancer.simulation.replay import ReplayRules, replay
from balancer.simulation.trace_lines import parse_trace
from fakes.agent_media import FULL_HD
from fakes.balancer_house import BalancerHouse, failure_of
from fakes.session_texts import LADDER, session
from gpu_balancer.runtime.failures import Reason
from gpu_balancer.v1 import session_pb2
from gpu_balancer.v1 import session_service_pb2 as pb

RUNNING = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING)
DONE = AttemptReported(attempt=1, phase=AttemptPhase.ENDED, outcome=AttemptOutcome.COMPLETED)


async def created(house: BalancerHouse, **labels: str) -> SessionId:
    """Creates a session; gives its id."""
    request = pb.CreateSessionRequest(session=session(LADDER))
    request.session.transcode.input.declared_facts.CopyFrom(FULL_HD)
    request.session.labels.update(labels)
    request.session.max_wait.FromTimedelta(timedelta(seconds=90))
    name = (await house.sessions.CreateSession(request)).session.name
    return SessionId(name.removeprefix("sessions/"))


async def exported(house: BalancerHouse, **fields: object) -> list[str]:
    request = pb.ExportTraceRequest(**fields)  # type: ignore[arg-type]
    return [line async for answer in house.sessions.ExportTrace(request) for line in answer.lines]


async def test_an_exported_trace_replays(house: BalancerHouse) -> None:
    ids = [await created(house) for _ in range(5)]
    for event in (RUNNING, DONE):
        await house.engine.apply(ids[0], event)
    trace = parse_trace(await exported(house))
    assert len(trace.sessions) == 5
    assert [one.workload for one in trace.sessions] == [house.engine.get(one).workload for one in ids]
    assert [one.duration_s is None for one in trace.sessions] == [False, True, True, True, True]
    ended = house.engine.get(ids[0])
    assert ended.end_time is not None
    assert trace.sessions[0].duration_s == round((ended.end_time - ended.create_time).total_seconds(), 3)
    assert {one.max_wait_s for one in trace.sessions} == {90.0}
    result = replay(trace, fleet_of_models(["NVIDIA L4"] * 2), LeastWeightedLoad(), ReplayRules())
    assert result.completed == 5


async def test_a_trace_names_no_inputs_outputs_or_labels(house: BalancerHouse) -> None:
    await created(house, customer="ada")
    text = "\n".join(await exported(house))
    record = house.engine.live()[0]
    uri = session_pb2.Session.FromString(record.payload).transcode.input.uri
    assert uri
    assert uri not in text
    assert "ada" not in text
    assert record.id not in text


async def test_only_the_sessions_that_are_meant_are_exported(house: BalancerHouse) -> None:
    for number in range(4):
        await created(house, parity="odd" if number % 2 else "even")
    odd = await exported(house, filter=pb.SessionFilter(labels={"parity": "odd"}))
    assert len(odd) == 1 + 2
    times = [record.create_time for record in house.engine.live()]
    request = pb.ExportTraceRequest()
    request.start_time.FromDatetime(times[1])
    request.end_time.FromDatetime(times[3])
    lines = [line async for answer in house.sessions.ExportTrace(request) for line in answer.lines]
    trace = parse_trace(lines)
    assert [one.arrival_s for one in trace.sessions] == [0.0, round((times[2] - times[1]).total_seconds(), 3)]


async def test_a_balancer_without_sessions_exports_an_empty_trace(house: BalancerHouse) -> None:
    assert parse_trace(await exported(house)).sessions == ()


async def test_a_span_that_cannot_be_is_refused(house: BalancerHouse) -> None:
    request = pb.ExportTraceRequest()
    request.start_time.seconds = 100
    request.end_time.seconds = 50
    failure = await failure_of(anext(aiter(house.sessions.ExportTrace(request))))
    assert failure.reason is Reason.INVALID_REQUEST
    assert failure.violations[0].field == "end_time"
    request.start_time.seconds = 2**60
    assert (await failure_of(anext(aiter(house.sessions.ExportTrace(request))))).violations[0].field == "start_time"
