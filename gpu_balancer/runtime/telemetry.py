"""Traces and metrics by OpenTelemetry, without its global state, and without its weight where nobody looks.

Without a collector there are no traces: the tracer is OpenTelemetry's own no-op, and the SDK for traces is not loaded.
Metrics are kept for Prometheus where a daemon has an HTTP port, and sent when there is a collector; an agent that has
neither loads no SDK at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from opentelemetry import metrics, trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gpu_balancer import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Tracer
    from prometheus_client import CollectorRegistry

    from gpu_balancer.runtime.settings_sections import TelemetrySettings

PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Of `Telemetry.prometheus_text`."""

_SCOPE = "gpu_balancer"
_TRACEPARENT = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_EXPORT_S = 3
"""Seconds to send a batch, tries again included: so long a daemon may hang at its end when the collector is gone."""


class TelemetryFault(Exception):
    """Telemetry that was asked for cannot be had; the message says what to install."""


class Telemetry:
    """A process's tracer and meter."""

    def __init__(
        self,
        *,
        tracer: Tracer,
        meter: Meter,
        registry: CollectorRegistry | None,
        closers: tuple[Callable[[], None], ...],
        tracing: bool,
    ) -> None:
        """Holds what `build_telemetry` made."""
        self.tracer = tracer
        self.meter = meter
        self.tracing = tracing
        """Whether traces go anywhere."""
        self._registry = registry
        self._closers = closers

    def prometheus_text(self) -> bytes:
        """Collects every metric and writes it as Prometheus wants it; empty when built without Prometheus.

        Asks observable instruments, so it is to be called where they may be read: on the event loop.
        """
        if self._registry is None:
            return b""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def shutdown(self) -> None:
        """Sends what is left, for some seconds at most, and ends. Blocks: call it from a thread."""
        closers, self._closers = self._closers, ()
        for close in closers:
            close()


def build_telemetry(
    settings: TelemetrySettings,
    *,
    component: Literal["balancer", "agent"],
    instance: str,
    prometheus: bool,
) -> Telemetry:
    """Builds a process's telemetry.

    Args:
        settings: Collector, service name, intervals.
        component: The balancer carries the service name as it is, an agent with "-agent" behind.
        instance: Tells processes of one service apart, as service.instance.id: the device of an agent.
        prometheus: Keeps metrics for `prometheus_text`.

    Raises:
        TelemetryFault: When a collector is set but the package that speaks to it is not installed.
    """
    if settings.otlp_endpoint is None and not prometheus:
        return Telemetry(
            tracer=trace.NoOpTracer(), meter=metrics.NoOpMeter(_SCOPE), registry=None, closers=(), tracing=False
        )
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create(
        {
            "service.name": settings.service_name + ("-agent" if component == "agent" else ""),
            "service.version": __version__,
            "service.instance.id": instance,
        }
    )
    tracer, close_tracer = _tracer(settings, resource)
    meter, registry, close_meter = _meter(settings, resource, prometheus=prometheus)
    return Telemetry(
        tracer=tracer,
        meter=meter,
        registry=registry,
        closers=(close_tracer, close_meter),
        tracing=settings.otlp_endpoint is not None,
    )


def traceparent_of(context: Context | None = None) -> str:
    """Writes the trace that a context belongs to as a W3C traceparent, for a message to another process.

    Args:
        context: The context. None: the current one.

    Returns:
        "00-…", or "" when there is no trace.
    """
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, context=context)
    return carrier.get(_TRACEPARENT, "")


def context_from_traceparent(traceparent: str) -> Context:
    """Reads the context in which another process works, to start spans under its trace.

    Returns:
        The context; an empty one, which begins a new trace, when the text is empty or malformed.
    """
    from opentelemetry.context import Context

    return _PROPAGATOR.extract({_TRACEPARENT: traceparent}, context=Context())


def trace_id_of(context: Context | None = None) -> str:
    """Gives the trace id of a context as 32 hexadecimal digits; "" when there is no trace."""
    found = trace.get_current_span(context).get_span_context()
    return f"{found.trace_id:032x}" if found.is_valid else ""


def _nothing_to_close() -> None:
    pass


def _tracer(settings: TelemetrySettings, resource: Resource) -> tuple[Tracer, Callable[[], None]]:
    if settings.otlp_endpoint is None:
        return trace.NoOpTracer(), _nothing_to_close
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise _missing(settings.otlp_endpoint) from error
    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(settings.trace_ratio)), resource=resource, shutdown_on_exit=False
    )
    endpoint = settings.otlp_endpoint
    exporter = OTLPSpanExporter(endpoint=endpoint, insecure=_insecure(endpoint), timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return provider.get_tracer(_SCOPE, __version__), provider.shutdown


def _meter(
    settings: TelemetrySettings, resource: Resource, *, prometheus: bool
) -> tuple[Meter, CollectorRegistry | None, Callable[[], None]]:
    from opentelemetry.sdk.metrics import MeterProvider

    readers: list[MetricReader] = []
    registry = None
    if prometheus:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader
        from prometheus_client import CollectorRegistry

        # Its own registry: the library's global one holds the process's figures a second time, under other names.
        registry = CollectorRegistry()
        # We have one scope: its labels on every series would tell nothing.
        readers.append(PrometheusMetricReader(registry=registry, scope_info_enabled=False))
    if settings.otlp_endpoint is not None:
        readers.append(_otlp_reader(settings, settings.otlp_endpoint))
    provider = MeterProvider(metric_readers=readers, resource=resource, shutdown_on_exit=False)

    def close() -> None:
        provider.shutdown(timeout_millis=_EXPORT_S * 1000)

    return provider.get_meter(_SCOPE, __version__), registry, close


def _otlp_reader(settings: TelemetrySettings, endpoint: str) -> MetricReader:
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

    try:
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    except ImportError as error:
        raise _missing(endpoint) from error
    return PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, insecure=_insecure(endpoint), timeout=_EXPORT_S),
        export_interval_millis=settings.metrics_interval_s * 1000,
    )


def _insecure(endpoint: str) -> bool:
    return endpoint.startswith("http://")


def _missing(endpoint: str) -> TelemetryFault:
    return TelemetryFault(
        f"Cannot send traces to {endpoint}: the OTLP exporter is not installed. Try pip install 'gpu-balancer[otlp]'."
    )
