"""What the plan of an attempt says of the session's course so far: what it continues, and what is left of its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.domain.restart import left_of

if TYPE_CHECKING:
    from datetime import timedelta

    from google.protobuf.duration_pb2 import Duration

    from balancer.domain.session import SessionRecord
    from gpu_balancer.v1.agent_service_pb2 import LaunchPlan


def fill_course(plan: LaunchPlan, record: SessionRecord) -> None:
    """Fills in what depends on what went before.

    Args:
        plan: Of the session as its client asked for it.
        record: Its present attempt is to be launched.
    """
    plan.traceparent = record.traceparent or ""
    if record.speed_limit is not None:
        plan.speed_limit = float(record.speed_limit)
    for ended in record.ended_attempts:
        plan.continues.add(attempt=ended.attempt, device=f"devices/{ended.device_id}", folder=ended.folder)
    plan.may_continue = record.may_continue
    if plan.HasField("max_duration"):
        _shorten(plan.max_duration, record.ran_for)
    if plan.HasField("transcode") and plan.transcode.input.HasField("duration"):
        _shorten(plan.transcode.input.duration, record.ran_for)


def _shorten(whole: Duration, ran_for: timedelta) -> None:
    if ran_for:
        whole.FromTimedelta(left_of(whole.ToTimedelta(), ran_for))
