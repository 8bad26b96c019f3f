"""Decisions in the contract's words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC
from fractions import Fraction

from balancer.domain.decision import Decision, OmittedVerdicts, Refusal, Reservation, Verdict
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId
from balancer.servicers.placement_translation import MAX_DETAIL_BYTES, placement_detail, placement_to_proto
from fakes.session_records import LADDER
from fakes.virtual_time import START_TIME
from gpu_balancer.v1 import media_pb2, placement_pb2


def decision(count: int, message: str = "no room for it", **fields: object) -> Decision:
    made = Decision(
        device_id=None,
        policy="least_weighted_load",
        workload=LADDER,
        cost_pixels_per_second=7,
        verdicts=tuple(
            Verdict(
                device_id=DeviceId(f"GPU-7f3c2a10-0000-0000-0000-{number:012}"),
                weight=100,
                session_count=1,
                weighted_load_before=5,
                refusal=Refusal(
                    rule="CAPACITY", message=message, dimension=Dimension.ENCODE, needed=number, available=0
                ),
                device_needs=((Dimension.ENCODE, number, 900_000),),
                device_used=(900_000,),
                host_needs=((Dimension.CORES, 5, 1_000_000),),
                host_used=(7,),
            )
            for number in range(count)
        ),
        settings_version=2,
        reservation=None,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def test_a_decision_is_told_with_every_score_and_refusal() -> None:
    told = placement_to_proto(decision(2))
    assert (told.device, told.policy, told.settings_version) == ("", "least_weighted_load", 2)
    assert told.workload.cost_pixels_per_second == 7
    refusal = told.verdicts[1].refusal
    assert (refusal.rule, refusal.needed, refusal.available) == ("CAPACITY", 1, 0)
    assert refusal.HasField("available")
    assert refusal.dimension == placement_pb2.DIMENSION_ENCODE
    assert told.verdicts[0].weighted_load_before == 5


def test_a_score_that_is_more_than_the_contract_holds_is_told_as_the_most_that_it_holds() -> None:
    made = decision(1)
    scored = replace(made, verdicts=(made.verdicts[0]._replace(refusal=None, score=10**30),))
    assert placement_to_proto(scored).verdicts[0].score == 2**63 - 1


def test_a_decision_tells_what_the_session_would_take_of_device_and_host() -> None:
    first, second = placement_to_proto(decision(2)).verdicts[1].needs
    assert (first.dimension, first.host, first.needed, first.used, first.bookable) == (
        placement_pb2.DIMENSION_ENCODE, False, 1, 900_000, 900_000,
    )  # fmt: skip
    assert (second.dimension, second.host, second.needed, second.used) == (placement_pb2.DIMENSION_CORES, True, 5, 7)


def test_a_decision_tells_whose_it_was_whom_it_stopped_and_what_it_leaves_out() -> None:
    made = decision(
        1,
        policy_fault="It raised ValueError.",
        preempted=(SessionId("a"), SessionId("b")),
        omitted=(OmittedVerdicts(rule=None, device_count=3), OmittedVerdicts(rule="CAPACITY", device_count=9)),
        workload=replace(LADDER, real_time=False, reserved_speed=Fraction(3, 2)),
    )
    told = placement_to_proto(made, attempt=2, decision_time=START_TIME)
    assert (told.attempt, told.decision_time.ToDatetime(UTC)) == (2, START_TIME)
    assert told.policy_fault == "It raised ValueError."
    assert list(told.preempted_sessions) == ["sessions/a", "sessions/b"]
    assert [(one.rule, one.device_count) for one in told.omitted_verdicts] == [("", 3), ("CAPACITY", 9)]
    assert told.workload.reserved_speed == 1.5
    assert [(one.width, one.height, one.speed) for one in told.workload.encodes] == [
        (1280, 720, media_pb2.ENCODING_SPEED_FAST),
        (854, 480, media_pb2.ENCODING_SPEED_FAST),
        (640, 360, media_pb2.ENCODING_SPEED_FAST),
    ]
    plan = placement_to_proto(decision(1))
    assert not plan.HasField("decision_time")
    assert not plan.workload.HasField("reserved_speed")


def test_what_is_booked_and_what_of_it_is_kept_is_told_of_who_is_content_with_what_is_left() -> None:
    reservation = Reservation(
        device_id=DeviceId("GPU-1"),
        cost_pixels_per_second=7,
        device_amounts={Dimension.ENCODE: 600_000, Dimension.MEMORY: 400},
        host_amounts={Dimension.CORES: 50},
        firm_device_amounts={Dimension.ENCODE: 60_000, Dimension.MEMORY: 400},
        firm_host_amounts={Dimension.CORES: 5},
    )
    film = replace(LADDER, real_time=False)
    told = placement_to_proto(decision(1, workload=film, reservation=reservation)).booked
    assert [(one.dimension, one.host, one.booked, one.kept) for one in told] == [
        (placement_pb2.DIMENSION_ENCODE, False, 600_000, 60_000),
        (placement_pb2.DIMENSION_MEMORY, False, 400, 400),
        (placement_pb2.DIMENSION_CORES, True, 50, 5),
    ]
    assert not placement_to_proto(decision(1, reservation=reservation)).booked


def test_a_refusal_by_few_devices_is_told_with_sentences_and_needs() -> None:
    told = placement_detail(decision(2)).verdicts[0]
    assert told.refusal.message == "no room for it"
    assert len(told.needs) == 2


def test_a_refusal_that_does_not_fit_an_error_loses_needs_before_sentences() -> None:
    sentence = "no room for it " * 34
    told = placement_detail(decision(8, message=sentence))
    assert placement_to_proto(decision(8, message=sentence)).ByteSize() > MAX_DETAIL_BYTES >= told.ByteSize()
    assert {(verdict.refusal.message, len(verdict.needs)) for verdict in told.verdicts} == {(sentence, 0)}


def test_a_refusal_by_many_devices_keeps_every_refusal_and_fits_an_error() -> None:
    told = placement_detail(decision(48, message="no room for it " * 20))
    assert told.ByteSize() <= MAX_DETAIL_BYTES
    assert [verdict.refusal.needed for verdict in told.verdicts] == list(range(48))
