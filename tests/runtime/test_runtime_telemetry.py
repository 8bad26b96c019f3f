"""Metrics come out as Prometheus text, traces go to a collector when there is one, and off costs nothing."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from gpu_balancer.runtime.settings_sections import TelemetrySettings
from gpu_balancer.runtime.telemetry import (
    TelemetryFault,
    build_telemetry,
    context_from_traceparent,
    trace_id_of,
    traceparent_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """A collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        self.metrics: set[str] = set()

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for resource in request.resource_spans:
                self._note_service(resource)
                self.spans += [span for scope in resource.scope_spans for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        for resource in request.resource_metrics:
            self._note_service(resource)
            self.metrics |= {metric.name for scope in resource.scope_metrics for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()

    def _note_service(self, resource: Any) -> None:
        self.services |= {it.value.string_value for it in resource.resource.attributes if it.key == "service.name"}


@pytest.fixture
def collector() -> Iterator[tuple[_Collector, str]]:
    """A collector and its endpoint."""
    found = _Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(found, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_metrics_come_out_as_prometheus_text_with_one_target() -> None:
    telemetry = build_telemetry(TelemetrySettings(), component="balancer", instance="host-1", prometheus=True)
    telemetry.meter.create_counter("gpu_balancer.sessions.created", unit="{session}").add(2, {"kind": "transcode"})
    text = telemetry.prometheus_text().decode()
    assert 'gpu_balancer_sessions_created_total{kind="transcode"} 2.0' in text.splitlines()
    (target,) = [line for line in text.splitlines() if line.startswith("target_info{")]
    assert 'service_name="gpu-balancer"' in target
    assert 'service_instance_id="host-1"' in target
    assert "python_info" not in text
    telemetry.shutdown()


def test_two_telemetries_share_nothing() -> None:
    first, second = (
        build_telemetry(TelemetrySettings(), component="balancer", instance=name, prometheus=True) for name in "ab"
    )
    first.meter.create_counter("only.first").add(1)
    second.meter.create_counter("only.second").add(1)
    assert b"only_first" not in second.prometheus_text()
    assert b"only_second" not in first.prometheus_text()
    first.shutdown()
    second.shutdown()


def test_without_a_collector_spans_are_no_ops_and_leave_no_trace() -> None:
    telemetry = build_telemetry(TelemetrySettings(), component="balancer", instance="x", prometheus=True)
    with telemetry.tracer.start_as_current_span("admit") as span:
        assert not span.is_recording()
        assert (traceparent_of(), trace_id_of()) == ("", "")
    assert not telemetry.tracing
    telemetry.shutdown()


def test_with_a_collector_a_trace_goes_on_in_another_process(collector: tuple[_Collector, str]) -> None:
    found, endpoint = collector
    settings = TelemetrySettings(otlp_endpoint=endpoint)
    balancer = build_telemetry(settings, component="balancer", instance="x", prometheus=False)
    agent = build_telemetry(settings, component="agent", instance="cpu-0", prometheus=False)
    with balancer.tracer.start_as_current_span("admit"):
        sent = traceparent_of()
        trace_id = trace_id_of()
    with agent.tracer.start_as_current_span("launch", context=context_from_traceparent(sent)):
        agent.meter.create_counter("agent.launches").add(1)
    balancer.shutdown()
    agent.shutdown()
    assert {span.name: span.trace_id.hex() for span in found.spans} == {"admit": trace_id, "launch": trace_id}
    assert found.services == {"gpu-balancer", "gpu-balancer-agent"}
    assert "agent.launches" in found.metrics


def test_a_ratio_of_0_traces_no_session(collector: tuple[_Collector, str]) -> None:
    found, endpoint = collector
    settings = TelemetrySettings(otlp_endpoint=endpoint, trace_ratio=0.0)
    telemetry = build_telemetry(settings, component="balancer", instance="x", prometheus=False)
    with telemetry.tracer.start_as_current_span("admit") as span:
        assert not span.is_recording()
    telemetry.shutdown()
    assert found.spans == []


@pytest.mark.parametrize("text", ["", "junk", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_a_malformed_traceparent_begins_a_new_trace(text: str) -> None:
    assert trace_id_of(context_from_traceparent(text)) == ""


def test_shutting_down_twice_does_no_harm() -> None:
    telemetry = build_telemetry(TelemetrySettings(), component="balancer", instance="x", prometheus=True)
    telemetry.shutdown()
    telemetry.shutdown()


def test_a_missing_exporter_is_told_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    settings = TelemetrySettings(otlp_endpoint="http://127.0.0.1:4317")
    with pytest.raises(TelemetryFault, match=r"gpu-balancer\[otlp\]"):
        build_telemetry(settings, component="balancer", instance="x", prometheus=False)


def test_an_agent_without_a_collector_loads_no_sdk() -> None:
    program = (
        "import sys\n"
        "from gpu_balancer.runtime.settings_sections import TelemetrySettings\n"
        "from gpu_balancer.runtime.telemetry import build_telemetry\n"
        "made = build_telemetry(TelemetrySettings(), component='agent', instance='x', prometheus=False)\n"
        "made.meter.create_counter('c').add(1)\n"
        "heavy = ('opentelemetry.sdk', 'opentelemetry.exporter', 'prometheus_client')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
