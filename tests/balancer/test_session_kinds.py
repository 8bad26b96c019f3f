"""Metrics tell recordings from transcodes."""

from __future__ import annotations

from collections import Counter
from functools import partial
from types import SimpleNamespace
from typing import Any

from balancer.device_metrics import DeviceMetrics
from balancer.domain.decision import Decision
from balancer.domain.session import SessionState
from balancer.domain.workload import CaptureTask, Workload
from balancer.session_telemetry import SessionTelemetry
from fakes.session_records import LADDER, session_record
from fakes.virtual_time import START_TIME, VirtualClock

RECORDING = Workload(
    decode=None,
    scale_pixels_per_second=0,
    encodes=(),
    real_time=True,
    allow_software_encode=False,
    capture=CaptureTask(width=64, height=64, pixels_per_second=122_880, browser=True, sound=False),
)


class NotingMeter:
    """Notes what is counted, and what would be read."""

    def __init__(self) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()
        self.read: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        def make(instrument: str, *, callbacks: Any = (), **_: Any) -> Any:
            if callbacks:
                self.read[instrument] = partial(callbacks[0], None)
            return SimpleNamespace(
                add=lambda amount, attributes: self._note(instrument, amount, attributes), record=lambda *_: None
            )

        return make

    def _note(self, instrument: str, amount: int, attributes: dict[str, str]) -> None:
        self.counted[instrument.removeprefix("gpu_balancer."), attributes.get("session.kind", "")] += amount


def decision_on(workload: Workload) -> Decision:
    return Decision(
        device_id=None,
        policy="p",
        workload=workload,
        cost_pixels_per_second=0,
        verdicts=(),
        settings_version=1,
        reservation=None,
    )


def test_sessions_are_counted_by_their_kind() -> None:
    meter = NotingMeter()
    telemetry: Any = SimpleNamespace(tracer=None, tracing=False, meter=meter)
    observer = SessionTelemetry(telemetry, clock=VirtualClock())
    for workload in (LADDER, RECORDING):
        record, decision = session_record(workload=workload), decision_on(workload)
        observer.on_admitted(record, decision, 0.1)
        observer.on_queued(record, decision)
        observer.on_refused(decision)
        ended = session_record(workload=workload, state=SessionState.SUCCEEDED, end_time=START_TIME)
        observer.on_changed(record, ended)
    for name in ("queued", "refused", "ended"):
        for kind in ("transcode", "recording"):
            assert meter.counted[f"session.{name}", kind] == 1
    created = {one.attributes["session.kind"]: one.value for one in meter.read["gpu_balancer.session.created"]()}
    assert created == {"transcode": 1, "recording": 1}


def test_sessions_that_live_are_told_by_kind_and_state() -> None:
    meter: Any = NotingMeter()
    engine: Any = SimpleNamespace(
        live=lambda: [session_record(1), session_record(2, workload=RECORDING), session_record(3, workload=RECORDING)]
    )
    registry: Any = None
    DeviceMetrics(meter, registry=registry, engine=engine)
    counts = {
        (one.attributes["session.kind"], one.attributes["session.state"]): one.value
        for one in meter.read["gpu_balancer.session.count"]()
    }
    assert counts["transcode", "starting"] == 1
    assert counts["recording", "starting"] == 2
    assert counts["recording", "running"] == 0
    assert len(counts) == 8
