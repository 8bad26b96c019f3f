"""What is seen of sessions from outside: a trace for each, and the metrics of sessions and placement.

It only listens. A session's trace has one span for its whole life, under it what the balancer did (admit, with place
inside; then the wait for the first frame, and the running), and what the agent adds under the same trace. A span cannot
be carried over a restart of the balancer: after one, the spans that follow still belong to the session's trace.
docs/telemetry.md lists every name.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, set_span_in_context

from balancer.domain.session import SessionState
from balancer.ports.session_observer import SilentObserver
from gpu_balancer.runtime.telemetry import context_from_traceparent, traceparent_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, SpanContext

    from balancer.domain.ids import SessionId
    from balancer.domain.placement import Decision
    from balancer.domain.session import SessionRecord
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.telemetry import Telemetry

_START_BOUNDS_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 30, 60)
_WAIT_BOUNDS_S = (0.5, 1, 3, 10, 30, 60, 180, 600, 1800, 3600, 14400, 86400)
_PLACEMENT_BOUNDS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1)
_SPEED_BOUNDS = (0.25, 0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.5, 2, 4, 8, 16)


class SessionTelemetry(SilentObserver):
    """Turns what the engine does into spans and measurements. Implements `SessionObserver`."""

    def __init__(self, telemetry: Telemetry, *, clock: Clock) -> None:
        """Makes the instruments that are written to.

        Args:
            telemetry: Tracer and meter.
            clock: Tells when spans begin and end.
        """
        self._tracer = telemetry.tracer
        self._tracing = telemetry.tracing
        self._clock = clock
        self._spans: dict[str, Span] = {}
        self._earlier: dict[SessionId, SpanContext] = {}
        """Of sessions that began again: the running of the attempt before."""
        meter = telemetry.meter
        self._make_queue_instruments(meter)
        # Counted here and read when somebody asks: it moves at every admission.
        self._created: Counter[tuple[str, str, str]] = Counter()
        meter.create_observable_counter(
            "gpu_balancer.session.created",
            callbacks=[self._read_created],
            unit="{session}",
            description="Sessions that were placed.",
        )
        self._ended = meter.create_counter(
            "gpu_balancer.session.ended", unit="{session}", description="Sessions that ended, by state and reason."
        )
        self._refusals = meter.create_counter(
            "gpu_balancer.placement.refusals",
            unit="{refusal}",
            description="Devices that refused a session, by device and rule; whether or not another one took it.",
        )
        self._refused = meter.create_counter(
            "gpu_balancer.session.refused", unit="{session}", description="Sessions that every device refused."
        )
        self._policy_faults = meter.create_counter(
            "gpu_balancer.placement.policy_faults",
            unit="{fault}",
            description="Faults of a placement policy of the operator's, by policy and kind.",
        )
        self._placement = meter.create_histogram(
            "gpu_balancer.placement.duration",
            unit="s",
            description="From the request to the durable placement.",
            explicit_bucket_boundaries_advisory=_PLACEMENT_BOUNDS_S,
        )
        self._start = meter.create_histogram(
            "gpu_balancer.session.start.duration",
            unit="s",
            description="From the request to the first encoded frame.",
            explicit_bucket_boundaries_advisory=_START_BOUNDS_S,
        )
        self._speed = meter.create_histogram(
            "gpu_balancer.ffmpeg.speed",
            unit="1",
            description="Media time per wall time, at each progress report. 1 is real time.",
            explicit_bucket_boundaries_advisory=_SPEED_BOUNDS,
        )
        self._dropped = meter.create_counter(
            "gpu_balancer.ffmpeg.dropped_frames", unit="{frame}", description="Frames left out by ffmpeg."
        )
        self._duplicated = meter.create_counter(
            "gpu_balancer.ffmpeg.duplicated_frames", unit="{frame}", description="Frames repeated by ffmpeg."
        )

    def _make_queue_instruments(self, meter: Meter) -> None:
        self._queued = meter.create_counter(
            "gpu_balancer.session.queued", unit="{session}", description="Sessions that began to wait for a device."
        )
        self._preempted = meter.create_counter(
            "gpu_balancer.session.preempted",
            unit="{session}",
            description="Sessions that were stopped for LIVE work and queued again.",
        )
        self._retried = meter.create_counter(
            "gpu_balancer.session.retried",
            unit="{attempt}",
            description="Attempts that a device could not begin, so that another one was tried.",
        )
        self._restarted = meter.create_counter(
            "gpu_balancer.session.restarted",
            unit="{attempt}",
            description="Attempts that ended short of their work, after which the session began again or was moved.",
        )
        self._interrupted = meter.create_histogram(
            "gpu_balancer.session.restart.duration",
            unit="s",
            description="From the end of an attempt to the first encoded frame of the next one.",
            explicit_bucket_boundaries_advisory=_START_BOUNDS_S,
        )
        self._waited = meter.create_histogram(
            "gpu_balancer.queue.wait.duration",
            unit="s",
            description="From the request to the placement of a session that waited.",
            explicit_bucket_boundaries_advisory=_WAIT_BOUNDS_S,
        )

    def begin(self) -> str | None:
        """Begins a session's trace, before its admission.

        Returns:
            What to hand to the admission, as W3C traceparent; None when nothing is traced.
        """
        if not self._tracing:
            return None
        span = self._tracer.start_span("session", kind=SpanKind.SERVER, start_time=_nanoseconds(self._clock.now()))
        traceparent = traceparent_of(set_span_in_context(span))
        self._spans[traceparent] = span
        return traceparent

    def abandon(self, traceparent: str | None, reason: str) -> None:
        """Ends the trace of a session that was not admitted.

        Args:
            traceparent: What `begin` gave.
            reason: Stable name of the failure.
        """
        span = self._spans.pop(traceparent, None) if traceparent else None
        if span is not None:
            span.set_status(Status(StatusCode.ERROR, reason))
            span.set_attribute("error.type", reason)
            span.end(_nanoseconds(self._clock.now()))

    def on_admitted(self, record: SessionRecord, decision: Decision, seconds: float) -> None:
        """Counts a placement and writes its spans."""
        device = str(record.device_id)
        self._created[record.workload.kind.value, record.priority.value, device] += 1
        if record.queued_time is None:
            self._placement.record(seconds, {"placement.policy": decision.policy})
        else:
            self._waited.record(seconds, {"session.priority": record.priority.value})
        self._count_refusals(decision)
        if record.traceparent and (span := self._spans.get(record.traceparent)):
            span.set_attribute("session.name", f"sessions/{record.id}")
            span.set_attribute("device.id", device)
            end = _nanoseconds(self._clock.now())
            begin = end - int(seconds * 1e9)
            context = set_span_in_context(span)
            admit = self._tracer.start_span("session.admit", context=context, start_time=begin)
            place = self._tracer.start_span("session.place", context=set_span_in_context(admit), start_time=begin)
            place.set_attribute("placement.policy", decision.policy)
            place.set_attribute("device.id", device)
            place.set_attribute("session.cost_pixels_per_second", decision.cost_pixels_per_second)
            place.end(end)
            admit.end(end)

    def on_refused(self, decision: Decision) -> None:
        """Counts a session that no device takes."""
        self._refused.add(1, {"session.kind": decision.workload.kind.value})
        self._count_refusals(decision)

    def on_queued(self, record: SessionRecord, decision: Decision) -> None:
        """Counts a session that waits."""
        kind = record.workload.kind.value
        self._queued.add(1, {"session.kind": kind, "session.priority": record.priority.value})
        self._count_refusals(decision)

    def on_policy_fault(self, policy: str, kind: str) -> None:
        """Counts a fault of a policy of the operator's."""
        self._policy_faults.add(1, {"placement.policy": policy, "fault.kind": kind})

    def on_changed(self, before: SessionRecord, after: SessionRecord) -> None:
        """Counts progress, first frames, ways back into the queue and ends, and writes their spans."""
        if after.preemption_count > before.preemption_count:
            self._preempted.add(1, {"device.id": str(before.device_id)})
        if after.retry_count > before.retry_count and after.failure is not None:
            self._retried.add(1, {"device.id": str(before.device_id), "error.type": after.failure.reason})
        if after.last_restart is not before.last_restart:
            self._count_restart(before, after)
        device = {"device.id": str(after.device_id)}
        if after.progress is not None and after.progress is not before.progress:
            self._count_progress(before, after, device)
        if before.running_time is None and after.running_time is not None:
            self._count_first_frame(after, after.running_time, device)
        if after.state.final and not before.state.final:
            self._count_end(after)

    def _read_created(self, _: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(count, {"session.kind": kind, "session.priority": priority, "device.id": device})
            for (kind, priority, device), count in tuple(self._created.items())
        ]

    def _count_refusals(self, decision: Decision) -> None:
        for verdict in decision.verdicts:
            if verdict.refusal is not None:
                self._refusals.add(1, {"device.id": verdict.device_id, "refusal.rule": verdict.refusal.rule})

    def _count_progress(self, before: SessionRecord, after: SessionRecord, device: dict[str, str]) -> None:
        assert after.progress is not None
        if after.progress.speed is not None:
            self._speed.record(after.progress.speed, device)
        same = before.progress if before.attempt == after.attempt else None
        dropped = after.progress.dropped_frames - (same.dropped_frames if same else 0)
        duplicated = after.progress.duplicated_frames - (same.duplicated_frames if same else 0)
        if dropped > 0:
            self._dropped.add(dropped, device)
        if duplicated > 0:
            self._duplicated.add(duplicated, device)

    def _count_first_frame(self, record: SessionRecord, running_time: datetime, device: dict[str, str]) -> None:
        """Counts the wait for a first frame, of which every attempt has one."""
        last = record.last_restart
        since = record.create_time if last is None else last.restart_time
        waited = self._start if last is None else self._interrupted
        waited.record(max(0.0, (running_time - since).total_seconds()), device)
        self._span("session.first_frame", record, since, running_time)

    def _count_restart(self, before: SessionRecord, after: SessionRecord) -> None:
        """Counts an attempt that ended short of the session's work, and ends its span."""
        last = after.last_restart
        if last is None:
            return
        self._restarted.add(1, {"device.id": last.device_id, "error.type": last.failure.reason})
        if before.running_time is not None:
            error = last.failure.reason
            ran = self._span("session.running", before, before.running_time, last.restart_time, error=error)
            if ran is not None:
                self._earlier[after.id] = ran
        span = self._spans.get(after.traceparent) if after.traceparent else None
        if span is not None:
            told: dict[str, str | int] = {
                "session.attempt": last.attempt,
                "device.id": last.device_id,
                "error.type": last.failure.reason,
            }
            span.add_event("session.restarted", told, timestamp=_nanoseconds(last.restart_time))

    def _count_end(self, record: SessionRecord) -> None:
        reason = record.failure.reason if record.failure else ""
        attributes = {
            "session.kind": record.workload.kind.value,
            "session.state": record.state.value,
            "error.type": reason,
        }
        self._ended.add(1, {name: value for name, value in attributes.items() if value})
        ended = record.end_time or self._clock.now()
        if record.running_time is not None:
            self._span("session.running", record, record.running_time, ended)
        self._earlier.pop(record.id, None)
        span = self._spans.pop(record.traceparent, None) if record.traceparent else None
        if span is not None:
            span.set_attribute("session.state", record.state.value)
            if record.state is SessionState.FAILED:
                span.set_status(Status(StatusCode.ERROR, reason))
                span.set_attribute("error.type", reason)
            span.add_event("session.finished", timestamp=_nanoseconds(ended))
            span.end(_nanoseconds(ended))

    def _span(
        self, name: str, record: SessionRecord, begin: datetime, end: datetime, *, error: str = ""
    ) -> SpanContext | None:
        """Writes a span of an attempt, linked with the attempt before it."""
        if not self._tracing or not record.traceparent:
            return None
        earlier = self._earlier.get(record.id)
        span = self._tracer.start_span(
            name,
            context=context_from_traceparent(record.traceparent),
            start_time=_nanoseconds(begin),
            links=None if earlier is None else [Link(earlier)],
        )
        span.set_attribute("session.name", f"sessions/{record.id}")
        span.set_attribute("session.attempt", record.attempt)
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
            span.set_attribute("error.type", error)
        span.end(_nanoseconds(end))
        return span.get_span_context()


def _nanoseconds(time: datetime) -> int:
    """Gives an instant as nanoseconds since the epoch, which is how spans are stamped."""
    return int(time.timestamp() * 1_000_000) * 1000
