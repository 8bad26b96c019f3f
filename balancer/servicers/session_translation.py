"""From a draft and what is known of its input to what the engine is asked for, and from records to answers.

Answers never carry secrets: credentials in inputs and keys in pushes are stored for the agent and shown as `***`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from balancer.domain.demand import nominal_cost
from balancer.domain.restart import LOSSES_ONLY
from balancer.domain.session import Priority, SessionState
from balancer.domain.workload import CostFactors
from balancer.servicers.contract_words import PRIORITIES, PRIORITY_NUMBERS, SESSION_STATE_NUMBERS
from balancer.servicers.input_validation import InputKind
from balancer.servicers.names import device_name, session_name
from balancer.servicers.placement_translation import fill_workload
from balancer.servicers.recording_workload import recording_workload
from balancer.servicers.restart_policies import check_always, policy_of, restart_rule_of
from balancer.servicers.session_secrets import redact_session, redactor_of
from balancer.servicers.session_specs import input_of
from balancer.servicers.session_validation import check_pace
from balancer.servicers.transcode_workload import checked_workload
from balancer.servicers.violations import Violations
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

    from balancer.domain.restart import RestartRule
    from balancer.domain.session import Failure, LastRestart, MeasuredUse, Progress, SessionRecord
    from balancer.domain.workload import Workload
    from balancer.servicers.session_validation import SessionDraft
    from gpu_balancer.runtime.redaction import Redactor
    from gpu_balancer.v1.media_pb2 import InputFacts
    from gpu_balancer.v1.session_pb2 import Session

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSession:
    """A session as the engine is asked for it."""

    session: Session
    """With profile, names, defaults, priority and input facts filled in; it has the client's secrets."""
    workload: Workload
    priority: Priority
    max_wait: timedelta | None
    """How long it may wait for a device. None: not at all."""
    preemptible: bool
    restart: RestartRule
    resumable: bool
    """Whether a further attempt continues what an earlier one made."""
    max_duration: timedelta | None
    """Of running, all attempts together. None: no bound."""

    @property
    def payload(self) -> bytes:
        """The session, serialized."""
        return self.session.SerializeToString()


def prepare_session(draft: SessionDraft, facts: InputFacts, restart: RestartRule = LOSSES_ONLY) -> PreparedSession:
    """Completes a draft with what is known of its input.

    Args:
        draft: A checked session. Changed: it becomes the prepared one.
        facts: Of its input.
        restart: What the settings say of restarts.

    Returns:
        What the engine is asked for.

    Raises:
        RequestFailure: INVALID_REQUEST when the asked and the input do not fit together; INPUT_NO_VIDEO.
    """
    session, ladder = draft.session, draft.ladder
    assert ladder is not None, "a transcode has a ladder"
    live_input = _has_live_input(draft, facts)
    live = live_input or session.transcode.input.native_rate
    priority = PRIORITIES.get(session.priority) or (Priority.LIVE if live else Priority.BATCH)
    session.priority = PRIORITY_NUMBERS[priority]
    session.input_facts.CopyFrom(facts)
    found = Violations()
    check_pace(found, session, live=live)
    check_always(found, session, live=live_input)
    found.refuse()
    real_time = live or priority is Priority.LIVE
    workload = checked_workload(session.transcode, ladder, facts, real_time=real_time)
    if session.HasField("reserved_speed"):
        # Ladders that are remembered know nothing of it: the same one may be asked for at another speed.
        workload = replace(workload, reserved_speed=_exact(session.reserved_speed))
    rule = restart_rule_of(session, restart, live=live_input)
    return _prepared(session, workload, priority, rule, resumable=live_input)


def prepare_recording(draft: SessionDraft, restart: RestartRule = LOSSES_ONLY) -> PreparedSession:
    """Completes the draft of a recording, of which everything is known.

    Args:
        draft: A checked session. Changed: it becomes the prepared one.
        restart: What the settings say of restarts.

    Raises:
        RequestFailure: INVALID_REQUEST when a rendition's size follows from the display's and cannot be made.
    """
    session = draft.session
    session.priority = PRIORITY_NUMBERS[Priority.LIVE]
    found = Violations()
    workload = recording_workload(found, session.recording)
    found.refuse()
    return _prepared(session, workload, Priority.LIVE, restart_rule_of(session, restart, live=False), resumable=True)


def _prepared(
    session: Session, workload: Workload, priority: Priority, rule: RestartRule, *, resumable: bool
) -> PreparedSession:
    session.restart.CopyFrom(policy_of(rule))
    return PreparedSession(
        session=session,
        workload=workload,
        priority=priority,
        max_wait=(session.max_wait.ToTimedelta() or None) if session.HasField("max_wait") else None,
        preemptible=session.preemptible,
        restart=rule,
        resumable=resumable,
        max_duration=_bound_of(session),
    )


def _bound_of(session: Session) -> timedelta | None:
    """Gives how long a session may run in all. A bound of its input is one too, once it is continued."""
    bounds = [session.max_duration.ToTimedelta()] if session.HasField("max_duration") else []
    given = input_of(session)
    if given is not None and given.HasField("duration"):
        bounds.append(given.duration.ToTimedelta())
    return min(bounds, default=None)


def session_to_proto(record: SessionRecord, factors: CostFactors, *, with_ingest_url: bool = False) -> Session:
    """Makes the answer that tells of a session; see `tell_session`."""
    session = session_pb2.Session()
    tell_session(session, record, factors, with_ingest_url=with_ingest_url)
    return session


def tell_session(
    session: Session, record: SessionRecord, factors: CostFactors, *, with_ingest_url: bool = False
) -> None:
    """Fills in an answer that tells of a session.

    Args:
        session: The answer, empty.
        record: The session.
        factors: Tell what its work costs once it has nothing booked any more.
        with_ingest_url: Whether to say where to publish: only to who asks for this one session.
    """
    session.MergeFromString(record.payload)
    redactor = redactor_of(session) if record.failure or record.last_restart else None
    redact_session(session)
    session.name = session_name(record.id)
    session.state = SESSION_STATE_NUMBERS[record.state]
    session.device = device_name(record.device_id)
    session.attempt = record.attempt
    session.revision = record.revision
    _stamp(session.create_time, record.create_time)
    if record.running_time is not None:
        _stamp(session.running_time, record.running_time)
    if record.end_time is not None:
        _stamp(session.end_time, record.end_time)
    booked = record.reservation
    cost = booked.cost_pixels_per_second if booked else nominal_cost(record.workload, factors)
    fill_workload(session.workload, record.workload, cost)
    _fill_conditions(session, record, redactor)
    if record.progress is not None:
        _fill_progress(session.progress, record.progress)
    if record.failure is not None and redactor is not None:
        _fill_failure(session.failure, record.failure, redactor)
    if with_ingest_url and not record.state.final:
        session.ingest_url = record.ingest_url or ""
    if record.state is SessionState.QUEUED:
        _fill_queue(session.queue, record)
    if record.speed_limit is not None:
        session.speed_limit = float(record.speed_limit)
    session.preemption_count = record.preemption_count
    session.restart_count = record.restart_count
    if record.last_restart is not None and redactor is not None:
        _fill_last_restart(session.last_restart, record.last_restart, redactor)
    if record.recording_report is not None:
        session.recording_report.MergeFromString(record.recording_report)
    if record.measured_use is not None:
        _fill_measured_use(session, record.measured_use)
    session.trace_id = trace_id_of(record.traceparent)


def planned_to_proto(prepared: PreparedSession) -> Session:
    """Makes the answer that tells of a session that was not asked for yet."""
    session = session_pb2.Session()
    session.CopyFrom(prepared.session)
    redact_session(session)
    return session


def check_stored(record: SessionRecord) -> None:
    """Sees to it that what a store has of a session can be told.

    Raises:
        ValueError: It cannot.
    """
    try:
        session_to_proto(record, CostFactors(), with_ingest_url=True)
    except (DecodeError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"it cannot be told: {error}") from error


def upload_of(payload: bytes) -> str | None:
    """Gives the name of the upload that a stored session reads. None: it reads something else."""
    given = input_of(session_pb2.Session.FromString(payload))
    return given.upload or None if given is not None else None


def trace_id_of(traceparent: str | None) -> str:
    """Takes the trace id out of a W3C traceparent; "" when there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else ""


def _has_live_input(draft: SessionDraft, facts: InputFacts) -> bool:
    """Whether what a session reads goes on without it: a playlist without an end does too."""
    if draft.input_kind in (InputKind.LIVE, InputKind.INGEST):
        return True
    return draft.input_kind is InputKind.ON_DEMAND and "hls" in facts.format and not facts.HasField("duration")


def _exact(speed: float) -> Fraction:
    """Takes a speed for the decimal that its client wrote: 0.1 is a tenth, not the binary fraction beside it."""
    return Fraction(repr(speed)).limit_denominator(1000)


def _stamp(told: Timestamp, instant: datetime) -> None:
    """Does as `FromDatetime`, which goes the long way by the calendar, and is asked at every answer."""
    since = instant - _EPOCH
    told.seconds = since.days * 86_400 + since.seconds
    told.nanos = since.microseconds * 1_000


def _fill_queue(told: session_pb2.QueueStatus, record: SessionRecord) -> None:
    if record.queued_time is not None:
        _stamp(told.queued_time, record.queued_time)
    if record.queue_deadline is not None:
        _stamp(told.deadline, record.queue_deadline)
    if record.not_before_time is not None:
        _stamp(told.not_before_time, record.not_before_time)
    standing = record.standing
    if standing is None:
        return
    told.position = standing.position
    told.message = standing.message
    if standing.estimated_wait is not None:
        told.estimated_wait.FromTimedelta(standing.estimated_wait)


def _fill_progress(told: session_pb2.Progress, progress: Progress) -> None:
    told.frames = progress.frames
    told.frames_per_second = progress.frames_per_second
    if progress.speed is not None:
        told.speed = progress.speed
    told.duplicated_frames = progress.duplicated_frames
    told.dropped_frames = progress.dropped_frames
    told.out_time.FromTimedelta(progress.out_time)
    told.written_bytes = progress.written_bytes
    if progress.total_time is not None:
        told.total_time.FromTimedelta(progress.total_time)


def _fill_measured_use(session: Session, measured: MeasuredUse) -> None:
    told = session.measured_use
    told.cores, told.memory_mib = measured.cores, measured.memory_mib
    told.measured_time.FromTimedelta(measured.measured_time)


def _fill_conditions(session: Session, record: SessionRecord, redactor: Redactor | None) -> None:
    for condition in record.conditions:
        # That a session restarts is told with the failure's words, which may quote a secret.
        message = condition.message if redactor is None else redactor.redact(condition.message)
        told = session.conditions.add(type=condition.type, message=message)
        told.since_time.FromDatetime(condition.since_time)


def _fill_last_restart(told: session_pb2.Restart, last: LastRestart, redactor: Redactor) -> None:
    told.attempt = last.attempt
    told.device = device_name(last.device_id)
    _fill_failure(told.failure, last.failure, redactor)
    _stamp(told.restart_time, last.restart_time)


def _fill_failure(told: session_pb2.Failure, failure: Failure, redactor: Redactor) -> None:
    told.reason = failure.reason
    told.message = redactor.redact(failure.message)
    if failure.exit_code is not None:
        told.exit_code = failure.exit_code
    told.log_tail.extend(redactor.redact(line) for line in failure.log_tail)
