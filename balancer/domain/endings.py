"""How a session ends: at once, or once an agent has completed what its attempts left open for a further one.

An attempt that fails leaves its files in parts and its playlists open where another may go on with them. When there
will be none, its agent joins and ends them. The session is STOPPING until then, so that who has heard of its end finds
everything that it has made, and nothing of it runs.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from balancer.domain.requeueing import attempt_of
from balancer.domain.session import Failure, SessionRecord, SessionState


def completed_first(
    record: SessionRecord, state: SessionState, end_time: datetime, failure: Failure | None, *, begun: bool = True
) -> SessionRecord:
    """Ends a session that does not end by completing its outputs itself, done or asked to.

    Args:
        record: The session.
        state: A final one.
        end_time: When it ended, if nothing is open.
        failure: Why, if that is to be told.
        begun: Whether its present attempt was begun, if it has one.

    Returns:
        The session as it has ended; or STOPPING, with the attempt whose agent is to be asked for the rest.
    """
    left = _left_open(record, begun=begun)
    if left is None:
        return final(record, state, end_time, failure)
    return replace(final(left, state, end_time, failure), state=SessionState.STOPPING, settling=state, end_time=None)


def completed(record: SessionRecord, now: datetime) -> SessionRecord:
    """Ends a session whose outputs were all that was awaited. Any other stays as it is."""
    return record if record.settling is None else final(record, record.settling, now, record.failure)


def final(
    record: SessionRecord, state: SessionState, end_time: datetime, failure: Failure | None = None
) -> SessionRecord:
    """Ends a session whose processes are known to be gone, or known never to have been.

    Args:
        record: The session.
        state: A final one.
        end_time: When it ended.
        failure: Why, if that is to be told.
    """
    return replace(
        record,
        state=state,
        reservation=None,
        conditions=(),
        failure=failure,
        ingest_url=None,
        end_time=end_time,
        requeue=False,
        moving=None,
        settling=None,
        not_before_time=None,
        standing=None,
        speed_limit=None,
    )


def _left_open(record: SessionRecord, *, begun: bool) -> SessionRecord | None:
    """Gives a session with the attempt that is to complete all that is open as its present one. None: nothing is."""
    left = record.ended_attempts
    if begun and record.device_id is not None:
        # One that none goes on with has completed everything by itself, also what it continued.
        left = (*left, *attempt_of(record)) if record.may_continue else ()
    if not left:
        return None
    last = left[-1]
    return replace(
        record,
        device_id=last.device_id,
        attempt=last.attempt,
        folder=last.folder,
        ended_attempts=left[:-1],
    )
