"""Workloads and decisions in the contract's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.servicers.contract_words import VIDEO_CODEC_NUMBERS
from balancer.servicers.names import device_name
from gpu_balancer.v1 import placement_pb2

if TYPE_CHECKING:
    from balancer.domain.decision import Decision, Refusal, Verdict
    from balancer.domain.workload import Workload

MAX_DETAIL_BYTES = 5_000
"""Of a placement inside an error: errors travel in headers, whose size callers bound. Sentences are left out first."""


def workload_to_proto(workload: Workload, cost_pixels_per_second: int) -> placement_pb2.Workload:
    """Makes the message of a workload."""
    message = placement_pb2.Workload(
        scale_pixels_per_second=workload.scale_pixels_per_second,
        cost_pixels_per_second=cost_pixels_per_second,
        real_time=workload.real_time,
    )
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
        )
    return message


def placement_to_proto(decision: Decision) -> placement_pb2.Placement:
    """Makes the message of a decision with every device's score or refusal."""
    return placement_pb2.Placement(
        device=device_name(decision.device_id),
        policy=decision.policy,
        workload=workload_to_proto(decision.workload, decision.cost_pixels_per_second),
        verdicts=[_verdict(verdict) for verdict in decision.verdicts],
        settings_version=decision.settings_version,
    )


def placement_detail(decision: Decision) -> placement_pb2.Placement:
    """Makes the detail of a refusal: every device's refusal, in full or, where that is too much, without sentences."""
    placement = placement_to_proto(decision)
    if placement.ByteSize() > MAX_DETAIL_BYTES:
        for verdict in placement.verdicts:
            verdict.refusal.message = ""
    if placement.ByteSize() > MAX_DETAIL_BYTES:
        placement.ClearField("workload")
    return placement


def _verdict(verdict: Verdict) -> placement_pb2.DeviceVerdict:
    message = placement_pb2.DeviceVerdict(
        device=device_name(verdict.device_id),
        weighted_load_before=verdict.weighted_load_before,
        weight=verdict.weight,
        session_count=verdict.session_count,
    )
    if verdict.refusal is not None:
        message.refusal.CopyFrom(_refusal(verdict.refusal))
    elif verdict.score is not None:
        message.score = verdict.score
    return message


def _refusal(refusal: Refusal) -> placement_pb2.Refusal:
    dimension = placement_pb2.DIMENSION_UNSPECIFIED
    if refusal.dimension is not None:
        dimension = placement_pb2.Dimension.Value(f"DIMENSION_{refusal.dimension.name}")
    return placement_pb2.Refusal(
        rule=refusal.rule,
        dimension=dimension,
        needed=refusal.needed,
        available=refusal.available,
        message=refusal.message,
    )
