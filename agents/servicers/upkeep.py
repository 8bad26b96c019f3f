"""What an agent does besides answering: it measures while somebody watches, and ends when nobody needs it."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from agents.devices.driver_calls import driver_call
from agents.devices.measurements import DeviceFault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta

    from agents.devices.device_access import DeviceMeter
    from agents.devices.measurements import Measurements
    from agents.servicers.probed_device import ProbedDevice
    from agents.sessions.event_feed import EventFeed
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.registry import SessionRegistry
    from gpu_balancer.runtime.clock import Clock

_INTERVAL_S = 1.0


async def measure_for_watchers(
    meter: DeviceMeter, feed: EventFeed, device: ProbedDevice, registry: SessionRegistry
) -> None:
    """Measures the device at 1 Hz for as long as somebody watches, and not at all otherwise. Never returns.

    A device that its health keeps from working is let go instead: a GPU can be reset only while nobody holds it.
    """
    while True:
        await asyncio.sleep(_INTERVAL_S)
        if not feed.watcher_count:
            continue
        if device.barred:
            await driver_call(meter.close)
            continue
        try:
            measurements = await driver_call(partial(_measure, meter, registry.live_folders()))
        except DeviceFault as fault:
            if device.health is None:  # else its watch sees the same, and says it better
                device.note_fault(fault.message)
        else:
            device.note_fault(None)
            feed.measured(measurements)


def _measure(meter: DeviceMeter, live: Iterable[AttemptFolder]) -> Measurements:
    shims = (folder.shim_pid() for folder in live)
    return meter.measure([pid for pid in shims if pid is not None])


async def end_when_orphaned(
    registry: SessionRegistry, feed: EventFeed, *, clock: Clock, after: timedelta, end: Callable[[], None]
) -> None:
    """Ends an agent that has had neither live sessions nor a watcher for a while. Never returns.

    Args:
        registry: Its sessions.
        feed: Its watchers.
        clock: Measures the while.
        after: How long.
        end: Makes the agent end.
    """
    needed_s = clock.monotonic_s()
    while True:
        await asyncio.sleep(min(_INTERVAL_S, after.total_seconds()))
        now_s = clock.monotonic_s()
        if registry.live_count or feed.watcher_count:
            needed_s = now_s
        elif now_s - needed_s >= after.total_seconds():
            end()
