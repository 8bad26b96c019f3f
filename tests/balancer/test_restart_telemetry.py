"""What is measured and traced of sessions that begin again."""

from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from balancer.domain.ids import DeviceId
from balancer.domain.session import Failure, LastRestart, SessionRecord, SessionState
from balancer.session_telemetry import SessionTelemetry
from fakes.session_records import session_record
from fakes.virtual_time import START_TIME

KILLED = Failure(reason="KILLED", message="It was killed.")


class StandingClock:
    def now(self) -> datetime:
        return START_TIME

    def monotonic_s(self) -> float:
        return 0.0


class Watched:
    """Telemetry that a test can read."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        traces = TracerProvider()
        traces.add_span_processor(SimpleSpanProcessor(self._spans))
        meters = MeterProvider(metric_readers=[self._metrics])
        telemetry: Any = SimpleNamespace(tracer=traces.get_tracer("test"), tracing=True, meter=meters.get_meter("test"))
        self.observer = SessionTelemetry(telemetry, clock=StandingClock())

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._spans.get_finished_spans() if span.name == name]

    def points(self, name: str) -> list[Any]:
        data = self._metrics.get_metrics_data()
        assert data is not None
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


def at(seconds: float) -> datetime:
    return START_TIME + timedelta(seconds=seconds)


def course(watched: Watched) -> SessionRecord:
    """Has a session run, fail, run elsewhere and succeed."""
    first = session_record(create_time=START_TIME, traceparent=watched.observer.begin())
    running = replace(first, state=SessionState.RUNNING, running_time=at(2))
    last = LastRestart(attempt=1, device_id=DeviceId("cpu-0"), failure=KILLED, restart_time=at(10))
    resting = replace(running, state=SessionState.QUEUED, device_id=None, running_time=None, last_restart=last)
    placed = replace(resting, state=SessionState.STARTING, device_id=DeviceId("cpu-1"), attempt=2)
    again = replace(placed, state=SessionState.RUNNING, running_time=at(14))
    ended = replace(again, state=SessionState.SUCCEEDED, end_time=at(20))
    told = [first, running, resting, placed, again, ended]
    for before, after in itertools.pairwise(told):
        watched.observer.on_changed(before, after)
    return ended


@pytest.fixture
def watched() -> Watched:
    made = Watched()
    course(made)
    return made


def test_restarts_are_counted_by_the_device_that_was_left_and_the_reason(watched: Watched) -> None:
    (point,) = watched.points("gpu_balancer.session.restarted")
    assert (point.value, dict(point.attributes)) == (1, {"device.id": "cpu-0", "error.type": "KILLED"})


def test_the_wait_for_a_further_first_frame_is_no_start(watched: Watched) -> None:
    (start,) = watched.points("gpu_balancer.session.start.duration")
    assert (start.count, start.sum, dict(start.attributes)) == (1, 2.0, {"device.id": "cpu-0"})
    (again,) = watched.points("gpu_balancer.session.restart.duration")
    assert (again.count, again.sum, dict(again.attributes)) == (1, 4.0, {"device.id": "cpu-1"})


def test_each_attempt_has_spans_that_are_linked_with_the_attempt_before(watched: Watched) -> None:
    first, second = watched.spans("session.running")
    assert [span.attributes and span.attributes["session.attempt"] for span in (first, second)] == [1, 2]
    assert first.attributes is not None
    assert first.attributes["error.type"] == "KILLED"
    assert not first.links
    assert [link.context for link in second.links] == [first.context]
    _, further = watched.spans("session.first_frame")
    assert [link.context for link in further.links] == [first.context]
    assert further.start_time == int(at(10).timestamp()) * 10**9
    (whole,) = watched.spans("session")
    assert [(event.name, dict(event.attributes or {})) for event in whole.events][:1] == [
        ("session.restarted", {"session.attempt": 1, "device.id": "cpu-0", "error.type": "KILLED"})
    ]
    assert {span.context and span.context.trace_id for span in (first, second, further)} == {
        whole.context and whole.context.trace_id
    }
