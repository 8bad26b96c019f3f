"""Finds the session that an earlier request with the same id made, before anybody is asked about its media.

Admission is idempotent by itself. But before it comes the look at the media, and a retry must not fail there because
its own first try has already made the outputs, or because the input has gone since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from balancer.session_listing import MAX_PAGE_SIZE, SessionFilter
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from balancer.domain.session import SessionRecord
    from balancer.session_engine import SessionEngine


def answered_before(engine: SessionEngine, request_id: str, digest: str) -> SessionRecord | None:
    """Gives the session that a request made before.

    Looks at the newest sessions only: retries follow soon, and a later one still meets the engine's own memory.

    Args:
        engine: Knows sessions.
        request_id: Of the request. Empty: it never was here.
        digest: Hash of what it asks for.

    Returns:
        The session. None: there is none.

    Raises:
        RequestFailure: REQUEST_ID_REUSED when the id was used for another session.
    """
    if not request_id:
        return None
    newest = engine.list(SessionFilter(), page_size=MAX_PAGE_SIZE).records
    found = next((record for record in newest if record.request_id == request_id), None)
    if found is not None and found.request_digest != digest:
        raise RequestFailure(
            reason=Reason.REQUEST_ID_REUSED,
            message=f"Cannot use request id {request_id!r} again: it was used for another session. Try a new one.",
        )
    return found
