"""What holds for every policy that ships, and what sets each one apart."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from domain.devices import encode, gpu, ladder, nvenc, workload
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.adapters.policy_plugins import load_policy, policy_names
from balancer.domain.capacity import CapacityOverride, capacity_of_host
from balancer.domain.decision import Need, PlacementSettings, Refusal
from balancer.domain.demand import demand_on, nominal_cost
from balancer.domain.device import DeviceView, Dimension, Utilization
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import place
from balancer.domain.policies import (
    BestFit,
    Candidate,
    DominantResource,
    FirstFit,
    LeastUtilization,
    LeastWeightedLoad,
    Livepeer,
    Policy,
    RoundRobin,
    SessionCount,
)
from balancer.domain.policies.least_weighted_load import FALLS_BEHIND
from balancer.domain.policies.utilization import busy_score
from balancer.domain.workload import CostFactors, VideoCodec, Workload

SHIPPED = (
    "least_weighted_load",
    "adaptive",
    "dominant_resource",
    "best_fit",
    "wowza",
    "livepeer",
    "round_robin",
    "first_fit",
    "session_count",
    "utilization",
)
HOST = capacity_of_host(8)
SHAPES = (ladder(), workload(encode(2160)), workload(encode(360)), workload())


@cache
def card(device_id: str, weight: int) -> DeviceView:
    """Makes a device once: making one takes longer than choosing among many."""
    return gpu(device_id=device_id, weight=weight)


def candidate(
    device_id: str,
    *dimensions: tuple[int, int, int],
    weight: int = 100,
    sessions: int = 0,
    booked: int = 0,
    cost: int = 10,
) -> Candidate:
    """Makes a device to choose, with what is used, needed and bookable of each dimension."""
    names = (Dimension.ENCODE, Dimension.DECODE, Dimension.MEMORY)
    needs: tuple[Need, ...] = tuple(
        (name, needed, bookable) for name, (_, needed, bookable) in zip(names, dimensions, strict=False)
    )
    return Candidate(
        view=card(device_id, weight),
        cost_pixels_per_second=cost,
        booked_pixels_per_second=booked,
        session_count=sessions,
        highest_weight=100,
        device_needs=needs,
        device_used=tuple(used for used, _, _ in dimensions),
    )


CANDIDATES = st.lists(
    st.tuples(
        st.lists(
            st.tuples(st.integers(0, 10**7), st.integers(0, 10**6), st.integers(0, 10**7)), min_size=2, max_size=2
        ),
        st.sampled_from((1, 30, 100)),
        st.integers(0, 9),
        st.integers(0, 10**9),
    ),
    min_size=1,
    max_size=6,
)


def told(name: str, devices: Sequence[Candidate]) -> Policy:
    """Makes a policy that knows the devices and a few sessions."""
    policy = load_policy(name)
    policy.on_settings(PlacementSettings())
    policy.on_devices([one.view for one in devices])
    for number, one in enumerate(devices):
        session_id = SessionId(str(number))
        policy.on_session_created(session_id, SHAPES[number % len(SHAPES)])
        policy.on_session_placed(session_id, one.view.id, SHAPES[number % len(SHAPES)])
        policy.on_measured(one.view.id, Utilization(encoder_percent=number * 10, compute_percent=7 * number))
    policy.on_session_ended(SessionId("0"))
    return policy


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=50)
@given(devices=CANDIDATES)
def test_every_choice_is_a_candidate_with_the_lowest_score_and_is_the_same_when_asked_again(
    name: str, devices: list[tuple[list[tuple[int, int, int]], int, int, int]]
) -> None:
    candidates = [
        candidate(f"GPU-{index}", *dimensions, weight=weight, sessions=sessions, booked=booked)
        for index, (dimensions, weight, sessions, booked) in enumerate(devices)
    ]
    policy = told(name, candidates)
    choice = policy.choose(candidates, ladder())
    assert choice.scores.keys() == {one.view.id for one in candidates}
    assert choice.scores[choice.device_id] == min(choice.scores.values())
    assert all(type(score) is int for score in choice.scores.values())
    assert [policy.choose(candidates, ladder()) for _ in range(3)] == [choice] * 3
    policy.choose(candidates[:1], workload(encode(2160)))
    assert policy.choose(candidates, ladder()) == choice, "having been asked is nothing that a policy was told"


@pytest.mark.parametrize("name", SHIPPED)
def test_no_policy_chooses_from_nothing(name: str) -> None:
    with pytest.raises(ValueError, match="no candidate"):
        load_policy(name).choose((), ladder())


def test_the_entry_points_are_the_policies_that_ship() -> None:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    declared = [EntryPoint(name, value, "") for name, value in project["entry-points"]["gpu_balancer.policies"].items()]
    assert {one.name: one.load()().name for one in declared} == {name: name for name in SHIPPED}
    assert policy_names()[: len(SHIPPED)] == SHIPPED
    assert {name: load_policy(name).name for name in SHIPPED} == {name: name for name in SHIPPED}


def chosen(policy: Policy, *candidates: Candidate, asked: Workload | None = None) -> str:
    return policy.choose(candidates, asked or ladder()).device_id


def test_dominant_resource_looks_at_the_fullest_dimension_after_placing() -> None:
    """By cost the first is idle, but its memory is nearly gone."""
    lopsided = candidate("GPU-1", (0, 1, 10), (0, 1, 10), (8, 1, 10))
    even = candidate("GPU-2", (5, 1, 10), (5, 1, 10), (5, 1, 10), booked=1000)
    assert chosen(DominantResource(), lopsided, even) == "GPU-2"
    assert chosen(LeastWeightedLoad(), lopsided, even) == "GPU-1"
    assert DominantResource().choose((lopsided, even), ladder()).scores == {"GPU-1": 900_000, "GPU-2": 600_000}


def taken_of_card(asked: Workload) -> tuple[int, int]:
    """Gives what a session takes of a card's encoders, and its cost there."""
    demand = demand_on(asked, card("GPU-1", 100), CostFactors())
    assert not isinstance(demand, Refusal)
    return demand.device_amounts[Dimension.ENCODE], demand.cost_pixels_per_second


def placed(policy: Policy, session_id: str, asked: Workload) -> None:
    policy.on_session_placed(SessionId(session_id), DeviceId("GPU-9"), asked)


def test_what_the_default_shuts_out_counts_as_if_it_were_there() -> None:
    small, large = workload(encode(360)), workload(encode(2160))
    takes, cost = taken_of_card(large)
    edge = candidate("GPU-1", (100, 2, 100 + takes + 1), booked=300)
    roomy = candidate("GPU-2", (100, 2, 100 + takes + 2), booked=500)
    fuller = candidate("GPU-3", (100, 2, 100 + takes - 1), booked=600)
    policy = LeastWeightedLoad()
    placed(policy, "file", replace(large, real_time=False))
    assert chosen(policy, edge, roomy, fuller, asked=small) == "GPU-1", "files give way"
    policy.on_session_created(SessionId("refused"), large)
    assert chosen(policy, edge, roomy, fuller, asked=small) == "GPU-1", "who was only asked for shuts out nobody"
    placed(policy, "large", large)
    choice = policy.choose((edge, roomy, fuller), small)
    assert choice.device_id == "GPU-2"
    assert choice.scores == {"GPU-1": 310 + cost, "GPU-2": 510, "GPU-3": 610}, "the third had no room for it before"
    assert chosen(policy, edge, fuller, asked=small) == "GPU-3"
    assert chosen(policy, edge, fuller, asked=replace(small, real_time=False)) == "GPU-1"
    policy.on_session_ended(SessionId("large"))
    assert chosen(policy, edge, fuller, asked=small) == "GPU-1"


def test_the_default_goes_by_the_largest_that_lives_however_many_come_and_go() -> None:
    small, middle, large = workload(encode(360)), workload(encode(720)), workload(encode(2160))
    takes, cost = taken_of_card(large)
    takes_less, costs_less = taken_of_card(middle)
    edge = candidate("GPU-1", (100, 2, 100 + takes + 1), booked=300)
    edge_of_middle = candidate("GPU-2", (100, 2, 100 + takes_less + 1), booked=300)

    def scores(policy: Policy) -> tuple[int, ...]:
        return tuple(policy.choose((edge, edge_of_middle), small).scores.values())

    policy = LeastWeightedLoad()
    for number in range(1000):
        placed(policy, f"s{number}", (large, middle, small)[number % 3])
        if number > 5:
            policy.on_session_ended(SessionId(f"s{number - 6}"))
        assert scores(policy) == (310 + cost, 310)
    for number in (996, 999):
        policy.on_session_ended(SessionId(f"s{number}"))
    assert scores(policy) == (310, 310 + costs_less)


def test_settings_and_devices_that_are_told_again_change_no_choice_of_the_default() -> None:
    small, large = workload(encode(360)), workload(encode(2160))
    takes, _ = taken_of_card(large)
    edge = candidate("GPU-1", (100, 2, 100 + takes + 1), booked=300)
    policy = LeastWeightedLoad()
    placed(policy, "large", large)
    before = policy.choose((edge,), small)
    policy.on_settings(PlacementSettings(version=2))
    policy.on_devices([edge.view])
    assert policy.choose((edge,), small) == before


def test_without_admission_the_default_counts_room_to_the_brim_and_takes_last_who_would_fall_behind() -> None:
    large = workload(encode(2160))
    takes, cost = taken_of_card(large)
    half, behind = (
        candidate(f"GPU-{number}", (8 * takes + takes // 2, number * takes, 9 * takes)) for number in (1, 2)
    )
    policy = LeastWeightedLoad()
    policy.on_settings(PlacementSettings(admission=False))
    assert list(policy.choose((half, behind), workload(encode(360))).scores.values()) == [10, 10 + FALLS_BEHIND]
    free_of_cost = [one._replace(cost_pixels_per_second=0) for one in (behind, half)]
    assert chosen(policy, *free_of_cost, asked=workload(encode(360))) == "GPU-1"
    placed(policy, "large", large)
    expected = [10 + cost, 10 + FALLS_BEHIND]
    assert list(policy.choose((half, behind), workload(encode(360))).scores.values()) == expected


def test_without_admission_what_is_too_much_goes_where_no_further_sessions_fall_behind() -> None:
    policy = LeastWeightedLoad()
    policy.on_settings(PlacementSettings(admission=False))
    in_time, brimful = candidate("GPU-1", (7, 2, 9)), candidate("GPU-2", (9, 2, 9), booked=1)
    behind = candidate("GPU-3", (11, 2, 9), booked=5_000_000)
    assert chosen(policy, brimful, behind, in_time) == "GPU-1"
    assert chosen(policy, brimful, behind) == "GPU-3"


def test_without_admission_the_larger_of_two_devices_takes_what_is_too_much() -> None:
    policy = LeastWeightedLoad()
    policy.on_settings(PlacementSettings(admission=False))
    for used in (9, 11):
        small, large = candidate("GPU-1", (used, 2, 9)), candidate("GPU-2", (used, 2, 9), booked=5_000_000)
        small = small._replace(view=gpu(device_id="GPU-1", weight=50))
        assert chosen(policy, small, large) == "GPU-2"


def test_between_equals_spreading_takes_fewer_sessions_and_packing_more() -> None:
    busy, calm = candidate("GPU-1", (1, 1, 4), sessions=2), candidate("GPU-2", (2, 2, 8), sessions=1)
    twin = candidate("GPU-3", (1, 1, 4), sessions=1)
    assert chosen(DominantResource(), busy, calm, twin) == "GPU-2"
    assert chosen(BestFit(), calm, busy, twin) == "GPU-1"


def test_best_fit_fills_the_fullest_device_where_the_session_fits() -> None:
    empty, half, full = candidate("GPU-1", (0, 2, 10)), candidate("GPU-2", (5, 2, 10)), candidate("GPU-3", (9, 2, 10))
    assert chosen(BestFit(), empty, half, full) == "GPU-2"
    assert chosen(BestFit(), full, candidate("GPU-4", (10, 2, 10))) == "GPU-3", "nobody has room: least is missing"


def test_an_operators_weight_leans_the_rules_that_go_by_shares() -> None:
    """Both devices are the same model: at half the weight one counts as twice as full, and is packed last."""
    views = [gpu(device_id="GPU-1", weight=50), gpu(device_id="GPU-2", weight=100)]
    one = candidate("GPU-1", (3, 1, 10), weight=50)
    other = candidate("GPU-2", (5, 1, 10))
    spread, pack = DominantResource(), BestFit()
    assert (chosen(spread, one, other), chosen(pack, other, one)) == ("GPU-1", "GPU-2")
    fuller = one._replace(device_used=(7,))
    assert (chosen(spread, fuller, other), chosen(pack, other, fuller)) == ("GPU-2", "GPU-1")
    spread.on_devices(views)
    pack.on_devices(views)
    assert (chosen(spread, one, other), chosen(pack, other, fuller)) == ("GPU-2", "GPU-2")


def test_weights_that_follow_from_capacity_lean_to_nobody() -> None:
    """The small device is as full as it is, though its weight is a tenth of the other's."""
    small = gpu(device_id="GPU-1", weight=10, override=CapacityOverride(encode_pixels_per_second=10**8))
    large = gpu(device_id="GPU-2", weight=100, override=CapacityOverride(encode_pixels_per_second=10**9))
    policy = DominantResource()
    policy.on_devices([small, large])
    candidates = (
        candidate("GPU-1", (4, 1, 10))._replace(view=small),
        candidate("GPU-2", (5, 1, 10))._replace(view=large),
    )
    assert policy.choose(candidates, ladder()).scores == {"GPU-1": 500_000, "GPU-2": 600_000}


def test_livepeer_counts_output_pixels_on_equal_cards() -> None:
    policy = Livepeer()
    weak, strong = candidate("GPU-1", weight=1), candidate("GPU-2", weight=100)
    assert chosen(policy, weak, strong) == "GPU-1"
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-1"), workload(encode(720)))
    assert policy.loads == {"GPU-1": 1280 * 720 * 30}
    assert chosen(policy, weak, strong) == "GPU-2"


def test_livepeer_leaves_a_session_that_moves_in_the_books_of_its_first_device() -> None:
    policy = Livepeer()
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-1"), workload(encode(720)))
    policy.on_session_placed(SessionId("s"), DeviceId("GPU-2"), workload(encode(720)))
    assert list(policy.loads) == ["GPU-1"]
    policy.on_session_ended(SessionId("s"))
    policy.on_session_ended(SessionId("s"))
    assert policy.loads == {}


def test_round_robin_moves_on_when_a_session_is_placed_and_skips_who_cannot() -> None:
    policy = RoundRobin()
    one, two, three = (candidate(f"GPU-{number}") for number in (1, 2, 3))
    policy.on_devices([one.view, two.view, three.view])
    order = []
    for number in range(4):
        assert chosen(policy, one, two, three) == chosen(policy, one, two, three)
        order.append(chosen(policy, one, two, three))
        policy.on_session_placed(SessionId(str(number)), DeviceId(order[-1]), ladder())
    assert order == ["GPU-1", "GPU-2", "GPU-3", "GPU-1"]
    assert chosen(policy, one, three) == "GPU-3"
    policy.on_devices([three.view, two.view, one.view])
    assert chosen(policy, three, two, one) == "GPU-3", "the first device was last in turn, and is the last one now"


def test_first_fit_and_session_count_look_at_nothing_else() -> None:
    busy, idle = candidate("GPU-1", (9, 1, 10), sessions=3, booked=10**9), candidate("GPU-2", (0, 1, 10), sessions=4)
    assert chosen(FirstFit(), busy, idle) == "GPU-1"
    assert chosen(SessionCount(), idle, busy) == "GPU-1"
    assert chosen(SessionCount(), busy, idle._replace(session_count=3)) == "GPU-1"


def test_utilization_adds_engines_and_takes_the_unknown_for_idle() -> None:
    assert busy_score(Utilization()) == 0
    assert busy_score(Utilization(encoder_percent=30, decoder_percent=20)) == 50_000
    assert busy_score(Utilization(compute_percent=100)) == 100_000
    assert busy_score(Utilization(compute_percent=25)) == 12_500, "a quarter of compute is an eighth of the score"
    policy = LeastUtilization()
    busy, unknown = candidate("GPU-1"), candidate("GPU-2", sessions=50, booked=10**12)
    policy.on_measured(DeviceId("GPU-1"), Utilization(encoder_percent=1))
    assert chosen(policy, busy, unknown) == "GPU-2"
    policy.on_devices([unknown.view])
    assert chosen(policy, busy, unknown) == "GPU-1", "what left is forgotten"


def spread_of(policy: Policy, views: list[DeviceView], count: int, asked: Workload) -> list[int]:
    """Places sessions at once, telling the policy as the engine does; gives the sessions on each device."""
    ledger = Ledger()
    policy.on_settings(PlacementSettings())
    policy.on_devices(views)
    for number in range(count):
        session_id = SessionId(str(number))
        policy.on_session_created(session_id, asked)
        decision = place(asked, views, ledger, policy, PlacementSettings(), HOST)
        if decision.reservation is not None:
            ledger.book(session_id, decision.reservation)
            policy.on_session_placed(session_id, decision.reservation.device_id, asked)
    return [ledger.session_count(view.id) for view in views]


@pytest.mark.parametrize(
    "name",
    ["least_weighted_load", "adaptive", "dominant_resource", "wowza", "livepeer", "round_robin", "session_count"],
)
def test_sixty_four_at_once_on_eight_equal_devices_are_eight_each(name: str) -> None:
    views = [gpu(device_id=f"GPU-{number}") for number in range(8)]
    assert spread_of(load_policy(name), views, 64, workload(encode(360))) == [8] * 8


@pytest.mark.parametrize("name", ["utilization", "first_fit", "best_fit"])
def test_sixty_four_at_once_all_go_to_the_same_device_by_rules_that_reserve_nothing_or_pack(name: str) -> None:
    views = [gpu(device_id=f"GPU-{number}", memory_mib=None) for number in range(8)]
    assert spread_of(load_policy(name), views, 64, workload(encode(size=(320, 180)))) == [64, *[0] * 7]


SMALL, HALF, LARGE = (CapacityOverride(encode_pixels_per_second=times * 10**8) for times in (1, 2, 4))


def adaptive_with(*views: DeviceView, admission: bool = True) -> Policy:
    policy = load_policy("adaptive")
    policy.on_settings(PlacementSettings(admission=admission))
    policy.on_devices(views)
    return policy


def test_adaptive_spreads_while_there_is_room_and_packs_when_it_gets_tight() -> None:
    views = [gpu(device_id="GPU-1"), gpu(device_id="GPU-2")]
    policy = adaptive_with(*views)
    asked = workload(encode(720))
    calm = (candidate("GPU-1", (1, 1, 10), booked=10), candidate("GPU-2", (8, 1, 10), booked=80))
    assert policy.choose(calm, asked).device_id == "GPU-1"
    assert policy.choose(calm, asked) == LeastWeightedLoad().choose(calm, asked)
    tight = (candidate("GPU-1", (5, 1, 10), booked=50), candidate("GPU-2", (8, 1, 10), booked=80))
    assert policy.choose(tight, asked).device_id == "GPU-2"


def test_packing_keeps_a_place_that_the_tightest_fit_would_take() -> None:
    """A device has room for one large session and a bit, another for nearly two: the small one costs no place there."""
    policy = adaptive_with(gpu(device_id="GPU-1"), gpu(device_id="GPU-2"))
    large, small = workload(encode(2160)), workload(encode(720))
    one, little = (encode_amount(asked) for asked in (large, small))
    assert little < one // 4
    bookable = 20 * one
    tight = (
        candidate("GPU-1", (bookable - one - little // 2, little, bookable)),
        candidate("GPU-2", (bookable - 2 * one + little // 2, little, bookable)),
    )
    assert policy.choose(tight, small).device_id == "GPU-1", "nobody asks for a large one"
    placed(policy, "large", large)
    choice = policy.choose(tight, small)
    assert choice.device_id == "GPU-2"
    ours, theirs = (nominal_cost(asked, CostFactors()) for asked in (small, large))
    assert choice.scores["GPU-1"] == pytest.approx(theirs, rel=0.01)
    assert choice.scores["GPU-2"] <= ours
    policy.on_session_ended(SessionId("large"))
    assert policy.choose(tight, small).device_id == "GPU-1"


def test_packing_keeps_what_a_large_session_would_leave_for_a_middle_one() -> None:
    """One device has room for a large and a middle session, another for a small one besides: it goes there."""
    policy = adaptive_with(gpu(device_id="GPU-1"), gpu(device_id="GPU-2"))
    large, middle, small = workload(encode(2160)), workload(encode(1080)), workload(encode(360))
    takes = [encode_amount(asked) for asked in (large, middle, small)]
    exact, more = sum(takes[:2]), sum(takes)
    bookable = 20 * takes[0]
    tight = (
        candidate("GPU-1", (bookable - exact, takes[2], bookable)),
        candidate("GPU-2", (bookable - more, takes[2], bookable)),
    )
    assert policy.choose(tight, small).device_id == "GPU-1", "nobody asks for larger ones"
    placed(policy, "large", large)
    placed(policy, "middle", middle)
    choice = policy.choose(tight, small)
    assert choice.device_id == "GPU-2"
    assert choice.scores["GPU-2"] == nominal_cost(small, CostFactors()), "one place for its like is lost"


def encode_amount(asked: Workload) -> int:
    """What a session takes of a GPU's encoders."""
    demand = demand_on(asked, gpu(), CostFactors())
    assert not isinstance(demand, Refusal)
    return demand.device_amounts[Dimension.ENCODE]


def test_packing_keeps_cards_for_what_only_they_can_do() -> None:
    able, plain = gpu(device_id="GPU-1"), gpu(device_id="GPU-2", capabilities=nvenc(VideoCodec.H264))
    policy = adaptive_with(able, plain)
    asked, rare = workload(encode(720)), workload(encode(1080, codec=VideoCodec.AV1))
    needed, kept = encode_amount(asked), encode_amount(rare)
    just, bookable = -(-kept // needed) * needed, 100 * kept
    tight = (
        candidate("GPU-1", (bookable - just, needed, bookable))._replace(view=able),
        candidate("GPU-2", (bookable - just - needed // 2, needed, bookable))._replace(view=plain),
    )
    assert policy.choose(tight, asked).device_id == "GPU-1", "nobody asks for what only it can do"
    placed(policy, "rare", rare)
    assert policy.choose(tight, asked).device_id == "GPU-2"


def test_adaptive_keeps_the_place_for_a_large_session_where_spreading_fills_it_up() -> None:
    """Two devices, filled with small sessions until one large session would just still fit on one of them."""
    views = [gpu(device_id=f"GPU-{number}", memory_mib=None) for number in (1, 2)]
    small, large = workload(encode(720)), workload(encode(2160), encode(1080), encode(720))

    def takes_large_after(policy: Policy) -> bool:
        ledger = Ledger()
        policy.on_settings(PlacementSettings())
        policy.on_devices(views)
        whole = place(large, views, ledger, policy, PlacementSettings(), HOST).reservation
        assert whole is not None
        one = place(small, views, ledger, policy, PlacementSettings(), HOST).reservation
        assert one is not None
        limit = views[0].capacity.limits[Dimension.ENCODE] * 9 // 10
        room = 2 * limit - whole.device_amounts[Dimension.ENCODE]
        for number in range(room // one.device_amounts[Dimension.ENCODE] - 1):
            decision = place(small, views, ledger, policy, PlacementSettings(), HOST)
            if decision.reservation is not None:
                ledger.book(SessionId(str(number)), decision.reservation)
        return place(large, views, ledger, policy, PlacementSettings(), HOST).device_id is not None

    assert takes_large_after(load_policy("adaptive"))
    unaware, aware = load_policy("least_weighted_load"), load_policy("least_weighted_load")
    placed(aware, "large", large)
    assert not takes_large_after(unaware)
    assert takes_large_after(aware)


def test_without_admission_adaptive_is_the_default_however_full_devices_are() -> None:
    policy = adaptive_with(gpu(device_id="GPU-1"), gpu(device_id="GPU-2"), admission=False)
    over = (candidate("GPU-1", (30, 1, 10), booked=300), candidate("GPU-2", (9, 1, 10), booked=350))
    default = LeastWeightedLoad()
    default.on_settings(PlacementSettings(admission=False))
    assert policy.choose(over, ladder()) == default.choose(over, ladder())


def test_adaptive_counts_who_could_but_has_no_room_as_full_and_who_cannot_not_at_all() -> None:
    """One of two devices is a candidate, two fifths full: the fleet is seven tenths full, or two fifths."""
    asked = workload(encode(720, codec=VideoCodec.AV1))
    alone = (candidate("GPU-1", (4, 1, 10)),)
    full = adaptive_with(gpu(device_id="GPU-1"), gpu(device_id="GPU-2"))
    unable = adaptive_with(gpu(device_id="GPU-1"), gpu(device_id="GPU-2", capabilities=nvenc(VideoCodec.H264)))
    spread = LeastWeightedLoad().choose(alone, asked)
    assert full.choose(alone, asked) != spread
    assert unable.choose(alone, asked) == spread


def test_adaptive_does_not_count_who_is_too_slow_for_one_of_the_streams_however_empty() -> None:
    fast, slow = gpu(device_id="GPU-1", override=LARGE), gpu(device_id="GPU-2", weight=50, override=HALF)
    usual, too_fast = (workload(encode(720, frames_per_second=rate)) for rate in (30, 200))
    alone = (candidate("GPU-1", (4, 1, 10))._replace(view=fast),)
    policy = adaptive_with(fast, slow)
    assert policy.choose(alone, usual) != LeastWeightedLoad().choose(alone, usual), "three fifths full"
    assert policy.choose(alone, too_fast) == LeastWeightedLoad().choose(alone, too_fast), "two fifths full"


def test_adaptive_does_not_count_who_is_too_small_for_the_session_however_empty() -> None:
    asked = workload(*[encode(720)] * 20)
    large, small = gpu(device_id="GPU-1", override=LARGE), gpu(device_id="GPU-2", weight=50, override=HALF)
    alone = (candidate("GPU-1", (1, 1, 10))._replace(view=large),)
    policy = adaptive_with(large, *[replace(small, identity=replace(small.identity, id=f"S-{n}")) for n in range(9)])
    assert policy.choose(alone, asked) == LeastWeightedLoad().choose(alone, asked)
    assert policy.choose(alone, workload(encode(720))) != LeastWeightedLoad().choose(alone, workload(encode(720)))


def test_adaptive_does_not_pack_files() -> None:
    """They give way, so they take no place, and would be done late where little is free."""
    policy = adaptive_with(gpu(device_id="GPU-1"), gpu(device_id="GPU-2"))
    tight = (candidate("GPU-1", (9, 1, 10), booked=90), candidate("GPU-2", (5, 1, 10), booked=50))
    asked = workload(encode(720))
    assert policy.choose(tight, asked).device_id == "GPU-1"
    assert policy.choose(tight, replace(asked, real_time=False)).device_id == "GPU-2"


def test_what_weights_adaptive_is_told_is_relative() -> None:
    """The tiny device is filled first, whatever all weights are multiplied by."""
    for times in (1, 100):
        small = gpu(device_id="GPU-1", weight=25 * times, override=SMALL)
        large = gpu(device_id="GPU-2", weight=100 * times, override=LARGE)
        policy = adaptive_with(small, large)
        one = candidate("GPU-1", (7, 1, 10))._replace(view=small)
        other = candidate("GPU-2", (34, 2, 40))._replace(view=large)
        assert policy.choose((one, other), workload(encode(720))).device_id == "GPU-1"


def test_packing_fills_the_gap_that_is_nearest_to_full_beside_places_for_the_costliest() -> None:
    """Neither loses a place for a large one: one has three of them and a little room, the other none and more room."""
    policy = adaptive_with(gpu(device_id="GPU-1"), gpu(device_id="GPU-2"))
    large, small = workload(encode(2160)), workload(encode(360))
    one, little = encode_amount(large), encode_amount(small)
    bookable = 20 * one
    tight = (
        candidate("GPU-1", (bookable - 3 * little, little, bookable)),
        candidate("GPU-2", (bookable - 3 * one - 2 * little, little, bookable)),
    )
    assert 4 * little < one
    placed(policy, "large", large)
    assert policy.choose(tight, small).device_id == "GPU-2"


def test_packing_counts_what_stays_free_by_the_size_of_the_device() -> None:
    """A tenth of a device four times as large is more to lose than a fifth of the small one."""
    small, large = gpu(device_id="GPU-1", weight=25, override=SMALL), gpu(device_id="GPU-2", override=LARGE)
    policy = adaptive_with(small, large)
    asked = workload(encode(720))
    one = candidate("GPU-1", (7, 1, 10))._replace(view=small)
    other = candidate("GPU-2", (34, 2, 40))._replace(view=large)
    assert policy.choose((one, other), asked).device_id == "GPU-1"
    assert BestFit().choose((one, other), asked).device_id == "GPU-2"
    shunned = adaptive_with(replace(small, weight=5), large)
    assert shunned.choose((one, other), asked).device_id == "GPU-2", "its weight says to fill it late"
