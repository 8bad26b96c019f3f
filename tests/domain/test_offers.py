"""What devices offer is worked out once, and a decision made with it is the one made without."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from unittest.mock import patch

from domain.devices import cpu, decode, encode, gpu, ladder, nvenc, software_encoders, workload
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain import offers as offers_module
from balancer.domain.capacity import CapacityOverride, capacity_of_host
from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.demand import demand_on
from balancer.domain.device import DeviceState, DeviceView, Dimension
from balancer.domain.ids import SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import Offer, Offers
from balancer.domain.placement import decide, place
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.workload import VideoCodec, Workload

HOST = capacity_of_host(2)
SETTINGS = PlacementSettings()
VIEWS = (
    gpu("NVIDIA L4", "GPU-1", override=CapacityOverride(encoder_sessions=5)),
    gpu("Tesla T4", "GPU-2", weight=46),
    gpu("NVIDIA H200", "GPU-3", weight=5, capabilities=software_encoders(VideoCodec.H264)),
    gpu("NVIDIA L4", "GPU-4", weight=0),
    gpu("NVIDIA L4", "GPU-5", state=DeviceState.CORDONED, state_message="Closed."),
    gpu("NVIDIA L4", "GPU-6", capabilities=nvenc(VideoCodec.AV1)),
    cpu(2, weight=3),
)
SHAPES = (
    ladder(),
    ladder(real_time=False),
    ladder(allow_software_encode=True),
    workload(encode(2160, frames_per_second=60), input_task=decode(2160, frames_per_second=60)),
    workload(encode(2160, frames_per_second=400), input_task=decode(2160, frames_per_second=400)),
    workload(encode(1080, codec=VideoCodec.AV1), input_task=decode(1080)),
    workload(encode(360, bit_depth=10, codec=VideoCodec.HEVC)),
)


def offers_of(*views: DeviceView, settings: PlacementSettings = SETTINGS, kept_workloads: int = 4) -> Offers:
    return Offers(views, settings, HOST, kept_workloads=kept_workloads)


@given(
    st.lists(st.tuples(st.sampled_from(SHAPES), st.booleans()), max_size=40),
    st.fractions(Fraction(1, 10), 1, max_denominator=20),
)
def test_decisions_with_offers_that_are_kept_are_those_made_anew(
    arrivals: list[tuple[Workload, bool]], headroom: Fraction
) -> None:
    """More shapes than are kept, so that offers are forgotten and made again on the way."""
    settings = PlacementSettings(headroom=headroom)
    kept, ledger, policy = offers_of(*VIEWS, settings=settings), Ledger(), LeastWeightedLoad()
    for number, (asked, ends) in enumerate(arrivals):
        decision = decide(asked, kept, ledger, policy)
        assert decision == place(asked, VIEWS, ledger, policy, settings, HOST)
        if decision.reservation is not None:
            ledger.book(SessionId(str(number)), decision.reservation)
        if ends:
            ledger.release(SessionId(str(number // 2)))


def test_a_shape_of_session_is_worked_out_once_for_each_device() -> None:
    offers = offers_of(VIEWS[0], VIEWS[1])
    with patch.object(offers_module, "demand_on", wraps=demand_on) as worked_out:
        first = offers.of(ladder())
        assert offers.of(ladder()) is first
        assert worked_out.call_count == 2
        offers.of(ladder(real_time=False))
        assert worked_out.call_count == 4


def test_devices_that_differ_in_nothing_but_who_they_are_are_worked_out_once() -> None:
    """Chips for computing are others: they have no encoder, and programs on them take less memory."""
    alike = [gpu("NVIDIA L4", f"GPU-{number}") for number in range(8)]
    others = [VIEWS[1], VIEWS[2], gpu("NVIDIA L4", "GPU-x", state=DeviceState.CORDONED, state_message="Its own.")]
    with patch.object(offers_module, "demand_on", wraps=demand_on) as worked_out:
        found = offers_of(*alike, *others).of(ladder())
    assert worked_out.call_count == 3
    for view, offer in zip((*alike, *others), found, strict=True):
        (alone,) = offers_of(view).of(ladder())
        if isinstance(offer, Offer):
            booked = offer.reservation_on(view.id)
            assert replace(offer, reservation=booked) == alone
            assert offer.reservation_on(view.id) is booked, "all sessions of a shape hold the same"
        else:
            assert offer == alone


def test_only_so_many_shapes_are_kept_the_newest() -> None:
    offers = offers_of(VIEWS[0], kept_workloads=2)
    first, second, third = SHAPES[0], SHAPES[1], SHAPES[2]
    kept = offers.of(first), offers.of(second), offers.of(third)
    assert offers.of(third) is kept[2]
    assert offers.of(second) is kept[1]
    again = offers.of(first)
    assert again == kept[0]
    assert again is not kept[0]


def test_an_offer_says_how_much_of_each_limited_dimension_may_be_booked() -> None:
    """Rates leave headroom; memory and encoder sessions are used to the last."""
    (offer,) = offers_of(VIEWS[0], settings=PlacementSettings(headroom=Fraction(1, 2))).of(ladder())
    assert isinstance(offer, Offer)
    limits = VIEWS[0].capacity.limits
    bookable = {dimension: most for dimension, _, most in offer.device_needs}
    assert bookable[Dimension.ENCODE] == limits[Dimension.ENCODE] // 2
    assert bookable[Dimension.ENCODER_SESSIONS] == 5
    assert bookable[Dimension.MEMORY] == limits[Dimension.MEMORY]


def test_what_is_taken_for_session_after_session_is_the_same_reservation() -> None:
    """So that ten thousand sessions of a shape hold it once."""
    offers, ledger = offers_of(VIEWS[0]), Ledger()
    first = decide(ladder(), offers, ledger, LeastWeightedLoad())
    second = decide(ladder(), offers, ledger, LeastWeightedLoad())
    assert first.reservation is not None
    assert first.reservation is second.reservation


def test_a_device_that_takes_nothing_offers_a_refusal() -> None:
    closed, weightless = offers_of(VIEWS[4], VIEWS[3]).of(ladder())
    assert closed == Refusal(rule="NOT_READY", message="It is cordoned: Closed.")
    assert isinstance(weightless, Refusal)
    assert weightless.rule == "WEIGHT_ZERO"
