"""A session seen from outside: one trace over balancer and agent, its id in the answer and on the log lines."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from daemons import daemon_running
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """An OTLP collector that remembers."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, str]] = []
        """Service, name, trace id."""
        self.metrics: set[str] = set()
        self.arrived = threading.Condition()

    def Export(self, request, context):  # noqa: N802
        """Takes spans, or metrics."""
        with self.arrived:
            if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
                for resource in request.resource_spans:
                    service = next(
                        item.value.string_value for item in resource.resource.attributes if item.key == "service.name"
                    )
                    for scope in resource.scope_spans:
                        self.spans += [(service, span.name, span.trace_id.hex()) for span in scope.spans]
                answer = trace_service_pb2.ExportTraceServiceResponse()
            else:
                for resource in request.resource_metrics:
                    for scope in resource.scope_metrics:
                        self.metrics |= {metric.name for metric in scope.metrics}
                answer = metrics_service_pb2.ExportMetricsServiceResponse()
            self.arrived.notify_all()
        return answer

    def await_metrics(self, names: set[str], timeout_s: float = 30) -> set[str]:
        """Waits until these metrics have been told, and gives all that have."""
        with self.arrived:
            self.arrived.wait_for(lambda: names <= self.metrics, timeout_s)
            return set(self.metrics)

    def await_spans(self, trace_id: str, names: set[tuple[str, str]], timeout_s: float = 30) -> set[tuple[str, str]]:
        """Waits until a trace has these spans, and gives all that it has."""
        deadline = time.monotonic() + timeout_s
        with self.arrived:
            while True:
                found = {(service, name) for service, name, trace in self.spans if trace == trace_id}
                left_s = deadline - time.monotonic()
                if names <= found or left_s <= 0:
                    return found
                self.arrived.wait(left_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a transcode left behind."""

    session: dict[str, Any]
    lines: list[str]
    """Of the logs of balancer and agent."""
    collector: Collector


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory, media: Path, probe_results: Path) -> Iterator[Outcome]:
    """One transcode by a daemon that tells all it does: to a collector, and in its logs. The daemon has ended."""
    remembering, folder = Collector(), tmp_path_factory.mktemp("told")
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(remembering, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(remembering, server)
    endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    settings = f'[inputs]\nroots = ["{media}"]\n[telemetry]\notlp_endpoint = "{endpoint}"\nmetrics_interval_s = 0.5\n'
    settings += '[log]\nformat = "json"\nlevel = "debug"\n'
    with daemon_running(folder, settings, probe_results=probe_results) as daemon:
        daemon.await_devices_ready(1)
        done = daemon.cli("transcode", media / "clip.mp4", "-o", folder / "out.mp4", "--rendition", "160x90")
        assert done.returncode == 0, done.stderr
        listed = daemon.json("sessions")["sessions"]
        session = daemon.json("session", listed[0]["name"])
        assert daemon.cli("shutdown", "--stop-sessions").returncode == 0
        logs = [daemon.log_path, *daemon.state_dir.glob("agents/*/agent.log")]
        lines = [line for path in logs for line in path.read_text().splitlines()]
        yield Outcome(session=session, lines=lines, collector=remembering)
    server.stop(0)


SPANS_OF_THE_BALANCER = ("session", "session.admit", "session.place", "session.first_frame", "session.running")


@pytest.mark.process
def test_a_session_is_one_trace_over_balancer_and_agent(outcome: Outcome) -> None:
    expected = {("gpu-balancer", name) for name in SPANS_OF_THE_BALANCER}
    expected |= {("gpu-balancer-agent", name) for name in ("session.launch", "session.run")}
    assert outcome.collector.await_spans(outcome.session["traceId"], expected) >= expected
    assert len({trace for _, _, trace in outcome.collector.spans}) == 1
    metrics = {"gpu_balancer.session.created", "gpu_balancer.device.weighted_load"}
    assert outcome.collector.await_metrics(metrics) >= metrics


@pytest.mark.process
def test_every_log_line_of_a_session_names_it_and_its_attempt(outcome: Outcome) -> None:
    name = outcome.session["name"]
    lines = [line for line in outcome.lines if line.startswith("{")]
    about = [json.loads(line) for line in lines if name.removeprefix("sessions/") in line]
    assert about
    for line in about:
        assert line.get("session") == name, line
        assert line.get("attempt") == 1, line
