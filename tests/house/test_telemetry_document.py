"""docs/telemetry.md lists exactly what is sent: every metric with kind and unit, every span with who makes it."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from house_sources import nodes_of, python_files, text_of

from balancer.device_metrics import DeviceMetrics
from balancer.session_telemetry import SessionTelemetry
from fakes.virtual_time import VirtualClock

DOCUMENT = Path("docs/telemetry.md")
MAKERS = {
    "create_counter": "counter",
    "create_up_down_counter": "up-down counter",
    "create_histogram": "histogram",
    "create_gauge": "gauge",
    "create_observable_gauge": "gauge",
    "create_observable_counter": "counter",
    "create_observable_up_down_counter": "up-down counter",
}
MEASURING_MODULES = {"balancer/device_metrics.py", "balancer/session_telemetry.py"}
OTEL_SPAN_MAKERS = {"start_span", "start_as_current_span"}
SPAN_MAKERS = OTEL_SPAN_MAKERS | {"_span"}


class NotingMeter:
    """Notes what is made instead of measuring."""

    def __init__(self) -> None:
        self.made: set[tuple[str, str, str]] = set()

    def __getattr__(self, name: str) -> Any:
        kind = MAKERS[name]

        def make(instrument: str, *, unit: str, **_: Any) -> None:
            self.made.add((instrument, kind, unit))

        return make


def rows(heading: str) -> list[list[str]]:
    """Gives the rows of the table below a heading, without backquotes."""
    section = re.search(rf"^## {heading}$(.*?)(?=^## |\Z)", text_of(DOCUMENT), re.MULTILINE | re.DOTALL)
    assert section, heading
    lines = [line for line in section[1].splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]


def test_the_metrics_are_those_that_are_made() -> None:
    meter: Any = NotingMeter()
    unused: Any = None
    telemetry: Any = SimpleNamespace(tracer=None, tracing=False, meter=meter)
    SessionTelemetry(telemetry, clock=VirtualClock())
    DeviceMetrics(meter, registry=unused, engine=unused)
    assert {(name, kind, unit) for name, kind, unit, *_ in rows("Metrics")} == meter.made


def test_metrics_are_made_in_the_two_modules_that_the_test_above_asks() -> None:
    found = {
        str(path)
        for path in python_files("gpu_balancer", "balancer", "agents")
        for node in nodes_of(path)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS
    }
    assert found == MEASURING_MODULES


def test_the_spans_are_those_that_are_made() -> None:
    made = {
        (node.args[0].value, str(path).split("/")[0].removesuffix("s"))
        for path in python_files("gpu_balancer", "balancer", "agents")
        for node in nodes_of(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in SPAN_MAKERS
        and node.args
        and isinstance(node.args[0], ast.Constant)
    }
    assert {(name, maker) for name, maker, *_ in rows("Traces")} == made


def test_no_span_has_a_name_that_is_made_up_at_run_time() -> None:
    """Names with values in them make as many series as there are values. The two `_span` take theirs from above."""
    forwarded = {"balancer/session_telemetry.py", "agents/sessions/session_trace.py"}
    for path in python_files("gpu_balancer", "balancer", "agents"):
        for node in nodes_of(path):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in OTEL_SPAN_MAKERS
            ):
                constant = bool(node.args) and isinstance(node.args[0], ast.Constant)
                assert constant or str(path) in forwarded, f"{path}:{node.lineno}"
