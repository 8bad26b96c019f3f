"""What a server says about an error arrives whole, fits into the metadata, and is read back as it was."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from urllib.parse import quote

import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from gpu_balancer.runtime import rich_status
from gpu_balancer.runtime.failures import Reason, RequestFailure, StatusCode, Violation
from gpu_balancer.v1 import placement_pb2


def _there_and_back(failure: RequestFailure) -> RequestFailure:
    sent = status_pb2.Status.FromString(rich_status.status_from_failure(failure).SerializeToString())
    read = rich_status.failure_from_status(sent)
    assert read is not None
    return read


def test_a_failure_comes_back_with_everything_its_sender_should_be_told() -> None:
    placement = placement_pb2.Placement(policy="least_weighted_load")
    failure = RequestFailure(
        reason=Reason.NO_CAPACITY,
        message="Cannot place the session: every device is full. Try again in 2 s.",
        violations=(Violation(field="session.transcode", description="too much"),),
        retry_after=timedelta(seconds=2, milliseconds=500),
        metadata={"needed": "12"},
        details=(placement,),
    )
    read = _there_and_back(failure)
    assert (read.reason, read.message, read.violations) == (failure.reason, failure.message, failure.violations)
    assert (read.retry_after, dict(read.metadata)) == (failure.retry_after, {"needed": "12"})
    assert read.details == (placement,)


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_travels_under_its_own_code_and_name(reason: Reason) -> None:
    status = rich_status.status_from_failure(RequestFailure(reason=reason, message="no"))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (status.code, info.reason, info.domain) == (reason.code.value, reason.name, "gpu-balancer")
    assert _there_and_back(RequestFailure(reason=reason, message="no")).reason is reason


def test_a_failure_without_retry_promises_none() -> None:
    assert _there_and_back(RequestFailure(reason=Reason.INTERNAL, message="no")).retry_after is None


def test_a_huge_failure_stays_within_the_metadata_that_clients_accept() -> None:
    failure = RequestFailure(
        reason=Reason.INVALID_REQUEST,
        message="é%" * 5_000,
        violations=tuple(Violation(field=f"renditions[{index}]", description="x" * 300) for index in range(500)),
        details=(placement_pb2.Placement(policy="p" * 9_000),),
    )
    status = rich_status.status_from_failure(failure)
    safe = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
    on_the_wire = status.ByteSize() + len(quote(status.message, safe=safe))
    assert on_the_wire <= rich_status.METADATA_BUDGET_BYTES
    read = rich_status.failure_from_status(status)
    assert read is not None
    assert read.message.endswith(" …")
    assert 5 < len(read.violations) < 500
    assert read.details == ()


def test_the_refusals_of_sixteen_devices_fit() -> None:
    placement = placement_pb2.Placement(policy="least_weighted_load")
    for index in range(16):
        verdict = placement.verdicts.add(device=f"devices/GPU-7f3c2a10-0000-4000-8000-0000000000{index:02}", weight=100)
        verdict.refusal.rule = "CAPACITY"
        verdict.refusal.needed, verdict.refusal.available = 124_416_000, 1_000_000
        verdict.refusal.message = "encode needs 124416000 millionths of an engine, 1000000 are left of 1800000000"
    failure = RequestFailure(
        reason=Reason.NO_CAPACITY,
        message="Cannot place the session: no device has room. Try later, or a smaller ladder.",
        retry_after=timedelta(seconds=5),
        details=(placement,),
    )
    assert _there_and_back(failure).details == (placement,)


def test_a_reason_of_a_newer_daemon_keeps_its_code_and_its_name() -> None:
    status = rich_status.status_from_failure(RequestFailure(reason=Reason.NO_CAPACITY, message="no"))
    info = error_details_pb2.ErrorInfo(reason="FAN_STUCK", domain=rich_status.DOMAIN)
    status.details[0].Pack(info)
    read = rich_status.failure_from_status(status)
    assert read is not None
    assert read.reason.code is StatusCode.RESOURCE_EXHAUSTED
    assert read.metadata["reason"] == "FAN_STUCK"


def test_a_status_of_somebody_else_is_no_failure_of_ours() -> None:
    foreign = any_pb2.Any()
    foreign.Pack(error_details_pb2.ErrorInfo(reason="X", domain="example.com"))
    assert rich_status.failure_from_status(status_pb2.Status(code=3, details=[foreign])) is None
    assert rich_status.failure_from_status(status_pb2.Status(code=14, message="gone")) is None


def test_unknown_and_damaged_details_are_left_out() -> None:
    status = rich_status.status_from_failure(RequestFailure(reason=Reason.INTERNAL, message="no"))
    status.details.add(type_url="type.googleapis.com/not.Known", value=b"x")
    status.details.add(type_url="type.googleapis.com/gpu_balancer.v1.Placement", value=b"\xff\xff")
    read = rich_status.failure_from_status(status)
    assert read is not None
    assert read.details == ()


def test_a_client_needs_neither_settings_nor_logs_nor_telemetry() -> None:
    program = (
        "import sys, gpu_balancer.runtime.rich_status\n"
        "heavy = {'pydantic', 'structlog', 'opentelemetry', 'prometheus_client', 'tomlkit', 'rich'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
