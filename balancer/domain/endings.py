"""How a session ends: at once, or once an agent has completed what its attempts left open for a further one.

An attempt that fails leaves its files in parts and its playlists open where another may go on with them. When there
will be none, its agent joins and ends them. The session is STOPPING until then, so that who has heard of its end finds
everything that it has made, and nothing of it runs.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from balancer.domain.attempt_reports import lasting_conditions, with_end
from balancer.domain.requeueing import attempt_of
from balancer.domain.session import EndedAttempt, Failure, SessionRecord, SessionState, Settling
from balancer.domain.session_events import AttemptReported


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
        The session as it has ended; or STOPPING, on the device whose agent is to be asked for the rest.
    """
    ended = final(record, state, end_time, failure)
    if (last := _last_open(record, begun=begun)) is None:
        return ended
    return replace(
        ended,
        state=SessionState.STOPPING,
        settling=Settling(state=state, attempt=last.attempt),
        device_id=last.device_id,
        folder=last.folder,
        end_time=None,
    )


def settled(record: SessionRecord, event: AttemptReported) -> SessionRecord:
    """Takes what the agent tells of the attempt that it settles: what could not be joined, and where it is kept.

    As for any other stop, a session whose outputs could not be completed has failed.
    """
    told, failure, news = with_end(record, event), record.failure, event.failure
    if news is None or record.settling is None or (failure is not None and news.message in failure.message):
        return told
    if failure is not None and event.attempt == record.attempt:
        return replace(told, failure=news)
    last = record.last_restart
    if last is None or last.attempt != event.attempt or news.message == last.failure.message:
        return told  # Why an attempt failed is no news of what came of its outputs.
    if failure is None:
        return replace(told, failure=news, settling=replace(record.settling, state=SessionState.FAILED))
    return replace(
        told, failure=replace(failure, message=f"{failure.message} Of attempt {event.attempt}: {news.message}")
    )


def completed(record: SessionRecord, now: datetime) -> SessionRecord:
    """Ends a session whose outputs were all that was awaited. Any other stays as it is."""
    return record if record.settling is None else final(record, record.settling.state, now, record.failure)


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
        conditions=lasting_conditions(record.conditions),
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


def _last_open(record: SessionRecord, *, begun: bool) -> EndedAttempt | None:
    """Gives the attempt that is to complete everything that is open. None: nothing is."""
    if not begun or record.device_id is None:
        return record.ended_attempts[-1] if record.ended_attempts else None
    # One that none goes on with has completed everything by itself, also what it continued.
    return attempt_of(record)[0] if record.may_continue else None
