"""Recordings to place, and devices whose agents record."""

from __future__ import annotations

from dataclasses import replace

from domain.devices import encode, workload

from balancer.domain.capacity import with_displays
from balancer.domain.device import DeviceView, RecordingAbility
from balancer.domain.workload import CaptureTask, EncodingSpeed, Workload

ABILITY = RecordingAbility(
    available=True,
    display_count=4,
    browser="Chromium 156",
    applications=frozenset({"clock"}),
    largest_width=3840,
    largest_height=2160,
)


def capture(width: int = 1280, height: int = 720, frames_per_second: int = 30, **changes: object) -> CaptureTask:
    """Describes a display with a page on it."""
    task = CaptureTask(
        width=width,
        height=height,
        pixels_per_second=width * height * frames_per_second,
        browser=True,
        sound=True,
    )
    return replace(task, **changes)  # type: ignore[arg-type]


def recording(height: int = 720, *, display: CaptureTask | None = None, **changes: object) -> Workload:
    """Makes a recording with one rendition of its display's size, as fast as may be."""
    task = encode(height, speed=EncodingSpeed.FASTEST)
    made = workload(task)
    return replace(made, capture=display or capture(task.width, task.height), **changes)  # type: ignore[arg-type]


def recorder(view: DeviceView, ability: RecordingAbility | None = ABILITY) -> DeviceView:
    """Gives a device an agent that records."""
    return replace(view, recording=ability, capacity=with_displays(view.capacity, ability))
