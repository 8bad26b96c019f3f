"""Failures over HTTP: the same stable reasons as over gRPC, as JSON."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from gpu_balancer.runtime.failures import RequestFailure, StatusCode

_STATUS = {
    StatusCode.INVALID_ARGUMENT: 400,
    StatusCode.NOT_FOUND: 404,
    StatusCode.ALREADY_EXISTS: 409,
    StatusCode.PERMISSION_DENIED: 403,
    StatusCode.RESOURCE_EXHAUSTED: 429,
    StatusCode.FAILED_PRECONDITION: 409,
    StatusCode.OUT_OF_RANGE: 416,
    StatusCode.INTERNAL: 500,
    StatusCode.UNAVAILABLE: 503,
}


def failure_answer(status: int, reason: str, message: str, headers: dict[str, str] | None = None) -> Response:
    """Makes the answer of a request that cannot be done."""
    content = {"error": {"reason": reason, "message": message}}
    return JSONResponse(content, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


def answer_of(failure: RequestFailure) -> Response:
    """Makes the answer of a failure. A range that cannot be read tells the size, as HTTP wants it."""
    headers = {}
    status = _STATUS[failure.reason.code]
    if status == 416:
        headers["Content-Range"] = f"bytes */{failure.metadata.get('size_bytes', '*')}"
    return failure_answer(status, failure.reason.name, failure.message, headers)
