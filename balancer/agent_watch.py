"""Watches the agent of one device, for ever: its events go to the engine, its news to the registry.

The stream begins after the last event that was taken, so nothing is missed or kept twice. When the agent has told all
it kept, both sides compare what lives, and `domain.reconciliation` tells what becomes of each attempt. An agent that
says nothing for a while counts as unreachable; its sessions may well run on, so nothing is released, only said. One
that says nothing for long counts as lost, and sessions whose rule lets them go on elsewhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, assert_never

import structlog

from balancer.domain.reconciliation import AgentSays, Outcome, fit_of, reconcile, store_says
from balancer.domain.session_events import (
    AgentHeard,
    AgentSilent,
    AttemptMissing,
    AttemptPhase,
    SessionEvent,
    StopForgotten,
)
from balancer.ports.agent_client import (
    AgentEvent,
    AgentReport,
    AgentUnreachableError,
    AttemptEvent,
    CaughtUp,
    Measurements,
)
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from balancer.domain.ids import DeviceId, SessionId
    from balancer.domain.session import SessionRecord
    from balancer.ports.agent_client import AgentClient
    from balancer.ports.device_news import DeviceNews
    from gpu_balancer.runtime.clock import Clock

_log = structlog.stdlib.get_logger(__name__)

_MAX_UNFLUSHED = 64
"""Numbered events taken before the watch waits for the store, so that a long absence fills no memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchTimes:
    """How patient the watch is."""

    silence: timedelta = timedelta(seconds=10)
    """Without any event, after which an agent counts as unreachable. Agents send measurements every second."""
    describe_timeout: timedelta = timedelta(seconds=5)
    first_pause: timedelta = timedelta(milliseconds=100)
    """Before the second try to connect; doubled after each further one."""
    longest_pause: timedelta = timedelta(milliseconds=500)


class WatchedSessions(Protocol):
    """What the watch needs of the engine."""

    def cursor(self, device_id: DeviceId) -> int:
        """Gives the number of the last event taken. 0: none."""
        ...

    def current(self, session_id: SessionId) -> SessionRecord | None:
        """Gives a session as it is now. None: there is none."""
        ...

    def live(self, device_id: DeviceId) -> tuple[SessionRecord, ...]:
        """Gives the device's sessions that have not ended."""
        ...

    def expected_on(self, device_id: DeviceId) -> Mapping[SessionId, int]:
        """Gives the attempts that the agent must know."""
        ...

    def post(self, session_id: SessionId, event: SessionEvent, cursor: tuple[DeviceId, int] | None = None) -> bool:
        """Takes an event; tells whether there is anything to become durable."""
        ...

    async def flush(self) -> None:
        """Returns when what was taken is durable."""
        ...

    def hurry(self, device_id: DeviceId) -> None:
        """Carries out at once what waited for the agent."""
        ...

    def lose(self, device_id: DeviceId, silence: timedelta) -> None:
        """Has the device's sessions go on elsewhere, where they may and can."""
        ...

    def stop_stray(self, session_id: SessionId, device_id: DeviceId, attempt: int) -> None:
        """Ends an attempt that the agent should not have."""
        ...


class AgentWatch:
    """Watches one agent."""

    def __init__(
        self,
        device_id: DeviceId,
        agent: AgentClient,
        *,
        sessions: WatchedSessions,
        news: DeviceNews,
        clock: Clock,
        times: WatchTimes | None = None,
        lost_after: Callable[[], timedelta | None] = lambda: None,
        on_reconciled: Callable[[DeviceId], None] = lambda _: None,
    ) -> None:
        """Begins unconnected.

        Args:
            device_id: Whose agent it is; known to `news` already.
            agent: Speaks to it.
            sessions: The engine.
            news: The registry.
            clock: Tells how long the agent has been silent.
            times: How patient to be.
            lost_after: Gives the silence, as this process has seen it, after which sessions go on elsewhere. None:
                never.
            on_reconciled: Called whenever the agent was heard up to the present and compared with.
        """
        self._device_id = device_id
        self._agent = agent
        self._sessions = sessions
        self._news = news
        self._clock = clock
        self._times = times or WatchTimes()
        self._lost_after = lost_after
        self._on_reconciled = on_reconciled
        self._heard_s = clock.monotonic_s()
        self._silent = False
        self._unflushed = 0

    @property
    def silence_s(self) -> float:
        """Seconds since the agent was heard, or since it has been watched."""
        return self._clock.monotonic_s() - self._heard_s

    async def run(self) -> None:
        """Watches until cancelled."""
        self._heard_s = self._clock.monotonic_s()
        pause_s = self._times.first_pause.total_seconds()
        while True:
            heard_s, silent_before = self._heard_s, self._silent
            try:
                await self._follow()
            except TimeoutError:
                problem = "it accepts connections but does not answer"
            except (AgentUnreachableError, RequestFailure) as error:
                problem = str(error)
            if self._heard_s > heard_s:
                pause_s = self._times.first_pause.total_seconds()
            self._note_silence(problem)
            if silent_before and self._silent:
                # Not without one more try: it may have been this process that stood still.
                self._note_loss()
            await asyncio.sleep(self._pause(pause_s))
            self._note_silence(problem)
            pause_s = min(2 * pause_s, self._times.longest_pause.total_seconds())

    async def _follow(self) -> None:
        """Connects and takes events; ends with an error when the stream breaks or falls silent."""
        async with asyncio.timeout(self._within_patience(self._times.describe_timeout.total_seconds())):
            report = await self._agent.describe()
        if report.identity.id != self._device_id:
            raise AgentUnreachableError(
                f"the agent at its address has device {report.identity.id}. Try to correct the address in the settings."
            )
        after = self._sessions.cursor(self._device_id)
        if report.last_event_number < after:
            _log.warning("the agent counts its events anew: it lost its state folder", device=self._device_id)
            after = 0
        # What it must know is settled before it is asked: a launch acknowledged meanwhile may not be in its answer.
        expected = dict(self._sessions.expected_on(self._device_id))
        events = self._agent.events(after)
        try:
            await self._take(await self._next(events), expected, report)
            while True:
                await self._take(await self._next(events), expected)
        except StopAsyncIteration:
            raise AgentUnreachableError("it ended the stream of its events") from None
        finally:
            if isinstance(events, AsyncGenerator):
                await events.aclose()

    async def _next(self, events: AsyncIterator[AgentEvent]) -> AgentEvent:
        async with asyncio.timeout(self._times.silence.total_seconds()):
            return await anext(events)

    async def _take(
        self, event: AgentEvent, expected: Mapping[SessionId, int], report: AgentReport | None = None
    ) -> None:
        """Takes one event; the first of a stream brings the report, because only a stream that works is an agent."""
        if report is not None:
            self._news.update_agent(report)
            self._note_sound()
        body = event.body
        match body:
            case AttemptEvent():
                await self._take_attempt(event.number, body)
            case Measurements():
                self._news.update_measurements(self._device_id, body)
            case AgentReport():
                self._news.update_agent(body)
            case CaughtUp():
                self._reconcile(body.live_attempts, expected)
                self._on_reconciled(self._device_id)
            case _:
                assert_never(body)
        # Not before: waiting for the store is no silence of the agent's.
        self._heard_s = self._clock.monotonic_s()

    async def _take_attempt(self, number: int, event: AttemptEvent) -> None:
        report = replace(event.report, device_id=self._device_id)
        if self._sessions.current(event.session_id) is None:
            # Of sessions that there are, the lifecycle tells what an event makes of them.
            says = AgentSays.ENDED if report.phase is AttemptPhase.ENDED else AgentSays.LIVE
            self._settle(event.session_id, report.attempt, says, {})
        self._sessions.post(event.session_id, report, (self._device_id, number) if number else None)
        if number:
            self._unflushed += 1
            if self._unflushed >= _MAX_UNFLUSHED:
                self._unflushed = 0
                await self._sessions.flush()

    def _reconcile(self, listed: Mapping[SessionId, int], expected: Mapping[SessionId, int]) -> None:
        """Compares what lives on the agent with what should.

        Args:
            listed: Attempts that live there.
            expected: Those whose launch was answered before the agent was asked.
        """
        for session_id, attempt in listed.items():
            self._settle(session_id, attempt, AgentSays.LIVE, expected)
        for record in self._sessions.live(self._device_id):
            if listed.get(record.id) != record.attempt:
                self._settle(record.id, record.attempt, AgentSays.UNKNOWN, expected)
        # Launches that were never answered, and stops, wait for just this moment.
        self._sessions.hurry(self._device_id)

    def _settle(self, session_id: SessionId, attempt: int, says: AgentSays, expected: Mapping[SessionId, int]) -> None:
        """Does what is to be done about an attempt of which the agent said something."""
        record = self._sessions.current(session_id)
        store = store_says(record, answered=expected.get(session_id) == attempt)
        outcome = reconcile(store, fit_of(record, self._device_id, attempt), says)
        told = {"session": session_id, "attempt": attempt, "device": self._device_id}
        match outcome:
            case Outcome.STOP_STRAY:
                self._sessions.stop_stray(session_id, self._device_id, attempt)
            case Outcome.POST_MISSING if expected.get(session_id) == attempt:
                _log.warning("the agent lost an attempt", **told)
                self._sessions.post(session_id, AttemptMissing(attempt=attempt))
            case Outcome.POST_MISSING:
                # It began to run since the agent was asked, whose answer is too old to be about it.
                _log.debug("an attempt is newer than what the agent says", **told)
            case Outcome.STOP_AGAIN:
                self._sessions.post(session_id, StopForgotten())
            case Outcome.TELL_UNREACHABLE:
                self._sessions.post(session_id, AgentSilent())
            case Outcome.LAUNCH | Outcome.GO_ON | Outcome.TAKE_END | Outcome.AWAIT | Outcome.NOTHING:
                # A launch is tried until it is answered; what was told of an end was taken as it came.
                pass
            case _:
                assert_never(outcome)

    def _note_sound(self) -> None:
        self._silent = False
        self._news.mark_reachable(self._device_id)
        for record in self._sessions.live(self._device_id):
            self._sessions.post(record.id, AgentHeard())

    def _note_silence(self, problem: str) -> None:
        silence_s = self.silence_s
        if self._silent or silence_s < self._times.silence.total_seconds():
            return
        self._silent = True
        _log.warning("the agent is silent", device=self._device_id, silence_s=round(silence_s), problem=problem)
        self._news.mark_unreachable(
            self._device_id, f"Its agent has not been heard for {silence_s:.0f} s: {problem.rstrip('.')}."
        )
        for record in self._sessions.live(self._device_id):
            self._settle(record.id, record.attempt, AgentSays.UNREACHABLE, {})

    def _note_loss(self) -> None:
        """Has sessions go on elsewhere once that is due, and again and again, for such as found no room."""
        silence = timedelta(seconds=self._clock.monotonic_s() - self._heard_s)
        lost_after = self._lost_after()
        if lost_after is not None and silence >= lost_after:
            self._sessions.lose(self._device_id, silence)

    def _within_patience(self, seconds: float) -> float:
        """Shortens a wait, so that silence is noticed in time."""
        left_s = self._heard_s + self._times.silence.total_seconds() - self._clock.monotonic_s()
        return seconds if self._silent else min(seconds, max(left_s, 0.0))

    def _pause(self, seconds: float) -> float:
        """Shortens the pause before the next try, so that silence, and then loss, are noticed in time."""
        lost_after = self._lost_after()
        if not self._silent or lost_after is None:
            return self._within_patience(seconds)
        left_s = self._heard_s + lost_after.total_seconds() - self._clock.monotonic_s()
        # Tries are never cut short for it: one that begins just before must have its chance.
        return min(seconds, left_s) if left_s > 0 else seconds
