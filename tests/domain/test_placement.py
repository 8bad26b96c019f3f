"""Which device takes a session, and why not the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import pytest
from domain.devices import cpu, decode, encode, gpu, ladder, nvdec, nvenc, software_encoders, workload
from hypothesis import given
from hypothesis import strategies as st

from balancer.domain.capacity import CapacityOverride, capacity_of_host
from balancer.domain.device import DeviceState, DeviceView, Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.domain.ledger import Ledger
from balancer.domain.placement import Decision, PlacementSettings, PolicyFault, Refusal, Reservation, place
from balancer.domain.policies import Candidate, Choice, IndifferentPolicy, LeastWeightedLoad, Policy
from balancer.domain.workload import EncodingSpeed, VideoCodec, Workload

HOST = capacity_of_host(2)
SETTINGS = PlacementSettings()


def decide(
    asked: Workload,
    *views: DeviceView,
    ledger: Ledger | None = None,
    policy: Policy | None = None,
    settings: PlacementSettings = SETTINGS,
    host_cores: int = 2,
) -> Decision:
    """Asks for a placement."""
    ledger = Ledger() if ledger is None else ledger
    return place(asked, views, ledger, policy or LeastWeightedLoad(), settings, capacity_of_host(host_cores))


def fill(asked: Workload, *views: DeviceView, ledger: Ledger, limit: int = 1000, name: str = "s") -> list[str]:
    """Places the same session until every device refuses; gives the devices in order."""
    chosen: list[str] = []
    while len(chosen) < limit:
        decision = decide(asked, *views, ledger=ledger)
        if decision.reservation is None:
            return chosen
        ledger.book(SessionId(f"{name}-{len(chosen)}"), decision.reservation)
        chosen.append(decision.reservation.device_id)
    raise AssertionError("no end to it")


def refusal(decision: Decision, device_id: str = "GPU-1") -> Refusal:
    """Gives why a device refused."""
    verdict = next(verdict for verdict in decision.verdicts if verdict.device_id == device_id)
    assert verdict.refusal is not None
    assert verdict.score is None
    return verdict.refusal


# ------------------------------------------------------------------------------------------------------------ filter


@pytest.mark.parametrize("state", [state for state in DeviceState if state is not DeviceState.READY])
def test_a_device_that_is_not_ready_says_why(state: DeviceState) -> None:
    decision = decide(ladder(), gpu(state=state, state_message="Fell off the bus."))
    assert decision.device_id is None
    assert decision.reservation is None
    found = refusal(decision)
    assert (found.rule, found.permanent) == ("NOT_READY", False)
    assert state.value in found.message
    assert "Fell off the bus." in found.message


def test_a_weight_of_zero_takes_no_session() -> None:
    decision = decide(ladder(), gpu(weight=0), gpu(device_id="GPU-2", weight=1))
    assert decision.device_id == "GPU-2"
    assert refusal(decision).rule == "WEIGHT_ZERO"
    assert decision.verdicts[0].weighted_load_before is None


def test_a_device_that_can_never_do_it_says_so() -> None:
    incapable = gpu(capabilities=nvenc(VideoCodec.HEVC))
    found = refusal(decide(ladder(), incapable))
    assert (found.rule, found.permanent) == ("CAPABILITY", True)
    found = refusal(decide(workload(encode(size=(8000, 4000))), gpu()))
    assert (found.rule, found.permanent) == ("RESOLUTION", True)


def test_rules_speak_in_order() -> None:
    """Whatever else is wrong, the first rule is the one that is told."""
    impossible = workload(encode(codec=VideoCodec.VP9, size=(9000, 9000)))
    assert refusal(decide(impossible, gpu(weight=0, state=DeviceState.CORDONED))).rule == "NOT_READY"
    assert refusal(decide(impossible, gpu(weight=0))).rule == "WEIGHT_ZERO"
    assert refusal(decide(impossible, gpu())).rule == "CAPABILITY"


def test_encoder_sessions_are_a_hard_limit() -> None:
    """One more is refused by the driver, so there is no headroom, and no session is cut in half."""
    view = gpu(override=CapacityOverride(encoder_sessions=4))
    ledger = Ledger()
    assert len(fill(ladder(), view, ledger=ledger)) == 1
    found = refusal(decide(ladder(), view, ledger=ledger))
    assert (found.rule, found.dimension) == ("ENCODER_SESSIONS", Dimension.ENCODER_SESSIONS)
    assert (found.needed, found.available, found.permanent) == (3, 1, False)
    assert found.message == "It has 1 encoder sessions left, and the session needs 3 encoder sessions."
    assert decide(workload(encode(360)), view, ledger=ledger).device_id == "GPU-1"


def test_encoder_sessions_are_told_before_other_dimensions() -> None:
    view = gpu(override=CapacityOverride(encoder_sessions=1, encode_pixels_per_second=1000, memory_mib=1))
    assert refusal(decide(ladder(), view)).rule == "ENCODER_SESSIONS"


def test_memory_is_a_hard_limit_without_headroom() -> None:
    asked = workload(encode(720))
    needed = decide(asked, gpu()).reservation
    assert needed is not None
    memory = needed.device_amounts[Dimension.MEMORY]
    assert decide(asked, gpu(override=CapacityOverride(memory_mib=memory))).device_id == "GPU-1"
    found = refusal(decide(asked, gpu(override=CapacityOverride(memory_mib=memory - 1))))
    assert (found.rule, found.dimension, found.available) == ("CAPACITY", Dimension.MEMORY, memory - 1)


@pytest.mark.parametrize(
    ("override", "dimension"),
    [
        (CapacityOverride(decode_pixels_per_second=1_000_000), Dimension.DECODE),
        (CapacityOverride(scale_pixels_per_second=1_000_000), Dimension.SCALE),
        (CapacityOverride(encode_pixels_per_second=1_000_000), Dimension.ENCODE),
    ],
)
def test_the_dimension_that_is_full_is_named(override: CapacityOverride, dimension: Dimension) -> None:
    found = refusal(decide(ladder(), gpu(override=override)))
    assert (found.rule, found.dimension, found.permanent) == ("CAPACITY", dimension, True), "not even when it is empty"
    assert found.needed is not None
    assert found.available is not None
    assert found.needed > found.available


def test_headroom_is_exact() -> None:
    """Booked up to the last millionth of an engine, and not one further."""
    asked = workload(encode(720))
    settings = PlacementSettings(headroom=Fraction(1, 3))
    slowest_rate = -(-asked.encode_pixels_per_second * 1_000_000 // 333_333)
    decisions = [
        decide(asked, gpu("Tesla T4", override=CapacityOverride(encode_pixels_per_second=rate)), settings=settings)
        for rate in (slowest_rate, slowest_rate - 1)
    ]
    assert decisions[0].reservation is not None
    assert decisions[0].reservation.device_amounts[Dimension.ENCODE] == 333_333
    found = refusal(decisions[1])
    assert (found.needed, found.available) == (333_334, 333_333)


def test_the_sum_of_sessions_never_passes_the_headroom() -> None:
    view, ledger = gpu("Tesla T4"), Ledger()
    asked = workload(encode(1080), input_task=decode(1080))
    count = len(fill(asked, view, ledger=ledger))
    bound = view.capacity.limits[Dimension.ENCODE] * 9 // 10
    each = ledger.used(view.id)[Dimension.ENCODE] // count
    assert count == bound // each
    found = refusal(decide(asked, view, ledger=ledger))
    assert (found.rule, found.dimension) == ("CAPACITY", Dimension.ENCODE)
    assert found.available == bound - count * each


def test_a_stream_that_one_engine_cannot_do_in_time_is_refused_however_many_there_are() -> None:
    """A stream is encoded by one engine."""
    asked = workload(encode(2160, frames_per_second=60, speed=EncodingSpeed.THOROUGH))
    found = refusal(decide(asked, gpu("NVIDIA L40S", memory_mib=None)))
    assert (found.rule, found.dimension, found.available) == ("CAPACITY", Dimension.ENCODE, 900_000)
    assert found.needed is not None
    assert 900_000 < found.needed < 2_700_000
    as_fast_as_it_goes = workload(*asked.encodes, real_time=False)
    assert decide(as_fast_as_it_goes, gpu("NVIDIA L40S", memory_mib=None)).device_id == "GPU-1"


def test_the_hosts_cores_are_shared_by_all_devices() -> None:
    """Software encoding for either GPU takes the same cores."""
    capabilities = (*nvdec(VideoCodec.H264), *software_encoders(VideoCodec.H264))
    views = [gpu("NVIDIA H200", f"GPU-{number}", capabilities=capabilities) for number in (1, 2)]
    ledger = Ledger()
    asked = ladder(allow_software_encode=True)
    assert fill(asked, *views, ledger=ledger) == ["GPU-1"]
    found = refusal(decide(asked, *views, ledger=ledger))
    assert (found.rule, found.dimension, found.permanent) == ("HOST_CAPACITY", Dimension.CORES, False)
    assert found.message.startswith("Its host has ")


def test_a_cpu_device_and_software_work_of_a_gpu_take_the_same_cores() -> None:
    ledger = Ledger()
    assert fill(ladder(), cpu(2), ledger=ledger) == ["cpu-0"]
    h200 = gpu("NVIDIA H200", capabilities=(*nvdec(VideoCodec.H264), *software_encoders(VideoCodec.H264)))
    assert refusal(decide(ladder(allow_software_encode=True), h200, ledger=ledger)).rule == "HOST_CAPACITY"


def test_a_host_of_unknown_size_is_not_limited() -> None:
    decision = place(ladder(), [cpu(2)], Ledger(), LeastWeightedLoad(), SETTINGS, {})
    assert decision.device_id == "cpu-0"


def test_two_cores_carry_one_ladder_in_real_time_and_no_second() -> None:
    ledger = Ledger()
    assert len(fill(ladder(), cpu(2), ledger=ledger)) == 1
    found = refusal(decide(ladder(), cpu(2), ledger=ledger), "cpu-0")
    assert (found.rule, found.dimension) == ("CAPACITY", Dimension.CORES)


# ------------------------------------------------------------------------------------------- as fast as it goes


def heavy(*, real_time: bool) -> Workload:
    """More than two cores do in real time."""
    return workload(
        encode(2160, codec=VideoCodec.HEVC, speed=EncodingSpeed.THOROUGH),
        input_task=decode(2160),
        real_time=real_time,
    )


def test_a_file_as_fast_as_it_goes_needs_no_rate_but_takes_the_device_whole() -> None:
    ledger = Ledger()
    assert fill(heavy(real_time=False), cpu(2), ledger=ledger) == ["cpu-0"]
    assert ledger.used(DeviceId("cpu-0"))[Dimension.CORES] == 1_800_000
    assert ledger.host_used() == {Dimension.CORES: 1_800_000}


def test_a_stream_in_real_time_is_never_clipped() -> None:
    found = refusal(decide(heavy(real_time=True), cpu(2)), "cpu-0")
    assert (found.rule, found.dimension, found.available) == ("CAPACITY", Dimension.CORES, 1_800_000)


def test_clipping_leaves_memory_and_encoder_sessions_alone() -> None:
    asked = workload(encode(1080), encode(1080), real_time=False)
    for override in (CapacityOverride(memory_mib=10), CapacityOverride(encoder_sessions=1)):
        assert decide(asked, gpu(override=override)).device_id is None


def test_a_file_that_fits_books_real_time_and_keeps_the_least_speed_whatever_comes() -> None:
    file, live = decide(ladder(real_time=False), gpu()).reservation, decide(ladder(real_time=True), gpu()).reservation
    assert file is not None
    assert live is not None
    assert file.device_amounts == live.device_amounts
    assert live.firm_device_amounts is None
    assert file.firm_device_amounts is not None
    tenth = -(-file.device_amounts[Dimension.ENCODE] // 10)
    assert file.firm_device_amounts[Dimension.ENCODE] == tenth
    for hard in (Dimension.MEMORY, Dimension.ENCODER_SESSIONS):
        assert file.firm_device_amounts[hard] == file.device_amounts[hard]


def test_a_file_takes_what_is_left_and_a_further_one_is_refused() -> None:
    """1.24 of 1.8 cores, then the rest, which is above the least speed; then nothing is left."""
    ledger = Ledger()
    assert fill(ladder(real_time=False), cpu(2), ledger=ledger) == ["cpu-0", "cpu-0"]
    assert ledger.used(DeviceId("cpu-0"))[Dimension.CORES] == 1_800_000
    found = refusal(decide(ladder(real_time=False), cpu(2), ledger=ledger), "cpu-0")
    assert (found.rule, found.dimension, found.available) == ("CAPACITY", Dimension.CORES, 0)


def test_live_work_takes_the_room_of_files_down_to_their_least_speed() -> None:
    ledger, live = Ledger(), workload(encode(480), input_task=decode(480))
    assert fill(ladder(real_time=False), cpu(2), ledger=ledger) == ["cpu-0", "cpu-0"]
    taken = fill(live, cpu(2), ledger=ledger, name="live")
    assert len(taken) == len(fill(live, cpu(2), ledger=Ledger())) - 1, "two files keep a tenth of their speed"
    assert ledger.used(DeviceId("cpu-0"))[Dimension.CORES] > 1_800_000, "what yields is still told"


def test_a_speed_that_was_asked_for_is_kept_free_whatever_comes() -> None:
    doubled = workload(encode(480), input_task=decode(480), real_time=False, reserved_speed=Fraction(2))
    once, twice = decide(replace(doubled, real_time=True, reserved_speed=None), gpu()), decide(doubled, gpu())
    assert once.reservation is not None
    assert twice.reservation is not None
    assert twice.reservation.device_amounts[Dimension.ENCODE] in (
        2 * once.reservation.device_amounts[Dimension.ENCODE],
        2 * once.reservation.device_amounts[Dimension.ENCODE] - 1,
    )
    assert twice.reservation.firm_device_amounts is None
    assert twice.cost_pixels_per_second == 2 * once.cost_pixels_per_second


def test_without_admission_only_what_never_fits_is_refused() -> None:
    """How the simulator compares policies that do not count."""
    settings = PlacementSettings(admission=False)
    ledger = Ledger()
    for number in range(50):
        decision = decide(ladder(), cpu(2), ledger=ledger, settings=settings)
        assert decision.reservation is not None
        ledger.book(SessionId(str(number)), decision.reservation)
    capped = gpu(override=CapacityOverride(encoder_sessions=2))
    assert refusal(decide(ladder(), capped, settings=settings)).rule == "ENCODER_SESSIONS"


def test_what_others_take_of_a_device_is_not_there_for_sessions() -> None:
    view, ledger = gpu(override=CapacityOverride(encoder_sessions=4)), Ledger()
    ledger.set_foreign(view.id, {Dimension.ENCODER_SESSIONS: 2})
    found = refusal(decide(ladder(), view, ledger=ledger))
    assert (found.rule, found.needed, found.available) == ("ENCODER_SESSIONS", 3, 2)
    ledger.set_foreign(view.id, {})
    assert decide(ladder(), view, ledger=ledger).device_id == view.id


def test_a_verdict_says_what_the_session_would_take_and_what_there_was() -> None:
    ledger = Ledger()
    fill(ladder(), cpu(2), ledger=ledger)
    (verdict,) = decide(ladder(), cpu(2), ledger=ledger).verdicts
    [cores] = [need for need in verdict.needs if not need.host and need.dimension is Dimension.CORES]
    assert (cores.used, cores.bookable) == (ledger.used(DeviceId("cpu-0"))[Dimension.CORES], 1_800_000)
    assert verdict.refusal is not None
    assert (verdict.refusal.needed, verdict.refusal.available) == (cores.needed, cores.bookable - cores.used)
    assert any(need.host for need in verdict.needs)


def test_the_host_clips_too() -> None:
    h200 = gpu("NVIDIA H200", capabilities=(*nvdec(VideoCodec.H264), *software_encoders(VideoCodec.HEVC)))
    asked = workload(
        *heavy(real_time=False).encodes, input_task=decode(2160), real_time=False, allow_software_encode=True
    )
    decision = decide(asked, h200)
    assert decision.reservation is not None
    assert decision.reservation.host_amounts == {Dimension.CORES: 1_800_000}


# ------------------------------------------------------------------------------------------------------------ choice


def test_the_lowest_weighted_load_after_placing_wins() -> None:
    """Before placing both are idle; after it, a large session weighs less on the large device."""
    small, large = gpu("Tesla T4", "GPU-1", weight=46), gpu("NVIDIA L4", "GPU-2", weight=100)
    assert decide(ladder(), small, large).device_id == "GPU-2"


def test_sessions_spread_in_proportion_to_weights() -> None:
    views = [gpu("NVIDIA L40S", f"GPU-{weight}", weight=weight, memory_mib=None) for weight in (100, 50, 25)]
    ledger = Ledger()
    for number in range(70):
        decision = decide(workload(encode(360)), *views, ledger=ledger)
        assert decision.reservation is not None
        ledger.book(SessionId(f"s-{number}"), decision.reservation)
    assert [ledger.session_count(view.id) for view in views] == [40, 20, 10]


def test_of_equals_the_one_with_fewer_sessions_wins_then_the_first() -> None:
    one, two = gpu(device_id="GPU-1"), gpu(device_id="GPU-2")
    assert decide(ladder(), one, two).device_id == "GPU-1"
    ledger = Ledger()
    free = Reservation(device_id=one.id, cost_pixels_per_second=0, device_amounts={}, host_amounts={})
    ledger.book(SessionId("free"), free)
    assert decide(ladder(), one, two, ledger=ledger).device_id == "GPU-2"


def test_comparison_is_exact_where_floats_are_not() -> None:
    """Two loads that differ by one part in 10**17: floats would call them equal and take the first."""
    one, two = gpu(device_id="GPU-1", weight=3), gpu(device_id="GPU-2", weight=3)
    ledger = Ledger()
    for view, cost in ((one, 10**17 + 1), (two, 10**17)):
        booked = Reservation(device_id=view.id, cost_pixels_per_second=cost, device_amounts={}, host_amounts={})
        ledger.book(SessionId(view.id), booked)
    assert float(10**17 + 1) == float(10**17)
    assert decide(ladder(), one, two, ledger=ledger).device_id == "GPU-2"


def test_a_decision_tells_everything() -> None:
    best, other, closed = gpu(weight=100), gpu("Tesla T4", "GPU-2", weight=46), gpu(device_id="GPU-3", weight=0)
    ledger = Ledger()
    first = decide(ladder(), best, other, closed, ledger=ledger)
    assert first.reservation is not None
    ledger.book(SessionId("first"), first.reservation)
    settings = PlacementSettings(version=9)
    decision = decide(ladder(), best, other, closed, ledger=ledger, settings=settings)
    cost = first.reservation.cost_pixels_per_second
    assert decision.policy == "least_weighted_load"
    assert decision.settings_version == 9
    assert decision.workload == ladder()
    assert decision.cost_pixels_per_second == cost
    assert [verdict.device_id for verdict in decision.verdicts] == ["GPU-1", "GPU-2", "GPU-3"]
    assert [verdict.weight for verdict in decision.verdicts] == [100, 46, 0]
    assert [verdict.session_count for verdict in decision.verdicts] == [1, 0, 0]
    assert [verdict.weighted_load_before for verdict in decision.verdicts] == [cost, 0, None]
    assert [verdict.score for verdict in decision.verdicts] == [2 * cost, cost * 100 // 46, None]
    assert decision.device_id == "GPU-1"


def test_without_devices_nobody_decides() -> None:
    decision = decide(ladder())
    assert (decision.device_id, decision.verdicts, decision.reservation) == (None, (), None)
    assert decision.cost_pixels_per_second > 0


def test_deciding_books_nothing_and_is_repeatable() -> None:
    ledger = Ledger()
    assert decide(ladder(), gpu(), ledger=ledger) == decide(ladder(), gpu(), ledger=ledger)
    assert vars(ledger) == vars(Ledger())


class Stubborn(IndifferentPolicy):
    """A policy that chooses what it likes."""

    name = "stubborn"

    def choose(self, candidates: Sequence[Candidate], workload: Workload) -> Choice:
        """Chooses a device that is not there."""
        return Choice(device_id=DeviceId("GPU-77"), scores={})


def test_a_policy_that_chooses_outside_the_candidates_is_at_fault() -> None:
    with pytest.raises(PolicyFault, match="'stubborn' chose 'GPU-77'"):
        decide(ladder(), gpu(), policy=Stubborn())


def test_a_policy_is_not_asked_when_every_device_refuses() -> None:
    assert decide(ladder(), gpu(weight=0), policy=Stubborn()).device_id is None


# ---------------------------------------------------------------------------------------------------------- always

sessions = st.builds(
    lambda heights, rate, real_time: workload(
        *(encode(height, frames_per_second=rate) for height in heights),
        input_task=decode(1080, frames_per_second=rate),
        real_time=real_time,
        allow_software_encode=True,
    ),
    st.lists(st.sampled_from([360, 720, 1080, 2160]), max_size=4),
    st.sampled_from([24, 30, 60]),
    st.booleans(),
)


@given(st.lists(st.tuples(sessions, st.booleans()), max_size=25), st.fractions(Fraction(1, 10), 1, max_denominator=20))
def test_whatever_comes_no_device_is_ever_overbooked(arrivals: list[tuple[Workload, bool]], headroom: Fraction) -> None:
    views = [
        gpu("NVIDIA L4", "GPU-1", override=CapacityOverride(encoder_sessions=7)),
        gpu("Tesla T4", "GPU-2", weight=46),
        gpu("NVIDIA H200", "GPU-3", weight=5, capabilities=software_encoders(VideoCodec.H264)),
        cpu(2, weight=3),
    ]
    ledger, settings = Ledger(), PlacementSettings(headroom=headroom)
    hard = (Dimension.MEMORY, Dimension.ENCODER_SESSIONS)
    for number, (asked, ends) in enumerate(arrivals):
        decision = decide(asked, *views, ledger=ledger, settings=settings)
        assert (decision.device_id is None) == all(verdict.refusal for verdict in decision.verdicts)
        assert all((verdict.score is None) == (verdict.refusal is not None) for verdict in decision.verdicts)
        if decision.reservation is not None:
            ledger.book(SessionId(str(number)), decision.reservation)
            scores = [verdict.score for verdict in decision.verdicts if verdict.score is not None]
            chosen = next(verdict for verdict in decision.verdicts if verdict.device_id == decision.device_id)
            assert chosen.score == min(scores)
        if ends:
            ledger.release(SessionId(str(number // 2)))
        for view in views:
            for dimension, limit in view.capacity.limits.items():
                bound = limit if dimension in hard else limit * headroom
                yielding = ledger.yielding(view.id).get(dimension, 0)
                assert ledger.used(view.id).get(dimension, 0) - yielding <= bound
        yielding = ledger.host_yielding().get(Dimension.CORES, 0)
        assert ledger.host_used().get(Dimension.CORES, 0) - yielding <= HOST[Dimension.CORES] * headroom
