"""Whatever happens in whatever order, the ledger is the sum of what live sessions have booked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.domain.ids import SessionId
from balancer.domain.session import Failure, Progress, SessionRecord
from balancer.domain.session_events import (
    AgentHeard,
    AgentSilent,
    AttemptMissing,
    AttemptOutcome,
    AttemptPhase,
    AttemptReported,
    LaunchAccepted,
    LaunchRefused,
    SessionEvent,
)
from balancer.ports.session_store import StoreError
from balancer.session_listing import SessionFilter
from fakes.device_views import device_view
from fakes.engine_house import EngineHouse, engine_house, rebuilt_ledger, same_ledger
from fakes.session_store import FakeSessionStore
from fakes.virtual_time import VirtualTimeLoop, settle
from gpu_balancer.runtime.failures import RequestFailure

VIEWS = [device_view("cpu-0", core_count=32), device_view("cpu-1", core_count=16, weight=50)]
DEVICES = [view.id for view in VIEWS]
FAILURE = Failure(reason="INPUT_UNREADABLE", message="Cannot read.")

attempts = st.integers(0, 2)
events: st.SearchStrategy[SessionEvent] = st.one_of(
    st.builds(
        AttemptReported,
        attempt=attempts,
        phase=st.sampled_from(AttemptPhase),
        outcome=st.sampled_from([*AttemptOutcome, None]),
        progress=st.none() | st.builds(Progress, frames=st.integers(0, 9)),
    ),
    st.builds(LaunchAccepted, attempt=attempts),
    st.builds(LaunchRefused, attempt=attempts, failure=st.just(FAILURE)),
    st.builds(AttemptMissing, attempt=attempts),
    st.just(AgentSilent()),
    st.just(AgentHeard()),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(1, 4)),
        st.tuples(st.just("event"), st.integers(0, 9), events, st.booleans()),
        st.tuples(st.just("stop"), st.integers(0, 9)),
        st.tuples(st.just("delete"), st.integers(0, 9)),
        st.tuples(st.just("break store")),
        st.tuples(st.just("mend store")),
        st.tuples(st.just("hold commits")),
        st.tuples(st.just("let commits go")),
        st.tuples(st.just("wait")),
        st.tuples(st.just("restart")),
    ),
    max_size=40,
)


class Run:
    """One example: does steps and checks after each."""

    def __init__(self) -> None:
        self.store = FakeSessionStore()
        self.pending: list[asyncio.Task[object]] = []
        self.number = 0

    async def play(self, plan: list[tuple[object, ...]]) -> None:
        plan = list(plan)
        while True:
            self.mend()
            async with engine_house(self.store, *VIEWS) as house:
                self.check(house)
                while plan:
                    step = plan.pop(0)
                    if step[0] == "restart":
                        break
                    await self.do(house, step)
                    self.check(house)
                else:
                    await self.finish(house)
                    return
            for task in self.pending:
                task.cancel()
            await asyncio.gather(*self.pending, return_exceptions=True)
            self.pending.clear()

    def mend(self) -> None:
        self.store.failure = None
        self.store.gate.set()

    async def do(self, house: EngineHouse, step: tuple[object, ...]) -> None:
        match step:
            case ("admit", int(count)):
                for _ in range(count):
                    self.number += 1
                    self.later(house.admit(f"request-{self.number}"))
            case ("event", int(place), event, numbered):
                self.event(house, place, event, numbered=bool(numbered))
            case ("stop", int(place)):
                self.later(house.engine.stop(self.session(house, place)))
            case ("delete", int(place)):
                self.later(house.engine.delete(self.session(house, place)))
            case ("break store",):
                self.store.failure = StoreError("Cannot write: broken.")
            case ("mend store",):
                self.store.failure = None
            case ("hold commits",):
                self.store.gate.clear()
            case ("let commits go",):
                self.store.gate.set()
            case ("wait",):
                await asyncio.sleep(2)
        await settle(3)

    def event(self, house: EngineHouse, place: int, event: object, *, numbered: bool) -> None:
        device_id = DEVICES[place % 2]
        cursor = (device_id, house.engine.cursor(device_id) + 1) if numbered else None
        house.engine.post(self.session(house, place), event, cursor)  # type: ignore[arg-type]

    def session(self, house: EngineHouse, place: int) -> SessionId:
        known = house.engine.list(SessionFilter()).records
        return known[place % len(known)].id if known else SessionId("nobody")

    def later(self, asking: Awaitable[object]) -> None:
        self.pending.append(asyncio.get_running_loop().create_task(self.quietly(asking)))

    async def quietly(self, asking: Awaitable[object]) -> None:
        with suppress(RequestFailure):
            await asking

    def check(self, house: EngineHouse) -> None:
        records = [entry.record for entry in house.engine._book.unended()]
        assert same_ledger(house.engine.ledger, rebuilt_ledger(records), DEVICES)
        for record in house.engine.list(SessionFilter(), page_size=1000).records:
            self.check_published(house, record)

    def check_published(self, house: EngineHouse, record: SessionRecord) -> None:
        current = house.engine.current(record.id)
        assert current is not None
        assert record.revision <= current.revision
        assert record.reservation is None or not record.state.final
        stored = self.store.records.get(record.id)
        if stored is not None:
            assert stored.revision <= current.revision
            assert not (stored.state.final and current.state != stored.state), "final states never change"

    async def finish(self, house: EngineHouse) -> None:
        """Mends everything: then what is published, stored and booked agree."""
        self.mend()
        await asyncio.sleep(60)
        await asyncio.gather(*self.pending)
        await house.engine.flush()
        self.check(house)
        published = {record.id: record for record in house.engine.list(SessionFilter(), page_size=1000).records}
        assert published.keys() == self.store.records.keys()
        for session_id, record in published.items():
            assert house.engine.current(session_id) is record
            assert self.store.records[session_id].state is record.state
            assert self.store.records[session_id].reservation == record.reservation
        assert same_ledger(house.engine.ledger, rebuilt_ledger(list(published.values())), DEVICES)


@settings(max_examples=150, deadline=None)
@given(plan=steps)
def test_the_ledger_is_always_the_sum_of_live_reservations(plan: list[tuple[object, ...]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(Run().play(plan))
