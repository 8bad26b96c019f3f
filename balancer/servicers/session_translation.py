"""From a draft and what is known of its input to what the engine is asked for, and from records to answers.

Answers never carry secrets: credentials in inputs and keys in pushes are stored for the agent and shown as `***`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from balancer.domain.demand import nominal_cost
from balancer.domain.session import Priority, SessionState
from balancer.domain.workload import DecodeTask, EncodeTask, VideoCodec, Workload
from balancer.servicers.contract_words import (
    ENCODED_CODECS,
    PRIORITIES,
    PRIORITY_NUMBERS,
    SESSION_STATE_NUMBERS,
    SPEEDS,
    VIDEO_CODECS,
)
from balancer.servicers.input_validation import HIGHEST_INPUT_FRAME_RATE, MAX_PICTURE_PIXELS, InputKind
from balancer.servicers.names import device_name, session_name
from balancer.servicers.output_validation import check_copied_formats
from balancer.servicers.placement_translation import fill_workload
from balancer.servicers.rendition_validation import LARGEST_SIDE, SMALLEST_SIDE
from balancer.servicers.session_validation import SPEC, SessionDraft, check_pace
from balancer.servicers.violations import SECOND, Violations
from gpu_balancer.pictures.sizes import PictureSize, fitted_size
from gpu_balancer.runtime.failures import Reason, RequestFailure, Violation
from gpu_balancer.runtime.redaction import Redactor, redact_url, url_secrets
from gpu_balancer.v1 import media_pb2, session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.timestamp_pb2 import Timestamp

    from balancer.domain.session import Failure, Progress, SessionRecord
    from balancer.domain.workload import CostFactors
    from gpu_balancer.v1.media_pb2 import FrameRate, Input, InputFacts, Rendition, TranscodeSpec, VideoEncoding
    from gpu_balancer.v1.session_pb2 import Session

DEFAULT_FRAME_RATE = (30, 1)
"""Of an input whose rate nobody knows."""

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

    @property
    def payload(self) -> bytes:
        """The session, serialized."""
        return self.session.SerializeToString()


def prepare_session(draft: SessionDraft, facts: InputFacts) -> PreparedSession:
    """Completes a draft with what is known of its input.

    Args:
        draft: A checked session. Changed: it becomes the prepared one.
        facts: Of its input.

    Returns:
        What the engine is asked for.

    Raises:
        RequestFailure: INVALID_REQUEST when the asked and the input do not fit together; INPUT_NO_VIDEO.
    """
    session = draft.session
    live = _is_live(draft, facts)
    priority = PRIORITIES.get(session.priority) or (Priority.LIVE if live else Priority.BATCH)
    session.priority = PRIORITY_NUMBERS[priority]
    session.input_facts.CopyFrom(facts)
    found = Violations()
    check_pace(found, session, live=live)
    found.refuse()
    workload = _checked_workload(draft, facts, real_time=live or priority is Priority.LIVE)
    if session.HasField("reserved_speed"):
        # Ladders that are remembered know nothing of it: the same one may be asked for at another speed.
        workload = replace(workload, reserved_speed=_exact(session.reserved_speed))
    return PreparedSession(
        session=session,
        workload=workload,
        priority=priority,
        max_wait=(session.max_wait.ToTimedelta() or None) if session.HasField("max_wait") else None,
        preemptible=session.preemptible,
    )


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
    redactor = _redactor(session.transcode) if record.failure else None
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
    for condition in record.conditions:
        told = session.conditions.add(type=condition.type, message=condition.message)
        told.since_time.FromDatetime(condition.since_time)
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
    session.trace_id = trace_id_of(record.traceparent)


def planned_to_proto(prepared: PreparedSession) -> Session:
    """Makes the answer that tells of a session that was not asked for yet."""
    session = session_pb2.Session()
    session.CopyFrom(prepared.session)
    redact_session(session)
    return session


def redact_session(session: Session) -> None:
    """Hides the secrets of a session's URLs."""
    spec = session.transcode
    if spec.input.WhichOneof("source") == "uri":
        spec.input.uri = redact_url(spec.input.uri)
    for output in spec.outputs:
        if output.WhichOneof("kind") == "push":
            output.push.url = redact_url(output.push.url)


def redacted_argv(session: Session, argv: Iterator[str]) -> list[str]:
    """Hides a session's secrets in a command, whatever its agent has hidden already."""
    redactor = _redactor(session.transcode)
    return [redactor.redact(argument) for argument in argv]


def upload_of(payload: bytes) -> str | None:
    """Gives the name of the upload that a stored session reads. None: it reads something else."""
    return session_pb2.Session.FromString(payload).transcode.input.upload or None


def trace_id_of(traceparent: str | None) -> str:
    """Takes the trace id out of a W3C traceparent; "" when there is none."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else ""


def _is_live(draft: SessionDraft, facts: InputFacts) -> bool:
    """Whether the session must keep up with its input: a playlist without an end is live too."""
    if draft.input_kind in (InputKind.LIVE, InputKind.INGEST) or draft.session.transcode.input.native_rate:
        return True
    return draft.input_kind is InputKind.ON_DEMAND and "hls" in facts.format and not facts.HasField("duration")


def _checked_workload(draft: SessionDraft, facts: InputFacts, *, real_time: bool) -> Workload:
    """Finds what a session costs, and that its ladder can be made of its input: once for each ladder and such input."""
    spec = draft.session.transcode
    found = Violations()
    _check_start(found, spec.input, facts)
    workload = draft.ladder.workload(facts, real_time=real_time)
    if workload is not None:
        found.refuse()
        return workload
    sizes = _checked_sizes(found, spec, facts)
    workload = _workload(spec, facts, sizes, real_time=real_time)
    draft.ladder.keep(facts, workload)
    return workload


def _checked_sizes(found: Violations, spec: TranscodeSpec, facts: InputFacts) -> list[PictureSize | None]:
    """Finds the size of each rendition, None where nothing is encoded, and notes what does not fit the input."""
    encoded = any(rendition.WhichOneof("video") == "encode" for rendition in spec.renditions)
    if encoded and not (facts.width and facts.height):
        raise RequestFailure(
            reason=Reason.INPUT_NO_VIDEO,
            message="Cannot encode video: the input has none. Try another input, or renditions with sound only.",
            violations=(Violation(field=f"{SPEC}.input", description="has no video"),),
        )
    sizes: list[PictureSize | None] = []
    for index, rendition in enumerate(spec.renditions):
        if rendition.WhichOneof("video") != "encode":
            sizes.append(None)
            continue
        size = _size_of(rendition.encode, facts)
        _check_size(found, f"{SPEC}.renditions[{index}].encode", size)
        sizes.append(size)
    if _passes_on(spec):
        by_name = {rendition.id: rendition for rendition in spec.renditions}
        check_copied_formats(found, f"{SPEC}.outputs", spec.outputs, by_name, facts)
    found.refuse()
    return sizes


def _passes_on(spec: TranscodeSpec) -> bool:
    """Whether anything reaches an output in the input's own format."""
    return any(
        rendition.WhichOneof("video") == "passthrough" or rendition.audio.codec == media_pb2.AUDIO_CODEC_COPY
        for rendition in spec.renditions
    )


def _check_start(found: Violations, given: Input, facts: InputFacts) -> None:
    if not (given.HasField("start_offset") and facts.HasField("duration")):
        return
    length = facts.duration.seconds * SECOND + facts.duration.nanos
    if length and given.start_offset.seconds * SECOND + given.start_offset.nanos >= length:
        told = f"must be before the input's end at {length / SECOND:g} s"
        found.add(f"{SPEC}.input.start_offset", told)


def _size_of(encoding: VideoEncoding, facts: InputFacts) -> PictureSize:
    return fitted_size(
        PictureSize(facts.width, facts.height),
        width=encoding.width if encoding.HasField("width") else None,
        height=encoding.height if encoding.HasField("height") else None,
        stretch=encoding.fit == media_pb2.FIT_STRETCH,
    )


def _check_size(found: Violations, where: str, size: PictureSize) -> None:
    """Notes a size that follows from the input's and cannot be made. What was asked was checked before."""
    for side, pixels in (("width", size.width), ("height", size.height)):
        if not SMALLEST_SIDE <= pixels <= LARGEST_SIDE:
            told = f"would be {pixels:,} pixels with the input's aspect ratio"
            found.add(f"{where}.{side}", f"{told}, beyond {SMALLEST_SIDE} to {LARGEST_SIDE:,}; give both sides")
    if size.width * size.height > MAX_PICTURE_PIXELS:
        told = f"must leave at most {MAX_PICTURE_PIXELS:,} pixels per picture, not {size.width:,} × {size.height:,}"
        found.add(f"{where}.height", told)


def _workload(spec: TranscodeSpec, facts: InputFacts, sizes: list[PictureSize | None], *, real_time: bool) -> Workload:
    source_rate = _source_rate(facts)
    encodes: list[EncodeTask] = []
    scaled = 0
    for rendition, size in zip(spec.renditions, sizes, strict=True):
        if size is None:
            continue
        task, rate = _encode_task(rendition, size, source_rate)
        encodes.append(task)
        same_rate = rate[0] * source_rate[1] == source_rate[0] * rate[1]
        if not same_rate or size != (facts.width, facts.height):
            scaled += task.pixels_per_second
    return Workload(
        decode=_decode_task(facts, source_rate) if encodes else None,
        scale_pixels_per_second=scaled,
        encodes=tuple(encodes),
        real_time=real_time,
        allow_software_encode=spec.allow_software_encode,
    )


def _decode_task(facts: InputFacts, rate: tuple[int, int]) -> DecodeTask:
    return DecodeTask(
        # An ingest whose client did not say: what publishers send is H.264 with hardly an exception.
        codec=VIDEO_CODECS.get(facts.video_codec, VideoCodec.H264),
        width=facts.width,
        height=facts.height,
        bit_depth=facts.bit_depth if facts.HasField("bit_depth") else 8,
        chroma=facts.chroma or None,
        pixels_per_second=_pixels_per_second(facts.width, facts.height, rate),
        rotated=facts.rotation_degrees != 0,
    )


def _encode_task(
    rendition: Rendition, size: PictureSize, source_rate: tuple[int, int]
) -> tuple[EncodeTask, tuple[int, int]]:
    """Gives one rendition as work, and its frame rate."""
    encoding = rendition.encode
    rate = _fraction(encoding.frame_rate) if encoding.HasField("frame_rate") else source_rate
    task = EncodeTask(
        codec=ENCODED_CODECS[encoding.codec],
        width=size.width,
        height=size.height,
        bit_depth=encoding.bit_depth,
        speed=SPEEDS[encoding.speed],
        pixels_per_second=_pixels_per_second(size.width, size.height, rate),
    )
    return task, rate


def _exact(speed: float) -> Fraction:
    """Takes a speed for the decimal that its client wrote: 0.1 is a tenth, not the binary fraction beside it."""
    return Fraction(repr(speed)).limit_denominator(1000)


def _source_rate(facts: InputFacts) -> tuple[int, int]:
    """Gives the input's frame rate; 30 when it is unknown or, as with some streams, what was read is a time base."""
    numerator, denominator = _fraction(facts.frame_rate)
    if not numerator or not denominator or numerator > HIGHEST_INPUT_FRAME_RATE * denominator:
        return DEFAULT_FRAME_RATE
    return numerator, denominator


def _fraction(rate: FrameRate) -> tuple[int, int]:
    return rate.numerator, rate.denominator


def _pixels_per_second(width: int, height: int, rate: tuple[int, int]) -> int:
    """Rounds up: a promise must not be short by a fraction."""
    return -(-width * height * rate[0] // rate[1])


def _redactor(spec: TranscodeSpec) -> Redactor:
    urls = [output.push.url for output in spec.outputs if output.WhichOneof("kind") == "push"]
    if spec.input.WhichOneof("source") == "uri":
        urls.append(spec.input.uri)
    return Redactor(secret for url in urls for secret in url_secrets(url))


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


def _fill_failure(told: session_pb2.Failure, failure: Failure, redactor: Redactor) -> None:
    told.reason = failure.reason
    told.message = redactor.redact(failure.message)
    if failure.exit_code is not None:
        told.exit_code = failure.exit_code
    told.log_tail.extend(redactor.redact(line) for line in failure.log_tail)
