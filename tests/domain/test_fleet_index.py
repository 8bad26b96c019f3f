"""Among very many devices the decision is the one that a look at all of them would give."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from domain.devices import cpu, decode, encode, gpu, ladder, nvdec, nvenc, software_encoders, workload
from domain.recordings import ABILITY, recorder
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.adapters.policy_plugins import load_policy, policy_names
from balancer.domain.capacity import CapacityOverride, capacity_of_host
from balancer.domain.decision import PlacementSettings, Refusal
from balancer.domain.device import DeviceState, DeviceView, SoundTiming
from balancer.domain.fleet_index import FleetIndex
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.offers import Offers
from balancer.domain.placement import decide
from balancer.domain.policies import LeastWeightedLoad
from balancer.domain.workload import VideoCodec, Workload

HOST = capacity_of_host(6)
SETTINGS = PlacementSettings()
SHAPES: tuple[Workload, ...] = (
    ladder(),
    ladder(real_time=False),
    workload(encode(1080, frames_per_second=60), input_task=decode(2160, frames_per_second=60)),
    workload(encode(360), real_time=False, reserved_speed=Fraction(3)),
    workload(encode(720, codec=VideoCodec.AV1), input_task=decode(1080)),
    workload(encode(360), allow_software_encode=True),
)


def kinds(number: int) -> DeviceView:
    """Makes devices of six kinds in turn."""
    name = f"GPU-{number}"
    match number % 6:
        case 0:
            return gpu("NVIDIA L4", name, override=CapacityOverride(encoder_sessions=5))
        case 1:
            return gpu("Tesla T4", name, weight=46)
        case 2:
            return gpu("NVIDIA H200", name, weight=5, capabilities=software_encoders(VideoCodec.H264))
        case 3:
            return gpu("NVIDIA L4", name, state=DeviceState.CORDONED)
        case 4:
            return gpu(
                "NVIDIA L4", name, capabilities=(*nvenc(VideoCodec.AV1), *nvdec(VideoCodec.H264)), memory_mib=900
            )
        case _:
            return cpu(2, f"cpu-{number}", weight=3)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 14),
    st.lists(
        st.tuples(
            st.sampled_from(SHAPES),
            st.sampled_from(["place", "place", "place", "end", "foreign", "state", "closed"]),
            st.integers(0, 40),
        ),
        max_size=60,
    ),
)
def test_the_default_policy_chooses_as_if_it_had_seen_every_device(
    count: int, steps: list[tuple[Workload, str, int]]
) -> None:
    views = [kinds(number) for number in range(count)]
    ledger, policy = Ledger(), LeastWeightedLoad()
    index = FleetIndex(ledger)
    index.update(views)
    for number, (asked, what, which) in enumerate(steps):
        device_id = views[which % count].id
        closed = {}
        match what:
            case "end":
                ledger.release(SessionId(str(which)))
                continue
            case "foreign":
                limits = views[which % count].capacity.limits
                ledger.set_foreign(device_id, {dimension: limit // 3 for dimension, limit in limits.items()})
                continue
            case "state":
                view = views[which % count]
                state = DeviceState.READY if view.state is not DeviceState.READY else DeviceState.UNHEALTHY
                views = [replace(view, state=state) if one is view else one for one in views]
                index.update(views)
                continue
            case "closed":
                closed = {device_id: Refusal(rule="KEPT", message="It is kept.")}
        whole = decide(asked, Offers(views, SETTINGS, HOST), ledger, policy, closed=closed)
        short = decide(asked, Offers(views, SETTINGS, HOST, index=index), ledger, policy, closed=closed)
        assert (short.device_id, short.reservation) == (whole.device_id, whole.reservation)
        assert len(short.verdicts) + sum(one.device_count for one in short.omitted) == count
        if whole.reservation is not None:
            ledger.book(SessionId(str(number)), whole.reservation)


def test_every_shipped_policy_places_among_very_many_devices() -> None:
    views = [kinds(number) for number in range(60)]
    for name in policy_names():
        ledger, policy = Ledger(), load_policy(name)
        policy.on_settings(SETTINGS)
        policy.on_devices(views)
        index = FleetIndex(ledger)
        index.update(views)
        offers = Offers(views, SETTINGS, {}, index=index)
        for number in range(40):
            decision = decide(ladder(), offers, ledger, policy)
            assert decision.reservation is not None, name
            ledger.book(SessionId(f"{name}-{number}"), decision.reservation)
            policy.on_session_placed(SessionId(f"{name}-{number}"), decision.reservation.device_id, ladder())


def test_a_session_that_fits_only_on_a_device_that_is_neither_least_nor_most_booked_finds_it() -> None:
    """Memory, not load, is what is short on all others."""
    views = [gpu("NVIDIA L4", f"GPU-{number}", memory_mib=2000) for number in range(400)]
    ledger = Ledger()
    index = FleetIndex(ledger)
    index.update(views)
    offers = Offers(views, SETTINGS, {}, index=index)
    for number, view in enumerate(views):
        booked = decide(workload(encode(360)), Offers([view], SETTINGS, {}), ledger, LeastWeightedLoad()).reservation
        assert booked is not None
        ledger.book(SessionId(f"s{number}"), replace(booked, cost_pixels_per_second=number))
    for view in views:
        if view.id != "GPU-200":
            limits = view.capacity.limits
            ledger.set_foreign(
                view.id, {dimension: limits[dimension] for dimension in limits if dimension.name == "MEMORY"}
            )
    decision = decide(ladder(), offers, ledger, LeastWeightedLoad())
    assert decision.device_id == DeviceId("GPU-200")
    ledger.set_foreign(DeviceId("GPU-200"), dict.fromkeys(views[0].capacity.limits, 10**12))
    refused = decide(ladder(), offers, ledger, LeastWeightedLoad())
    assert refused.device_id is None
    assert [(one.rule, one.device_count) for one in refused.omitted] == [("CAPACITY", 399)]
    assert refused.verdicts[0].refusal is not None


def test_devices_whose_sound_was_measured_apart_are_of_one_class() -> None:
    index = FleetIndex(Ledger())
    times = [datetime(2030, 5, 4, hour, tzinfo=UTC) for hour in range(9)]
    timings = [
        SoundTiming(delay=timedelta(milliseconds=time.hour), delay_source="calibration", measurement_time=time)
        for time in times
    ]
    views = [
        recorder(cpu(2, f"cpu-{number}"), replace(ABILITY, sound_timing=timing))
        for number, timing in enumerate([None, *timings])
    ]
    index.update(views)
    assert len(index.classes()) == 1
    index.update([recorder(views[0], replace(ABILITY, display_count=1)), *views[1:]])
    assert len(index.classes()) == 2
