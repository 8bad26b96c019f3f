"""Replays: every session has one end, the same seed gives the same figures, and the choices are placement's own."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from traces import L4, T4, asked, fleet, trace_of

from balancer.adapters.policy_plugins import load_policy
from balancer.domain.decision import PlacementSettings
from balancer.domain.device import Utilization
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import Offers
from balancer.domain.placement import decide
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.queue import QueueSettings
from balancer.domain.session import Priority
from balancer.domain.workload import Workload
from balancer.simulation.chance import seeded
from balancer.simulation.comparison import compare
from balancer.simulation.fleet import pooled
from balancer.simulation.outcome import DeviceFailure, ReplayResult
from balancer.simulation.replay import ReplayRules, replay
from balancer.simulation.sustainable import highest_factor
from balancer.simulation.trace import Trace
from balancer.simulation.traffic import KINDS, generate

OPEN = PlacementSettings(admission=False)


class Noting(LeastWeightedLoad):
    """Notes where sessions were placed, and what was measured."""

    def __init__(self) -> None:
        super().__init__()
        self.placed: list[tuple[SessionId, DeviceId]] = []
        self.live: set[SessionId] = set()
        self.measured: list[tuple[DeviceId, Utilization]] = []

    def on_session_placed(self, session_id: SessionId, device_id: DeviceId, workload: Workload) -> None:
        super().on_session_placed(session_id, device_id, workload)
        self.placed.append((session_id, device_id))
        self.live.add(session_id)

    def on_session_ended(self, session_id: SessionId) -> None:
        super().on_session_ended(session_id)
        self.live.discard(session_id)

    def on_measured(self, device_id: DeviceId, utilization: Utilization) -> None:
        self.measured.append((device_id, utilization))


def ends(result: ReplayResult) -> int:
    return result.completed + result.refused + result.expired + result.lost


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("admission", [True, False])
def test_every_session_has_one_end_and_nothing_stays_booked(kind: str, admission: bool) -> None:
    """The replay itself refuses to give figures when a session was lost or anything is booked at its end."""
    mixed = fleet(T4, L4)
    trace = generate(kind, mixed, seeded(7), load=1.3, duration_s=2 * 3600)
    failures = (DeviceFailure(device_id=mixed.views[0].id, time_s=3600, duration_s=1800),)
    policy = Noting()
    rules = ReplayRules(settings=PlacementSettings(admission=admission), failures=failures)
    result = replay(trace, mixed, policy, rules)
    assert ends(result) == result.offered == len(trace.sessions)
    assert policy.live == set()
    assert result.moves > 0
    if admission:
        assert result.below_real_time_s == 0
        assert max(device.highest_busy for device in result.devices) <= 0.9


def test_the_same_seed_gives_the_same_figures_and_another_one_others() -> None:
    mixed = fleet(T4, L4)

    def figures(seed: int) -> ReplayResult:
        trace = generate("mixed", mixed, seeded(seed), load=1.0, duration_s=4 * 3600)
        return replay(trace, mixed, load_policy("least_weighted_load"), ReplayRules())

    assert figures(1) == figures(1)
    assert figures(1) != figures(2)


def test_choices_are_those_of_the_placement_code() -> None:
    """By hand: the ledger is booked and released along a trace, and placement is asked at each arrival."""
    mixed = fleet(T4, L4, T4)
    chance = Random(5)
    trace = trace_of(*(asked(10.0 * n, chance.randint(5, 60), duration_s=chance.randint(20, 90)) for n in range(80)))
    policy = Noting()
    replay(trace, mixed, policy, ReplayRules(queue=None))
    ledger, offers, choosing = Ledger(), Offers(mixed.views, PlacementSettings(), {}), LeastWeightedLoad()
    expected = []
    running: list[tuple[float, SessionId]] = []
    for number, session in enumerate(trace.sessions):
        for one in [one for one in running if one[0] <= session.arrival_s]:
            ledger.release(one[1])
            choosing.on_session_ended(one[1])
            running.remove(one)
        session_id = SessionId(f"s{number}")
        decision = decide(session.workload, offers, ledger, choosing)
        if decision.reservation is not None:
            ledger.book(session_id, decision.reservation)
            choosing.on_session_placed(session_id, decision.reservation.device_id, session.workload)
            running.append((session.arrival_s + trace.held_s(session), session_id))
            expected.append((session_id, decision.reservation.device_id))
    assert policy.placed == expected
    assert len({device for _, device in expected}) == 3


def test_a_device_over_its_capacity_runs_its_live_sessions_below_real_time() -> None:
    trace = trace_of(asked(0, 80), asked(50, 80, duration_s=150), asked(50, 10, priority=Priority.BATCH))
    result = replay(trace, fleet(T4), LeastWeightedLoad(), ReplayRules(settings=OPEN, queue=None))
    # From 50 s to 100 s two live sessions share one encoder: 160 % of it. The file gives way and does not count.
    assert result.below_real_time_s == pytest.approx(100)
    assert result.real_time_s == pytest.approx(250)
    assert result.session_s == pytest.approx(350)
    assert 0.55 < result.lowest_speed < 0.63


def test_only_time_after_the_warm_up_counts() -> None:
    trace = trace_of(asked(0, 80), asked(0, 80))
    result = replay(trace, fleet(T4), LeastWeightedLoad(), ReplayRules(settings=OPEN, from_s=75))
    assert result.below_real_time_s == pytest.approx(50)


def test_refusals_are_counted_by_the_rule_that_most_devices_gave() -> None:
    trace = trace_of(asked(0, 80), asked(1, 80), asked(2, 80), asked(3, 95))
    result = replay(trace, fleet(), LeastWeightedLoad(), ReplayRules())
    assert result.refused_by_rule == {"CAPACITY": 2}
    assert result.unserved_times_s == (2, 3)
    assert result.unserved_share == 0.5


def test_who_waits_is_placed_when_room_comes_and_who_waited_too_long_is_given_up() -> None:
    trace = trace_of(
        asked(0, 80), asked(10, 80, max_wait_s=200), asked(20, 80, max_wait_s=30), asked(250, 80, max_wait_s=0)
    )
    waited = replay(trace, fleet(T4), LeastWeightedLoad(), ReplayRules())
    assert (waited.completed, waited.queued, waited.expired, waited.refused) == (3, 2, 1, 0)
    assert waited.mean_wait_s == waited.longest_wait_s == pytest.approx(90)
    hasty = replay(trace, fleet(T4), LeastWeightedLoad(), ReplayRules(queue=None))
    assert (hasty.completed, hasty.queued, hasty.refused) == (2, 0, 2)


def test_a_full_queue_refuses() -> None:
    trace = trace_of(asked(0, 80), *(asked(10, 80, max_wait_s=500) for _ in range(3)))
    rules = ReplayRules(queue=QueueSettings(max_sessions=2))
    result = replay(trace, fleet(T4), LeastWeightedLoad(), rules)
    assert (result.completed, result.queued, result.refused) == (3, 2, 1)


def test_a_live_session_stops_a_preemptible_one_which_begins_anew_later() -> None:
    file = asked(0, 300, duration_s=100, priority=Priority.BATCH, preemptible=True)
    live = [asked(50, 45, duration_s=30), asked(50, 44, duration_s=30)]
    result = replay(trace_of(file, *live), fleet(T4), LeastWeightedLoad(), ReplayRules())
    assert (result.preemptions, result.completed, result.refused) == (1, 3, 0)
    # 50 s in vain, 60 s of live sessions, 100 s again.
    assert result.session_s == pytest.approx(210)


def test_sessions_of_a_device_that_fails_are_placed_elsewhere_for_what_is_left_of_them() -> None:
    trace = trace_of(asked(0, 40), asked(0, 40))
    policy = Noting()
    failing = DeviceFailure(device_id=DeviceId("gpu-0"), time_s=60)
    result = replay(trace, fleet(), policy, ReplayRules(failures=(failing,)))
    assert policy.placed[0] == ("s0", "gpu-0")
    assert result.completed == 2
    assert result.moves == 1
    # It came back to the dead device first, which nobody knew of, and then went to the other one.
    assert policy.placed[-1] == ("s0", "gpu-1")
    assert result.session_s == pytest.approx(200)


def test_a_device_that_fails_again_takes_nothing_from_a_session_that_has_not_begun_on_it() -> None:
    trace = trace_of(asked(0, 40), asked(0, 40))
    failures = tuple(DeviceFailure(device_id=DeviceId("gpu-0"), time_s=time_s) for time_s in (60.0, 60.5))
    result = replay(trace, fleet(), LeastWeightedLoad(), ReplayRules(failures=failures))
    assert (result.completed, result.moves) == (2, 1)
    assert result.session_s == pytest.approx(200)


def test_a_dead_device_is_put_aside_after_two_tries_and_comes_back_by_its_probe() -> None:
    trace = trace_of(*(asked(float(second), 5, duration_s=15) for second in range(1000)))
    failing = DeviceFailure(device_id=DeviceId("gpu-0"), time_s=100, duration_s=300)
    policy = Noting()
    result = replay(trace, fleet(), policy, ReplayRules(failures=(failing,)))
    assert result.dead_first_tries <= 3
    assert result.completed == 1000
    assert any(device == "gpu-0" for session, device in policy.placed if int(session[1:]) > 700)
    black_hole = replay(trace, fleet(), LeastWeightedLoad(), ReplayRules(failures=(failing,), breaker=None))
    assert black_hole.dead_first_tries > 100


def test_measurements_come_once_a_second_and_are_a_second_old() -> None:
    policy = Noting()
    replay(trace_of(asked(10, 50, duration_s=5), end_s=20), fleet(T4), policy, ReplayRules())
    told = [utilization.encoder_percent for _, utilization in policy.measured]
    # Told at 1 s, 2 s and so on, up to the end of the last session at 15 s.
    assert told == [0] * 10 + [50] * 5 or told == [0] * 11 + [50] * 4


def test_one_device_of_all_capacity_serves_no_less_than_several() -> None:
    mixed = fleet(T4, L4, L4)
    trace = generate("mixed", mixed, seeded(4), load=1.2, duration_s=8 * 3600)
    rules = ReplayRules(queue=None)
    comparison = compare(trace, mixed, rules, [LeastWeightedLoad], seed=1, sustainable=False)
    share = comparison.results[0].work_share_of_pool
    assert share is not None
    assert 0.7 < share < 1.1
    assert len(pooled(mixed).views) == 1
    alone = fleet(T4)
    same = compare(trace, alone, rules, [LeastWeightedLoad], seed=1, sustainable=False)
    assert same.results[0].work_share_of_pool == pytest.approx(1, abs=1e-3)


def test_what_can_be_sustained_is_found_by_halving() -> None:
    trace = trace_of(*(asked(float(second), 10) for second in range(1000)))
    tried: list[int] = []

    def replayed(scaled: Trace) -> ReplayResult:
        tried.append(len(scaled.sessions))
        return replay(scaled, fleet(T4), LeastWeightedLoad(), ReplayRules(settings=OPEN))

    # Ten sessions at a time keep the encoder busy, and one of each hundred seconds is asked for at 1 %.
    factor = highest_factor(trace, replayed, seed=1, most=1.0, steps=6)
    assert 0.03 < factor < 0.1
    assert len(tried) == 7
    assert highest_factor(trace_of(asked(0, 10)), replayed, seed=1, most=2.0) == 2.0


def test_waiting_sessions_that_nothing_will_ever_serve_are_counted_when_all_is_over() -> None:
    dead = DeviceFailure(device_id=DeviceId("gpu-0"), time_s=100)
    file = asked(0, 50, duration_s=1000, priority=Priority.BATCH, preemptible=True, max_wait_s=20)
    result = replay(trace_of(file), fleet(T4), LeastWeightedLoad(), ReplayRules(failures=(dead,)))
    assert (result.moves, result.lost, result.completed) == (1, 1, 0)


def test_a_queue_lets_its_head_keep_a_device_after_a_while() -> None:
    """Small sessions keep coming; without a device kept for it a large one would wait for ever."""
    small = [asked(float(second), 30, duration_s=25, max_wait_s=5) for second in range(0, 600, 10)]
    large = asked(55, 85, max_wait_s=400)
    rules = ReplayRules(queue=QueueSettings(keep_device_after=timedelta(seconds=60)))
    result = replay(trace_of(*small, large), fleet(T4), LeastWeightedLoad(), rules)
    assert result.longest_wait_s is not None
    assert 60 <= result.longest_wait_s < 100
