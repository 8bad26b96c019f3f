"""Why an attempt is not launched, in the words of a request's answer: transcodes and recordings are refused alike."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from agents.pipelines.pipeline_error import PipelineErrorReason
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation, invalid

if TYPE_CHECKING:
    from agents.pipelines.pipeline_error import PipelineError
    from agents.sessions.attempt import AttemptKey

_FULL = (errno.ENOSPC, errno.EDQUOT)


def folder_refusal(key: AttemptKey, error: OSError) -> RequestFailure:
    """Makes the refusal of an attempt whose folder cannot be written, or whose program cannot be started."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _FULL:
        return RequestFailure(
            reason=Reason.DISK_FULL,
            message=f"Cannot launch {key}: the disk is full{where}. Try to delete sessions or to free space.",
        )
    return RequestFailure(
        reason=Reason.OUTPUT_UNWRITABLE, message=f"Cannot launch {key}: {error.strerror}{where}. Try the agent's log."
    )


def pipeline_refusal(error: PipelineError, *, where: str) -> RequestFailure:
    """Makes the refusal of a job that the device, or any device, cannot do.

    Args:
        error: Why.
        where: Path of the job as clients know it, "session.transcode": their request is what cannot be done.
    """
    violation = Violation(field=f"{where}.{error.field}", description=error.message)
    if error.reason is PipelineErrorReason.NO_CAPABILITY:
        return RequestFailure(reason=Reason.NO_CAPABLE_DEVICE, message=error.message, violations=(violation,))
    return invalid(violation)
