"""What the watch of an agent does in each cell of the table of `balancer.domain.reconciliation`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import pytest

from balancer.agent_watch import AgentWatch
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.reconciliation import AgentSays, Fit, Outcome, StoreSays, fit_of, reconcile, store_says
from balancer.domain.session import SessionRecord, SessionState
from balancer.domain.session_events import (
    AgentSilent,
    AttemptMissing,
    AttemptPhase,
    AttemptReported,
    SessionEvent,
    StopForgotten,
)
from fakes.agent_client import FakeAgentClient
from fakes.device_news import FakeDeviceNews
from fakes.engine_house import EngineHouse, engine_house
from fakes.session_records import session_record
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import VirtualClock, settle

CPU_0, CPU_1 = DeviceId("cpu-0"), DeviceId("cpu-1")
STATES = {
    StoreSays.QUEUED: SessionState.QUEUED,
    StoreSays.STARTING_UNANSWERED: SessionState.STARTING,
    StoreSays.STARTING_ANSWERED: SessionState.STARTING,
    StoreSays.RUNNING: SessionState.RUNNING,
    StoreSays.STOPPING: SessionState.STOPPING,
    StoreSays.ENDED: SessionState.FAILED,
}
EFFECTS: dict[Outcome, object] = {
    Outcome.STOP_STRAY: "stop stray",
    Outcome.STOP_AGAIN: StopForgotten(),
    Outcome.POST_MISSING: AttemptMissing(attempt=1),
    Outcome.TELL_UNREACHABLE: AgentSilent(),
    Outcome.GO_ON: None,
    Outcome.TAKE_END: None,
    Outcome.LAUNCH: None,
    Outcome.AWAIT: None,
    Outcome.NOTHING: None,
}
"""What is seen of an outcome for attempt 1. A launch is seen by the engine's hurry, an end by the event itself."""


def recorded(store: StoreSays, fit: Fit) -> SessionRecord | None:
    """What the store has, when the attempt in question is attempt 1 on cpu-0."""
    if store is StoreSays.NO_RECORD:
        return None
    device_id = {Fit.SAME: CPU_0, Fit.OTHER_ATTEMPT: CPU_0, Fit.OTHER_DEVICE: CPU_1}[fit]
    return session_record(state=STATES[store], device_id=device_id, attempt=2 if fit is Fit.OTHER_ATTEMPT else 1)


@dataclass
class NotedSessions:
    """One session that notes what the watch does about its attempt 1."""

    record: SessionRecord | None
    answered: bool
    done: list[object] = field(default_factory=list)
    hurried: int = 0

    def cursor(self, device_id: DeviceId) -> int:
        return 0

    def current(self, session_id: SessionId) -> SessionRecord | None:
        return self.record

    def live(self, device_id: DeviceId) -> tuple[SessionRecord, ...]:
        record = self.record
        if record is None or record.state.final or record.state is SessionState.QUEUED:
            return ()
        return (record,) if record.device_id == device_id else ()

    def expected_on(self, device_id: DeviceId) -> Mapping[SessionId, int]:
        return {record.id: record.attempt for record in self.live(device_id) if self.answered}

    def post(self, session_id: SessionId, event: SessionEvent, cursor: tuple[DeviceId, int] | None = None) -> bool:
        attempt = getattr(event, "attempt", 1)
        if attempt == 1 and isinstance(event, AttemptMissing | StopForgotten | AgentSilent):
            self.done.append(event)
        return True

    async def flush(self) -> None:
        pass

    def hurry(self, device_id: DeviceId) -> None:
        self.hurried += 1

    def stop_stray(self, session_id: SessionId, device_id: DeviceId, attempt: int) -> None:
        assert (device_id, attempt) == (CPU_0, 1)
        self.done.append("stop stray")


@pytest.mark.parametrize(("store", "fit", "says"), list(product(StoreSays, Fit, AgentSays)))
async def test_every_cell_has_its_effect(store: StoreSays, fit: Fit, says: AgentSays) -> None:
    sessions = NotedSessions(recorded(store, fit), answered=store is not StoreSays.STARTING_UNANSWERED)
    agent = FakeAgentClient("cpu-0")
    session_id = SessionId("session-1")
    match says:
        case AgentSays.LIVE:
            agent.attempts[session_id] = AttemptReported(attempt=1, phase=AttemptPhase.RUNNING)
        case AgentSays.ENDED:
            agent.end(session_id)
            if sessions.record is not None and fit is Fit.SAME:
                # As the lifecycle leaves it once it has heard the end, which comes before what lives.
                sessions.record = session_record(state=SessionState.SUCCEEDED)
        case AgentSays.UNREACHABLE:
            agent.reachable = False
    watch = AgentWatch(CPU_0, agent, sessions=sessions, news=FakeDeviceNews(), clock=VirtualClock())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(15 if says is AgentSays.UNREACHABLE else 5):
            await watch.run()
    expected = EFFECTS[reconcile(store, fit, says)]
    if fit is Fit.OTHER_ATTEMPT:
        # What is done about the session's own attempt 2 is another cell.
        sessions.done = [done for done in sessions.done if done == "stop stray"]
    assert sessions.done == ([] if expected is None else [expected])
    assert (sessions.hurried > 0) == (says is not AgentSays.UNREACHABLE)


def test_the_store_and_the_attempt_are_told_as_they_are() -> None:
    for store, state in STATES.items():
        record = session_record(state=state)
        assert store_says(record, answered=store is not StoreSays.STARTING_UNANSWERED) is store
    assert store_says(None, answered=True) is StoreSays.NO_RECORD
    for fit in Fit:
        assert fit_of(recorded(StoreSays.RUNNING, fit), CPU_0, 1) is fit


async def test_a_launch_that_an_agent_never_heard_of_is_said_again_when_it_tells_what_lives(
    store: FakeSessionStore,
) -> None:
    async with engine_house(store) as house:
        agents = house.agents
        house.agent.reachable = False
        record = await house.admit()
        await settle()
    async with engine_house(store, agents=agents) as house:
        await asyncio.sleep(4)
        house.agent.reachable = True
        house.watch()
        await settle()
        assert house.agent.launches == [(record.id, 1)], "at once, not after the pause of the command"


async def test_a_stop_of_an_attempt_that_its_agent_lost_ends_by_the_agents_word(
    house: EngineHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.watch()
    record = await house.admit()
    await settle()
    house.agent.run(record.id)
    await settle()
    house.agent.keeps_stopping = True
    await house.engine.stop(record.id)
    await settle()
    house.agent.keeps_stopping = False
    house.agent.stops.clear()
    house.agent.lose_everything()
    house.agent.cut()
    await asyncio.sleep(3)
    assert house.agent.stops == [(record.id, 1)]
    assert house.engine.get(record.id).state is SessionState.CANCELLED
