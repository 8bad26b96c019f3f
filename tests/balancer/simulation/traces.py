"""Small traces and fleets that simulations are tested with."""

from __future__ import annotations

from functools import cache
from typing import Any

from balancer.domain.session import Priority
from balancer.domain.workload import DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from balancer.simulation.fleet import Fleet, fleet_of_models
from balancer.simulation.trace import Trace, TraceSession, ordered

T4 = "Tesla T4"
L4 = "NVIDIA L4"


@cache
def engine_share(percent: int, model: str = T4, *, real_time: bool = True) -> Workload:
    """Makes a workload that takes a share of one encoder of a model: 100 % is all of a T4's."""
    view = fleet_of_models([model]).views[0]
    rate = view.capacity.encode_rates[VideoCodec.H264, EncodingSpeed.FAST.value]
    task = EncodeTask(
        codec=VideoCodec.H264,
        width=1920,
        height=1080,
        bit_depth=8,
        speed=EncodingSpeed.FAST,
        pixels_per_second=rate * percent // 100,
    )
    return Workload(
        decode=None, scale_pixels_per_second=0, encodes=(task,), real_time=real_time, allow_software_encode=False
    )


def asked(arrival_s: float, percent: int, duration_s: float | None = 100.0, **changes: Any) -> TraceSession:
    """Makes a session of a trace."""
    batch = changes.get("priority") is Priority.BATCH
    return TraceSession(
        arrival_s=arrival_s, duration_s=duration_s, workload=engine_share(percent, real_time=not batch), **changes
    )


def trace_of(*sessions: TraceSession, end_s: float = 1000.0) -> Trace:
    """Makes a trace."""
    return Trace(sessions=ordered(sessions), end_s=end_s)


def fleet(*models: str) -> Fleet:
    """Makes a fleet without a limit of memory."""
    return fleet_of_models(models or (T4, T4))


def full_ladder() -> Workload:
    """Makes a workload with every field that a trace has."""
    return Workload(
        decode=DecodeTask(
            codec=VideoCodec.HEVC,
            width=3840,
            height=2160,
            bit_depth=10,
            chroma="4:2:0",
            pixels_per_second=248_832_000,
            rotated=True,
        ),
        scale_pixels_per_second=62_208_000,
        encodes=(
            EncodeTask(
                codec=VideoCodec.AV1,
                width=1920,
                height=1080,
                bit_depth=10,
                speed=EncodingSpeed.THOROUGH,
                pixels_per_second=62_208_000,
            ),
        ),
        real_time=True,
        allow_software_encode=True,
    )
