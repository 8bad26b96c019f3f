"""What a recording takes of a device and its host beside encoding: a display, and the browser that draws on it.

All of it is work of the host's cores, whatever device encodes, and an estimate: what a page takes is known only once it
runs. So it is booked apart from encoding, and `measured_use` puts what was measured in its place. docs/placement.md has
the figures and where they are from.
"""

from __future__ import annotations

from dataclasses import replace

from balancer.domain.core_rates import CORE
from balancer.domain.decision import Demand, Refusal
from balancer.domain.device import DeviceKind, DeviceView, Dimension
from balancer.domain.workload import CaptureTask, CostFactors, EncodingSpeed, VideoCodec, Workload

BROWSER_CORES = 530_000
"""Of a browser that draws an animation of any size, in software."""
BROWSER_RATE = 132_000_000
"""Pixels per second of one core that it draws, on top of that."""
BROWSER_FRAMES_PER_SECOND = 30
"""A browser draws at the pace of its display, not of whoever looks: a recording of fewer pictures spares it nothing."""
CAPTURE_RATE = 1_240_000_000
"""Pixels per second of one core that X server and ffmpeg need to hand them over."""
CONVERSION_RATE = 188_000_000
"""Pixels per second of one core from RGB to what software encoders take."""
SOUND_CORES = 30_000
"""Sound server and encoder."""

BROWSER_MIB = 480
BROWSER_PIXEL_BYTES = 32
DISPLAY_MIB = 100
"""X server with a screen of the largest size, window manager, sound server."""
FFMPEG_MIB = 60
CAPTURE_FRAMES = 8
"""Pictures in RGB on their way to an encoder."""
RGB_BYTES = 4
"""Of a pixel, as X servers have it."""

_MIB = 1 << 20
_USUAL_ENCODE = (VideoCodec.H264, EncodingSpeed.FAST.value)


def cannot_capture(task: CaptureTask, view: DeviceView) -> Refusal | None:
    """Tells why a device's agent cannot record such a display, however empty it is. None: it can."""
    ability = view.recording
    if ability is None:
        return _refusal("Its agent has not told whether it can record.")
    if not ability.available:
        return _refusal(ability.fault_message or "Its agent does not record.")
    if task.browser and ability.browser is None:
        return _refusal("Its agent has found no browser. Try installing Chromium, or see [browser] in its settings.")
    if task.application is not None and task.application not in ability.applications:
        return _refusal(f"Its agent has no application {task.application!r} in its settings.")
    if task.width > ability.largest_width or task.height > ability.largest_height:
        largest = f"{ability.largest_width}x{ability.largest_height}"
        return _refusal(f"Its displays are at most {largest}, and the session needs {task.width}x{task.height}.")
    return None


def with_capture(
    demand: Demand, task: CaptureTask, workload: Workload, view: DeviceView, factors: CostFactors
) -> Demand:
    """Adds a display to what encoding takes."""
    on_cores = view.identity.kind is DeviceKind.CPU
    encoder_count = demand.device_amounts.get(Dimension.ENCODER_SESSIONS, 0)
    cores = _capture_cores(task, converted=encoder_count < len(workload.encodes))
    memory = _capture_mib(task)
    device = {**demand.device_amounts, Dimension.DISPLAYS: 1}
    host = dict(demand.host_amounts)
    cost = demand.cost_pixels_per_second
    _add(host, Dimension.CORES, cores)
    if on_cores:
        _add(device, Dimension.CORES, cores)
        _add(device, Dimension.MEMORY, memory)
        # As much H.264 as would keep the cores busy for as long: a device's load is what keeps it busy.
        cost += factors.encode * (cores * view.capacity.encode_rates[_USUAL_ENCODE] // CORE)
        host[Dimension.MEMORY] = device[Dimension.MEMORY]
    else:
        if encoder_count:
            _add(device, Dimension.MEMORY, -(-CAPTURE_FRAMES * task.width * task.height * RGB_BYTES // _MIB))
        host[Dimension.MEMORY] = memory + FFMPEG_MIB
    return replace(
        demand,
        cost_pixels_per_second=cost,
        device_amounts=device,
        host_amounts=host,
        capture_amounts={Dimension.CORES: cores, Dimension.MEMORY: memory},
    )


def with_upload(demand: Demand, bits_per_second: int) -> Demand:
    """Adds what is sent to other machines."""
    return replace(demand, host_amounts={**demand.host_amounts, Dimension.UPLOAD: bits_per_second})


def _capture_cores(task: CaptureTask, *, converted: bool) -> int:
    """Gives the core time of a display, what draws on it and what takes its pictures.

    Nothing is known of an application before it runs: it is taken for a browser.
    """
    pixels = task.pixels_per_second
    drawn = max(pixels, task.width * task.height * BROWSER_FRAMES_PER_SECOND)
    return (
        BROWSER_CORES
        + _time(drawn, BROWSER_RATE)
        + _time(pixels, CAPTURE_RATE)
        + (_time(pixels, CONVERSION_RATE) if converted else 0)
        + (SOUND_CORES if task.sound else 0)
    )


def _capture_mib(task: CaptureTask) -> int:
    pixels = task.width * task.height
    return BROWSER_MIB + DISPLAY_MIB - (-pixels * (BROWSER_PIXEL_BYTES + CAPTURE_FRAMES * RGB_BYTES) // _MIB)


def _time(pixels_per_second: int, rate: int) -> int:
    return -(-pixels_per_second * CORE // rate)


def _add(amounts: dict[Dimension, int], dimension: Dimension, amount: int) -> None:
    amounts[dimension] = amounts.get(dimension, 0) + amount


def _refusal(message: str) -> Refusal:
    return Refusal(rule="CAPABILITY", message=message, permanent=True)
