"""The policies that ship."""

from __future__ import annotations

from fractions import Fraction

import pytest
from domain.devices import encode, gpu, ladder, workload
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.capacity import capacity_of_host
from balancer.domain.device import DeviceView
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import PlacementSettings, place
from balancer.domain.policies import Candidate, LeastWeightedLoad, Policy, Wowza
from balancer.domain.policies.wowza import session_load
from balancer.domain.workload import CostFactors, Workload

HOST = capacity_of_host(8)
LADDER_LOAD = (1280 * 720 + (1 + 5) * (1280 * 720 + 854 * 480 + 640 * 360)) // 1000


def candidate(
    device_id: str, *, weight: int = 100, booked: int = 0, cost: int = 10, sessions: int = 0, highest: int = 100
) -> Candidate:
    """Makes a device to choose."""
    return Candidate(
        view=gpu(device_id=device_id, weight=weight),
        cost_pixels_per_second=cost,
        booked_pixels_per_second=booked,
        session_count=sessions,
        highest_weight=highest,
    )


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(0, 10**15), st.integers(0, 10**12), st.integers(0, 9)),
        min_size=1,
        max_size=8,
    )
)
def test_the_default_chooses_as_rationals_would(devices: list[tuple[int, int, int, int]]) -> None:
    """The rule, written down plainly, against the one that never divides."""
    highest = max(weight for weight, *_ in devices)
    candidates = [
        candidate(f"GPU-{index}", weight=weight, booked=booked, cost=cost, sessions=sessions, highest=highest)
        for index, (weight, booked, cost, sessions) in enumerate(devices)
    ]
    choice = LeastWeightedLoad().choose(candidates, ladder())
    plain = min(candidates, key=lambda one: (one.weighted_load_after, one.session_count))
    assert choice.device_id == plain.view.id
    assert choice.scores == {one.view.id: int(one.weighted_load_after) for one in candidates}


def test_weighted_loads_are_exact_rationals() -> None:
    one = candidate("GPU-1", weight=30, booked=1, cost=2)
    assert one.weighted_load_before == Fraction(100, 30)
    assert one.weighted_load_after == Fraction(300, 30)


@pytest.mark.parametrize("policy", [LeastWeightedLoad(), Wowza()])
def test_nothing_to_choose_from_is_an_error(policy: Policy) -> None:
    with pytest.raises(ValueError, match="no candidate"):
        policy.choose((), ladder())


def test_the_wowza_load_of_a_session_counts_pixels_of_one_picture() -> None:
    assert session_load(ladder(), CostFactors()) == LADDER_LOAD
    faster = workload(encode(720, frames_per_second=60))
    assert session_load(faster, CostFactors()) == session_load(workload(encode(720)), CostFactors())


def test_the_wowza_load_is_at_least_one_for_any_work_and_none_for_passing_through() -> None:
    assert session_load(workload(encode(size=(16, 2))), CostFactors()) == 1
    assert session_load(workload(), CostFactors()) == 0


def test_wowza_follows_the_factors_of_the_settings() -> None:
    policy = Wowza()
    policy.on_settings(PlacementSettings(factors=CostFactors(decode=0, scale=0, encode=1)))
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-1"), workload(encode(720)))
    assert policy.loads == {"GPU-1": 921}


def test_wowza_looks_at_the_load_before_placing_and_divides_in_whole_numbers() -> None:
    small, large = candidate("GPU-1", weight=1), candidate("GPU-2", weight=100)
    policy = Wowza()
    assert policy.choose((small, large), ladder()).device_id == "GPU-1"
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-1"), workload(encode(720)))
    choice = policy.choose((small, large), ladder())
    assert choice.device_id == "GPU-2"
    assert choice.scores == {"GPU-1": 1280 * 720 * 6 // 1000 * 100, "GPU-2": 0}


def test_wowza_takes_the_first_of_equals_in_whole_numbers() -> None:
    """999 and 1000 thousandths of the same weighted load are one."""
    policy = Wowza()
    policy.on_settings(PlacementSettings(factors=CostFactors(decode=0, scale=0, encode=1)))
    policy.on_session_placed(SessionId("a"), DeviceId("GPU-1"), workload(encode(size=(1999, 1))))
    policy.on_session_placed(SessionId("b"), DeviceId("GPU-2"), workload(encode(size=(1000, 1))))
    assert policy.choose((candidate("GPU-1"), candidate("GPU-2")), ladder()).device_id == "GPU-1"


def test_used_raw_a_weight_of_zero_takes_everything_in_wowza() -> None:
    """The rule as it is; the common filter keeps such devices from it."""
    policy = Wowza()
    closed = gpu(weight=0)
    policy.on_session_placed(SessionId("s"), closed.id, ladder())
    assert policy.weighted_load(closed, 100) == 0
    decision = place(ladder(), [closed], Ledger(), policy, PlacementSettings(), HOST)
    assert decision.device_id is None


def test_wowza_takes_away_what_it_added_even_if_factors_changed() -> None:
    policy = Wowza()
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-1"), ladder())
    assert policy.loads == {"GPU-1": LADDER_LOAD}
    policy.on_settings(PlacementSettings(factors=CostFactors(encode=50)))
    policy.on_session_ended(SessionId("s"))
    policy.on_session_ended(SessionId("s"))
    policy.on_session_ended(SessionId("never placed"))
    assert policy.loads == {}


def test_wowza_moves_a_session_that_is_placed_again() -> None:
    policy = Wowza()
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-1"), ladder())
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-2"), ladder())
    assert policy.loads == {"GPU-2": LADDER_LOAD}


def serve(policy: Policy, views: list[DeviceView], arrivals: list[Workload]) -> list[int]:
    """Places sessions by a policy, telling it as the engine does; gives the booked cost per device."""
    ledger = Ledger()
    policy.on_settings(PlacementSettings())
    policy.on_devices(views)
    for number, asked in enumerate(arrivals):
        session_id = SessionId(str(number))
        policy.on_session_created(session_id, asked)
        decision = place(asked, views, ledger, policy, PlacementSettings(), HOST)
        assert decision.policy == policy.name
        if decision.reservation is not None:
            ledger.book(session_id, decision.reservation)
            policy.on_session_placed(session_id, decision.reservation.device_id, asked)
    return [ledger.cost(view.id) for view in views]


def test_frame_rate_is_what_sets_the_two_rules_apart() -> None:
    """Streams of 60 and of 15 frames/s in turn: by pixels of one picture they look alike."""
    views = [gpu(device_id="GPU-1"), gpu(device_id="GPU-2")]
    arrivals = [workload(encode(720, frames_per_second=60 if number % 2 == 0 else 15)) for number in range(10)]
    fast, slow = serve(Wowza(), views, arrivals)
    assert fast == 4 * slow
    first, second = serve(LeastWeightedLoad(), views, arrivals)
    assert abs(first - second) <= 5 * 1280 * 720 * 60
