"""Workloads and decisions in the contract's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.domain.device import Dimension
from balancer.servicers.contract_words import SPEED_NUMBERS, VIDEO_CODEC_NUMBERS
from balancer.servicers.names import device_name, session_name
from gpu_balancer.v1 import placement_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from balancer.domain.decision import Decision, Refusal, Reservation, Verdict
    from balancer.domain.workload import Workload

MAX_DETAIL_BYTES = 5_000
"""Of a placement inside an error: errors travel in headers, whose size callers bound. What it leaves out, it leaves
out in this order: needs, sentences, the workload."""

_MAX_DETAILED_VERDICTS = 8
"""In an error with more, needs are left out before they are made: they would not fit, and a refusal must be quick."""
_LARGEST_SCORE = 2**63 - 1
"""Of the contract. Without admission a device that is behind may have more, where its weight is far below others'."""

_DIMENSIONS = {one: placement_pb2.Dimension.Value(f"DIMENSION_{one.name}") for one in Dimension}


def workload_to_proto(workload: Workload, cost_pixels_per_second: int) -> placement_pb2.Workload:
    """Makes the message of a workload."""
    message = placement_pb2.Workload()
    fill_workload(message, workload, cost_pixels_per_second)
    return message


def fill_workload(message: placement_pb2.Workload, workload: Workload, cost_pixels_per_second: int) -> None:
    """Fills in the message of a workload."""
    message.scale_pixels_per_second = workload.scale_pixels_per_second
    message.cost_pixels_per_second = cost_pixels_per_second
    message.real_time = workload.real_time
    decode = workload.decode
    if decode is not None:
        message.decode_pixels_per_second = decode.pixels_per_second
        message.decode_codec = VIDEO_CODEC_NUMBERS[decode.codec]
        message.decode_bit_depth = decode.bit_depth
    for task in workload.encodes:
        message.encodes.add(
            codec=VIDEO_CODEC_NUMBERS[task.codec],
            bit_depth=task.bit_depth,
            pixels_per_second=task.pixels_per_second,
            speed=SPEED_NUMBERS[task.speed],
            width=task.width,
            height=task.height,
        )
    if workload.reserved_speed is not None:
        message.reserved_speed = float(workload.reserved_speed)
    capture = workload.capture
    if capture is not None:
        message.capture.pixels_per_second = capture.pixels_per_second
        message.capture.width = capture.width
        message.capture.height = capture.height
        message.capture.browser = capture.browser
    message.upload_bits_per_second = workload.upload_bits_per_second


def placement_to_proto(
    decision: Decision, *, attempt: int = 0, decision_time: datetime | None = None, with_needs: bool = True
) -> placement_pb2.Placement:
    """Makes the message of a decision with every device's score or refusal.

    Args:
        decision: The decision.
        attempt: The one that it was made for, from 1. 0: it is a plan.
        decision_time: When it was made. None: now, it is a plan.
        with_needs: Whether to tell what the session would take of each device.
    """
    placement = placement_pb2.Placement(
        device=device_name(decision.device_id),
        policy=decision.policy,
        workload=workload_to_proto(decision.workload, decision.cost_pixels_per_second),
        verdicts=[_verdict(verdict, with_needs=with_needs) for verdict in decision.verdicts],
        settings_version=decision.settings_version,
        attempt=attempt,
        omitted_verdicts=[
            placement_pb2.OmittedVerdicts(rule=omitted.rule or "", device_count=omitted.device_count)
            for omitted in decision.omitted
        ],
        policy_fault=decision.policy_fault,
        preempted_sessions=[session_name(session_id) for session_id in decision.preempted],
    )
    if decision.reservation is not None and decision.workload.elastic:
        placement.booked.extend(_booked(decision.reservation))
    if decision_time is not None:
        placement.decision_time.FromDatetime(decision_time)
    return placement


def placement_detail(decision: Decision) -> placement_pb2.Placement:
    """Makes the detail of a refusal: every device's refusal, whole or, where that is too much, with less."""
    placement = placement_to_proto(decision, with_needs=len(decision.verdicts) <= _MAX_DETAILED_VERDICTS)
    if placement.ByteSize() > MAX_DETAIL_BYTES:
        for verdict in placement.verdicts:
            verdict.ClearField("needs")
    if placement.ByteSize() > MAX_DETAIL_BYTES:
        for verdict in placement.verdicts:
            verdict.refusal.message = ""
    if placement.ByteSize() > MAX_DETAIL_BYTES:
        placement.ClearField("workload")
    return placement


def _booked(reservation: Reservation) -> Iterator[placement_pb2.BookedAmount]:
    device = (reservation.device_amounts, reservation.firm_device_amounts, False)
    for amounts, firm, host in (device, (reservation.host_amounts, reservation.firm_host_amounts, True)):
        for dimension, amount in amounts.items():
            kept = amount if firm is None else firm.get(dimension, 0)
            yield placement_pb2.BookedAmount(
                dimension=_DIMENSIONS[dimension], host=host, booked=amount, kept=min(amount, kept)
            )


def _verdict(verdict: Verdict, *, with_needs: bool) -> placement_pb2.DeviceVerdict:
    message = placement_pb2.DeviceVerdict(
        device=device_name(verdict.device_id),
        weighted_load_before=verdict.weighted_load_before,
        weight=verdict.weight,
        session_count=verdict.session_count,
    )
    if verdict.refusal is not None:
        message.refusal.CopyFrom(_refusal(verdict.refusal))
    elif verdict.score is not None:
        message.score = min(verdict.score, _LARGEST_SCORE)
    for need in verdict.needs if with_needs else ():
        message.needs.add(
            dimension=_DIMENSIONS[need.dimension],
            host=need.host,
            needed=need.needed,
            used=need.used,
            bookable=need.bookable,
        )
    return message


def _refusal(refusal: Refusal) -> placement_pb2.Refusal:
    dimension = placement_pb2.DIMENSION_UNSPECIFIED
    if refusal.dimension is not None:
        dimension = _DIMENSIONS[refusal.dimension]
    return placement_pb2.Refusal(
        rule=refusal.rule,
        dimension=dimension,
        needed=refusal.needed,
        available=refusal.available,
        message=refusal.message,
    )
