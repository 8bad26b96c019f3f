"""Measures by real runs how much a device carries of each kind of work.

Everything that runs is a child of this agent and ends with it, in whatever way it ends; what is written lies in one
folder that is gone afterwards. How it is measured differs by device: `calibration_cores` and `calibration_engines`.
"""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.devices.calibration_cores import CoreCalibration
from agents.devices.calibration_engines import EngineCalibration
from agents.devices.calibration_plan import (
    CalibrationBounds,
    CalibrationProgress,
    CalibrationResult,
    best_build,
    steps_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.devices.identity import DeviceIdentity
    from agents.pipelines.capability import PipelineDevice
    from gpu_balancer.runtime.clock import Clock

CPU_LIMIT = timedelta(seconds=110)
"""Of 2 minutes; the rest is for ending what runs at the bound."""
GPU_LIMIT = timedelta(seconds=460)
"""Of 8 minutes, likewise."""


class NothingToCalibrateError(Exception):
    """The device was not seen to do anything. The message is a sentence."""


async def calibrate_device(
    identity: DeviceIdentity,
    device: PipelineDevice,
    *,
    work: Path,
    window: timedelta,
    rounds: int,
    clock: Clock,
    report: Callable[[CalibrationProgress], None],
) -> CalibrationResult:
    """Calibrates a device. Must be awaited in the main thread.

    Args:
        identity: The device.
        device: The same as pipelines see it, with what it was proved to do.
        work: A folder that this makes, empties and removes.
        window: How long one measurement takes, about.
        rounds: How often everything is measured.
        clock: Measures the whole, and tells when it ended.
        report: Told of each step before it begins.

    Returns:
        A figure for each step; those for which the time did not suffice say so.

    Raises:
        NothingToCalibrateError: When nothing works on the device.
        OSError: When the folder cannot be made.
    """
    build = best_build(device.kind, device.ffmpeg_builds, device.capabilities)
    if build is None:
        raise NothingToCalibrateError(f"Cannot calibrate {device.id}: nothing was seen to work on it. Try probing it.")
    steps = steps_of(device.kind, build, device.capabilities)
    bounds = CalibrationBounds(window=window, rounds=rounds, limit=CPU_LIMIT if device.kind == "cpu" else GPU_LIMIT)
    await asyncio.to_thread(_make_empty, work)
    try:
        if device.kind == "cpu":
            cores = CoreCalibration(build.path, core_count=device.core_count, work=work, bounds=bounds, clock=clock)
            figures = await cores.measure(steps, report)
        else:
            alone = replace(
                device,
                ffmpeg_builds=(build,),
                capabilities=tuple(one for one in device.capabilities if one.ffmpeg == build.path),
            )
            figures = await EngineCalibration(alone, work=work, bounds=bounds, clock=clock).measure(steps, report)
    finally:
        await asyncio.to_thread(remove_work, work)
    return CalibrationResult(end_time=clock.now(), build=build, driver_version=identity.driver_version, figures=figures)


def remove_work(folder: Path) -> None:
    """Removes what a calibration wrote, also one whose agent was killed. Blocks for the disk."""
    shutil.rmtree(folder, ignore_errors=True)


def _make_empty(folder: Path) -> None:
    remove_work(folder)
    folder.mkdir(mode=0o700)
