"""Makes traces: kinds of traffic, arriving by chance, as long as sessions of their kind are.

Arrivals are a Poisson process, whose rate follows the hour for the evening profile; durations are log-normal, whose
long tail a few sessions of a day have and most have not. What the mixes are made of and why is in docs/simulator.md.
A load of 1 offers, on average and at the peak of a profile, what one device of all devices' capacity could just carry.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from balancer.domain.decision import Refusal
from balancer.domain.demand import demand_on, nominal_cost
from balancer.domain.offers import RATES
from balancer.domain.session import Priority
from balancer.domain.workload import CostFactors, DecodeTask, EncodeTask, EncodingSpeed, VideoCodec, Workload
from balancer.simulation.fleet import Fleet, pooled
from balancer.simulation.trace import Trace, TraceSession

if TYPE_CHECKING:
    from random import Random

_SIZES = {
    2160: (3840, 2160),
    1440: (2560, 1440),
    1080: (1920, 1080),
    720: (1280, 720),
    480: (854, 480),
    360: (640, 360),
}
_H264, _HEVC, _AV1 = VideoCodec.H264, VideoCodec.HEVC, VideoCodec.AV1
_FAST, _BALANCED = EncodingSpeed.FAST, EncodingSpeed.BALANCED


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One sort of session in a mix."""

    share: float
    """How often, in comparison with the other shapes of its mix."""
    workload: Workload
    mean_s: float
    """Mean duration."""
    sigma: float = 1.0
    """Of the duration's logarithm."""
    priority: Priority = Priority.LIVE
    max_wait_s: float = 0.0
    preemptible: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """A kind of traffic."""

    shapes: tuple[Shape, ...]
    about: str
    profile: tuple[tuple[float, float], ...] = ()
    """The rate over the trace: shares of its length with shares of the peak. Empty: even."""


class NoSuchWork(Exception):
    """The devices cannot do anything of a kind of traffic, so that no load of it means anything."""


def _workload(
    source: tuple[int, int, VideoCodec] | None,
    *outputs: tuple[int, VideoCodec, EncodingSpeed],
    rate: int = 30,
    bit_depth: int = 8,
    real_time: bool = True,
) -> Workload:
    """Makes a workload: (height, bits per sample, format) in, heights out."""
    decode = None
    if source is not None:
        height, depth, codec = source
        width = _SIZES[height][0]
        decode = DecodeTask(
            codec=codec,
            width=width,
            height=height,
            bit_depth=depth,
            chroma="4:2:0",
            pixels_per_second=width * height * rate,
        )
    encodes = tuple(
        EncodeTask(
            codec=codec,
            width=_SIZES[height][0],
            height=height,
            bit_depth=bit_depth,
            speed=speed,
            pixels_per_second=_SIZES[height][0] * height * rate,
        )
        for height, codec, speed in outputs
    )
    scaled = sum(task.pixels_per_second for task in encodes if decode is not None and task.height != decode.height)
    return Workload(
        decode=decode,
        scale_pixels_per_second=scaled,
        encodes=encodes,
        real_time=real_time,
        allow_software_encode=False,
    )


def _ladder(
    *heights: int, codec: VideoCodec = _H264, speed: EncodingSpeed = _FAST
) -> list[tuple[int, VideoCodec, EncodingSpeed]]:
    return [(height, codec, speed) for height in heights]


_HOUR = 3600.0
_LADDERS = (
    Shape(share=25, mean_s=0.75 * _HOUR, workload=_workload((720, 8, _H264), *_ladder(720, 480, 360))),
    Shape(share=25, mean_s=0.75 * _HOUR, workload=_workload((1080, 8, _H264), *_ladder(1080, 720, 480, 360))),
    Shape(
        share=20,
        mean_s=0.75 * _HOUR,
        workload=_workload((1080, 8, _H264), *_ladder(1080, 720, 480, 360, speed=_BALANCED)),
    ),
    Shape(
        share=20,
        mean_s=1.5 * _HOUR,
        workload=_workload((1080, 8, _H264), *_ladder(1080, 720, 480, speed=_BALANCED), rate=60),
    ),
    Shape(
        share=10,
        mean_s=1.5 * _HOUR,
        workload=_workload((2160, 10, _HEVC), (2160, _HEVC, _FAST), *_ladder(1080, 720, 480, 360)),
    ),
)
_EVENING = ((0.0, 0.25), (0.15, 0.35), (0.35, 0.8), (0.5, 1.0), (0.65, 1.0), (0.8, 0.7), (1.0, 0.3))
"""From 16:00 to 02:00 for a trace of ten hours: people come home, the peak is from nine to half past ten."""

_KINDS: Mapping[str, Traffic] = {
    "mixed": Traffic(about="live ladders of H.264 from 720p and 1080p, some with a rung of 4K", shapes=_LADDERS),
    "4k": Traffic(
        about="4K inputs into ladders, most with a rung of 4K",
        shapes=(
            Shape(
                share=50,
                mean_s=1.5 * _HOUR,
                workload=_workload((2160, 10, _HEVC), (2160, _HEVC, _FAST), *_ladder(1080, 720, 480)),
            ),
            Shape(
                share=30, mean_s=_HOUR, workload=_workload((2160, 8, _H264), *_ladder(1080, 720, 480, speed=_BALANCED))
            ),
            Shape(
                share=20,
                mean_s=1.5 * _HOUR,
                workload=_workload((2160, 10, _HEVC), (2160, _HEVC, _FAST), *_ladder(1080, 720), rate=60),
            ),
        ),
    ),
    "hevc": Traffic(
        about="HEVC outputs of good quality",
        shapes=(
            Shape(
                share=40,
                mean_s=_HOUR,
                workload=_workload((1080, 8, _H264), *_ladder(1080, 720, 480, codec=_HEVC, speed=_BALANCED)),
            ),
            Shape(share=30, mean_s=_HOUR, workload=_workload((1080, 8, _H264), *_ladder(1080, 720, codec=_HEVC))),
            Shape(
                share=15,
                mean_s=1.5 * _HOUR,
                workload=_workload((1080, 8, _H264), *_ladder(1080, 720, codec=_HEVC, speed=_BALANCED), rate=60),
            ),
            Shape(
                share=15,
                mean_s=1.5 * _HOUR,
                workload=_workload((2160, 10, _HEVC), (2160, _HEVC, _BALANCED), (1080, _HEVC, _BALANCED), bit_depth=10),
            ),
        ),
    ),
    "capture": Traffic(
        about="screens and cameras that only are encoded",
        shapes=(
            Shape(share=35, mean_s=0.75 * _HOUR, workload=_workload(None, (1080, _H264, _FAST))),
            Shape(share=25, mean_s=0.75 * _HOUR, workload=_workload(None, (1080, _H264, _BALANCED))),
            Shape(share=25, mean_s=1.5 * _HOUR, workload=_workload(None, (1080, _H264, _BALANCED), rate=60)),
            Shape(share=15, mean_s=1.5 * _HOUR, workload=_workload(None, (2160, _HEVC, _FAST), rate=60)),
        ),
    ),
    "evening": Traffic(
        about="a Friday night of live ladders: a rise from the afternoon, a peak, a fall",
        shapes=_LADDERS,
        profile=_EVENING,
    ),
    "files": Traffic(
        about="files that are converted as fast as devices let them, and wait where there is no room",
        shapes=(
            Shape(
                share=70,
                mean_s=0.2 * _HOUR,
                priority=Priority.BATCH,
                max_wait_s=6 * _HOUR,
                preemptible=True,
                workload=_workload((1080, 8, _H264), *_ladder(1080, 720, 480), real_time=False),
            ),
            Shape(
                share=30,
                mean_s=0.4 * _HOUR,
                priority=Priority.BATCH,
                max_wait_s=6 * _HOUR,
                preemptible=True,
                workload=_workload((2160, 10, _HEVC), *_ladder(1080, 720), real_time=False),
            ),
        ),
    ),
}


def _blended(kinds: Sequence[str]) -> tuple[Shape, ...]:
    """Puts kinds together so that each brings as much work, in cost times seconds."""
    shapes: list[Shape] = []
    for kind in kinds:
        members = _KINDS[kind].shapes
        work = sum(shape.share * shape.mean_s * nominal_cost(shape.workload, CostFactors()) for shape in members)
        shapes += (replace(shape, share=1e15 * shape.share / work) for shape in members)
    return tuple(shapes)


_BLENDED = ("mixed", "4k", "hevc", "capture")
KINDS: Mapping[str, Traffic] = {
    **_KINDS,
    "blend": Traffic(about=f"{', '.join(_BLENDED)} together, as much work of each", shapes=_blended(_BLENDED)),
}


def generate(kind: str, fleet: Fleet, chance: Random, *, load: float, duration_s: float) -> Trace:
    """Makes a trace.

    Args:
        kind: One of `KINDS`.
        fleet: The devices that the load is measured by.
        chance: Seeded; the same seed gives the same trace.
        load: What is offered on average, 1 = all that one device of all devices' capacity carries.
        duration_s: Length of the trace.

    Raises:
        NoSuchWork: No device can do any of it.
    """
    traffic = KINDS[kind]
    rate = load / mean_demand(traffic, fleet)
    shares = [shape.share for shape in traffic.shapes]
    sessions = tuple(
        TraceSession(
            arrival_s=arrival_s,
            duration_s=_log_normal(shape, chance),
            workload=shape.workload,
            priority=shape.priority,
            preemptible=shape.preemptible,
            max_wait_s=shape.max_wait_s,
        )
        for arrival_s in _arrivals(rate, duration_s, traffic.profile, chance)
        for shape in chance.choices(traffic.shapes, shares)
    )
    return Trace(sessions=sessions, end_s=duration_s, title=f"{kind}: {traffic.about}")


def mean_demand(traffic: Traffic, fleet: Fleet) -> float:
    """Tells how long one session of a kind keeps all devices together wholly busy, on average, in seconds.

    Raises:
        NoSuchWork: No device can do any of it.
    """
    sums: dict[object, float] = {}
    total = sum(shape.share for shape in traffic.shapes)
    for view in pooled(fleet).views[:1]:
        for shape in traffic.shapes:
            demand = demand_on(shape.workload, view, CostFactors())
            if isinstance(demand, Refusal):
                continue
            for dimension, amount in demand.device_amounts.items():
                limit = view.capacity.limits.get(dimension)
                if dimension in RATES and limit:
                    part = shape.share / total * shape.mean_s * amount / limit
                    sums[dimension] = sums.get(dimension, 0.0) + part
    busiest = max(sums.values(), default=0.0)
    if not busiest:
        raise NoSuchWork("Cannot generate traffic: no device can do any of it. Try another kind.")
    return busiest


def _arrivals(
    rate: float, duration_s: float, profile: tuple[tuple[float, float], ...], chance: Random
) -> Iterator[float]:
    """Gives the instants of a Poisson process; where the rate is below its peak, some are passed over."""
    at: Callable[[float], float] = (lambda _: 1.0) if not profile else (lambda share: _interpolated(profile, share))
    time_s = chance.expovariate(rate) if rate > 0 else math.inf
    while time_s < duration_s:
        if not profile or chance.random() < at(time_s / duration_s):
            yield time_s
        time_s += chance.expovariate(rate)


def _interpolated(profile: tuple[tuple[float, float], ...], share: float) -> float:
    for (left, low), (right, high) in pairwise(profile):
        if share <= right:
            return low + (high - low) * (share - left) / (right - left)
    return profile[-1][1]


def _log_normal(shape: Shape, chance: Random) -> float:
    """Draws a duration. The logarithm's mean is such that durations have the mean that was asked."""
    return max(1.0, chance.lognormvariate(math.log(shape.mean_s) - shape.sigma**2 / 2, shape.sigma))
