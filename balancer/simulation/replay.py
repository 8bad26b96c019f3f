"""Replays a trace on a fleet under one policy, event by event, through the daemon's own placement code.

Offers, decisions, the ledger, the queue and the breaker are the daemon's; what is simulated is time, and that sessions
end. The order of things at one instant is fixed: ends, then failures and returns of devices, then arrivals. So the same
trace, fleet and policy give the same figures, whoever asks.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from itertools import count

from balancer.domain.decision import Decision, PlacementSettings, Refusal
from balancer.domain.demand import nominal_cost
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.policies.policy import IndifferentPolicy, Policy
from balancer.domain.preemption import Victim, closed_but, make_room
from balancer.domain.quarantine import Breaker, Quarantine, QuarantineSettings
from balancer.domain.queue import QueueSettings, Waiting, WaitingLine
from balancer.domain.requeueing import RETRIES
from balancer.domain.session import Priority
from balancer.simulation.device_states import DeviceStates
from balancer.simulation.fleet import Fleet
from balancer.simulation.meters import Meters, Sample
from balancer.simulation.outcome import DeviceFailure, ReplayResult
from balancer.simulation.summary import Tally, summarized
from balancer.simulation.trace import Trace, TraceSession

START_FAILURE_S = 1.0
"""How long a dead device takes until a session that it should begin has failed."""
PROBE_S = 5.0
"""How long a golden probe takes."""
RETRY_WAIT_S = 10.0
"""How long a session waits for another device that the first one could not begin, as in the daemon."""
SAMPLE_COUNT = 720


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRules:
    """Under which rules a trace is replayed, whatever the policy."""

    settings: PlacementSettings = field(default_factory=PlacementSettings)
    queue: QueueSettings | None = field(default_factory=QueueSettings)
    """None: nobody waits, whatever patience sessions have."""
    breaker: QuarantineSettings | None = field(default_factory=QuarantineSettings)
    """None: a device that fails is never put aside."""
    failures: tuple[DeviceFailure, ...] = ()
    from_s: float = 0.0
    """When totals begin to add up: before it devices fill."""


class _Kind(IntEnum):
    """What happens, in the order in which it does at one instant."""

    ENDED = 0
    DEVICE_FAILED = 1
    NOT_BEGUN = 2
    PROBED = 3
    ARRIVED = 4
    WAITED = 5
    """Somebody has waited long enough to have a device kept."""
    EXPIRED = 6


@dataclass(slots=True, kw_only=True, eq=False)
class _Course:
    """One session on its way."""

    id: SessionId
    session: TraceSession
    remaining_s: float
    cost: int
    asked_s: float
    device_id: DeviceId | None = None
    bits: int | None = None
    begun_s: float = 0.0
    running: bool = False
    attempt: int = 0
    """Raised at each placement and end, so that events of earlier ones are known to be stale."""
    retries: int = 0
    placed_before: bool = False
    """Whether it ran, or was begun in vain, before."""
    waited: bool = False
    waiting_since_s: float = 0.0
    avoided: frozenset[DeviceId] = frozenset()


def replay(trace: Trace, fleet: Fleet, policy: Policy, rules: ReplayRules) -> ReplayResult:
    """Replays a trace.

    Args:
        trace: The sessions.
        fleet: The devices, empty.
        policy: A new one, told of nothing yet.
        rules: Everything else.

    Returns:
        The figures.
    """
    return _Replay(trace, fleet, policy, rules).run()


class _Replay:
    """The course of one replay."""

    def __init__(self, trace: Trace, fleet: Fleet, policy: Policy, rules: ReplayRules) -> None:
        self._trace = trace
        self._fleet = fleet
        self._policy = policy
        self._rules = rules
        self._ledger = Ledger()
        self._meters = Meters(fleet.views, fleet.host_capacity, self._ledger, from_s=rules.from_s)
        self._devices = DeviceStates(fleet, policy, rules.settings, self._ledger, rules.failures)
        self._line = WaitingLine(rules.queue) if rules.queue is not None else None
        self._breaker = Breaker(rules.breaker) if rules.breaker is not None else None
        self._tally = Tally()
        self._events: list[tuple[float, int, int, _Course | DeviceId, int]] = []
        self._numbers = count()
        self._now_s = 0.0
        self._samples: list[Sample] = []
        self._sample_every_s = max(trace.end_s / SAMPLE_COUNT, 1e-3)
        self._next_sample_s = 0.0
        self._courses: dict[SessionId, _Course] = {}
        self._preemptible: dict[SessionId, _Course] = {}
        # Policies that measure nothing are not told of every second.
        self._measured = getattr(type(policy), "on_measured", None) is not IndifferentPolicy.on_measured
        self._next_tick_s = 1.0
        self._last_measured = [(view.id, self._meters.utilization(view.id)) for view in fleet.views]

    def run(self) -> ReplayResult:
        for index, session in enumerate(self._trace.sessions):
            course = _Course(
                id=SessionId(f"s{index}"),
                session=session,
                remaining_s=self._trace.held_s(session),
                cost=nominal_cost(session.workload, self._rules.settings.factors),
                asked_s=session.arrival_s,
            )
            self._at(session.arrival_s, _Kind.ARRIVED, course)
        for failure in self._rules.failures:
            self._at(failure.time_s, _Kind.DEVICE_FAILED, failure.device_id)
        while self._events:
            time_s, kind, _, subject, attempt = heapq.heappop(self._events)
            self._pass_time(time_s)
            self._happen(_Kind(kind), subject, attempt)
        for waiting in self._line or ():
            self._tally.end_waiting(self._now_s, placed_before=self._courses[waiting.session_id].placed_before)
        self._tally.check(len(self._trace.sessions), self._ledger)
        return summarized(
            self._fleet, self._policy.name, self._tally, self._meters.totals, self._samples, self._rules.from_s
        )

    def _happen(self, kind: _Kind, subject: _Course | DeviceId, attempt: int) -> None:
        if not isinstance(subject, _Course):
            if kind is _Kind.DEVICE_FAILED:
                self._device_failed(subject)
            else:
                self._probed(subject)
        elif attempt == subject.attempt:
            self._go_on(kind, subject)

    def _go_on(self, kind: _Kind, course: _Course) -> None:
        if kind is _Kind.ARRIVED:
            self._tally.offered += 1
            self._ask(course)
        elif kind is _Kind.ENDED:
            self._release(course)
            self._tally.completed += 1
            self._serve()
        elif kind is _Kind.NOT_BEGUN:
            self._not_begun(course)
        elif kind is _Kind.EXPIRED:
            self._give_up(course)
        else:
            self._serve()

    # -------------------------------------------------------------------------------------------------------- placing

    def _ask(self, course: _Course) -> None:
        """Places a session that does not wait yet; else it waits, or is refused."""
        closed = self._line.closed_to(None) if self._line is not None else {}
        if course.avoided:
            told = Refusal(rule="AVOIDED", message="The session could not begin on it before.")
            closed = {**dict.fromkeys(course.avoided, told), **closed}
        decision = self._decide(course, closed)
        if decision.device_id is not None:
            return
        patience_s = course.session.max_wait_s
        if course.placed_before:
            patience_s = max(patience_s, RETRY_WAIT_S)
        # As in the daemon, what was running or starting before is not turned away by a full queue.
        line = self._line
        room = line is not None and (course.placed_before or len(line) < line.settings.max_sessions)
        if patience_s > 0 and room:
            self._wait(course, patience_s)
        else:
            self._tally.end_unplaced(decision, self._now_s, placed_before=course.placed_before)

    def _decide(self, course: _Course, closed: Mapping[DeviceId, Refusal]) -> Decision:
        """Decides, books, and tells the policy, as the daemon's placer does."""
        decision = self._devices.decide(course.id, course.session.workload, closed)
        if decision.device_id is None and course.session.priority is Priority.LIVE:
            decision = self._make_room(course, decision, closed)
        if decision.reservation is not None:
            self._begin(course, decision)
        return decision

    def _make_room(self, course: _Course, refused: Decision, closed: Mapping[DeviceId, Refusal]) -> Decision:
        """Stops sessions that allow it where that lets a live one in; they wait, and begin anew."""
        workload = course.session.workload
        if self._line is None or not self._preemptible or not workload.real_time:
            return refused
        victims = [
            Victim(session_id=one.id, device_id=one.device_id, done=timedelta(seconds=self._now_s - one.begun_s))
            for one in self._preemptible.values()
            if one.device_id is not None
        ]

        def consider(others: Mapping[DeviceId, Refusal]) -> Decision:
            return self._devices.consider(workload, {**closed, **others})

        def has_room(device_id: DeviceId) -> bool:
            return consider(closed_but(device_id, refused)).device_id is not None

        found = make_room(refused, victims, self._ledger, has_room, consider)
        if found is None or found.device_id is None:
            return refused
        for victim in (self._courses[session_id] for session_id in found.preempted):
            self._release(victim)
            victim.remaining_s = self._trace.held_s(victim.session)
            victim.placed_before = True
            self._tally.preemptions += 1
            self._wait(victim, math.inf)
        self._devices.settle(course.id, workload, found.device_id)
        return found

    def _begin(self, course: _Course, decision: Decision) -> None:
        assert decision.device_id is not None
        assert decision.reservation is not None
        reservation = decision.reservation
        course.device_id = decision.device_id
        course.attempt += 1
        self._ledger.book(course.id, reservation)
        self._courses[course.id] = course
        self._tally.begun[course.device_id] += 1
        first_try = not course.waited and not course.placed_before
        self._tally.placed_at_once += first_try
        if course.waited:
            self._tally.waits_s.append(self._now_s - course.waiting_since_s)
            course.waited = False
        if self._devices.dead(course.device_id, self._now_s):
            self._tally.dead_first_tries += not course.placed_before
            self._meters.look(course.device_id)
            self._at(self._now_s + START_FAILURE_S, _Kind.NOT_BEGUN, course)
            return
        course.bits = (
            self._meters.bits_of(reservation.device_amounts, reservation.host_amounts)
            if course.session.workload.real_time
            else None
        )
        course.running = True
        if course.session.preemptible:
            self._preemptible[course.id] = course
        course.begun_s = self._now_s
        self._meters.count(course.device_id, course.bits, course.cost, 1)
        self._meters.look(course.device_id)
        if self._breaker is not None:
            self._breaker.succeeded(course.device_id)
        self._at(self._now_s + course.remaining_s, _Kind.ENDED, course)

    def _release(self, course: _Course) -> None:
        assert course.device_id is not None
        self._ledger.release(course.id)
        self._courses.pop(course.id)
        self._preemptible.pop(course.id, None)
        self._policy.on_session_ended(course.id)
        course.attempt += 1
        if course.running:
            course.running = False
            self._meters.count(course.device_id, course.bits, course.cost, -1)
        self._meters.look(course.device_id)
        course.device_id = None

    # -------------------------------------------------------------------------------------------------------- waiting

    def _wait(self, course: _Course, patience_s: float) -> None:
        """Has a session wait. One that was stopped for others waits however long it takes."""
        assert self._line is not None
        course.waited = True
        course.waiting_since_s = self._now_s
        course.attempt += 1
        self._tally.queued += 1
        self._line.add(
            Waiting(
                session_id=course.id,
                workload=course.session.workload,
                priority=course.session.priority,
                asked_s=course.asked_s,
                waiting_s=self._now_s,
                avoided=course.avoided,
            )
        )
        self._courses[course.id] = course
        if patience_s < math.inf:
            self._at(self._now_s + patience_s, _Kind.EXPIRED, course)
        keep_s = self._line.settings.keep_device_after.total_seconds()
        if keep_s < patience_s:
            self._at(self._now_s + keep_s, _Kind.WAITED, course)

    def _give_up(self, course: _Course) -> None:
        assert self._line is not None
        self._line.remove(course.id)
        self._courses.pop(course.id)
        course.attempt += 1
        self._tally.end_waiting(self._now_s, placed_before=course.placed_before)
        self._serve()

    def _serve(self) -> None:
        if self._line is not None and len(self._line):
            self._line.serve(
                self._now_s, lambda waiting, closed: self._decide(self._courses[waiting.session_id], closed)
            )

    # --------------------------------------------------------------------------------------------------- dead devices

    def _device_failed(self, device_id: DeviceId) -> None:
        """Ends what runs on a device; whoever fed it asks again at once for what is left."""
        courses = [self._courses[session_id] for session_id in self._ledger.sessions(device_id)]
        for course in courses:
            course.remaining_s -= self._now_s - course.begun_s if course.running else 0.0
            self._tally.moves += course.running
            self._release(course)
        for course in courses:
            course.placed_before = True
            self._ask(course)

    def _not_begun(self, course: _Course) -> None:
        device_id = course.device_id
        assert device_id is not None
        self._release(course)
        if self._breaker is not None:
            self._put_aside(device_id, self._breaker.failed(device_id, self._now_s, "A session could not begin."))
        if course.retries == RETRIES:
            self._tally.end_waiting(self._now_s, placed_before=True)
        else:
            course.retries += 1
            course.placed_before = True
            course.avoided |= {device_id}
            self._ask(course)
        self._serve()

    def _put_aside(self, device_id: DeviceId, quarantine: Quarantine | None) -> None:
        if quarantine is not None:
            self._devices.set_aside(device_id, quarantine.message)
            self._at(max(self._now_s, quarantine.probe_s) + PROBE_S, _Kind.PROBED, device_id)

    def _probed(self, device_id: DeviceId) -> None:
        assert self._breaker is not None
        if self._devices.dead(device_id, self._now_s):
            # Probes of a device that never comes back would find nothing, for ever.
            if self._devices.comes_back(device_id):
                self._put_aside(device_id, self._breaker.probe_failed(device_id, self._now_s, "Its probe failed."))
            return
        self._breaker.probe_passed(device_id)
        self._devices.bring_back(device_id)
        self._serve()

    # ----------------------------------------------------------------------------------------------------------- time

    def _at(self, time_s: float, kind: _Kind, subject: _Course | DeviceId) -> None:
        attempt = subject.attempt if isinstance(subject, _Course) else 0
        heapq.heappush(self._events, (time_s, kind, next(self._numbers), subject, attempt))

    def _pass_time(self, time_s: float) -> None:
        """Looks at what has been the case up to a time."""
        while self._next_sample_s <= time_s and len(self._samples) <= SAMPLE_COUNT:
            waiting = len(self._line) if self._line is not None else 0
            self._samples.append(self._meters.sample(self._next_sample_s, waiting))
            self._next_sample_s += self._sample_every_s
        if self._measured:
            self._measure(time_s)
        self._meters.pass_time(time_s)
        self._now_s = time_s

    def _measure(self, time_s: float) -> None:
        """Tells the policy once a second what was measured a second before."""
        if self._next_tick_s > time_s:
            return
        present = [(view.id, self._meters.utilization(view.id)) for view in self._fleet.views]
        while self._next_tick_s <= time_s:
            for device_id, utilization in self._last_measured:
                self._policy.on_measured(device_id, utilization)
            self._last_measured = present
            self._next_tick_s += 1.0
