"""How long the calibration of this machine's cores takes, and how far several of them are apart."""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.devices.calibration import CPU_LIMIT
from agents.devices.calibration_cores import CoreCalibration
from agents.devices.calibration_plan import CalibrationBounds, best_build, steps_of
from agents.devices.cpu import cpu_identity
from agents.devices.golden_probe import probe_device
from bench import daemons
from bench.measuring import Figure
from gpu_balancer.runtime.clock import SystemClock

if TYPE_CHECKING:
    from agents.devices.calibration_plan import CalibrationFigure, CalibrationStep


def measure(*, runs: int = 3, window_s: float = 0.5, rounds: int = 3, step_count: int | None = None) -> list[Figure]:
    """Calibrates all cores that this process may use, several times.

    Args:
        runs: How often.
        window_s: As in the settings.
        rounds: As in the settings.
        step_count: Measures only so many of the things there are. None: all.
    """
    bounds = CalibrationBounds(window=timedelta(seconds=window_s), rounds=rounds, limit=CPU_LIMIT)
    with tempfile.TemporaryDirectory(prefix="gpu-balancer-bench-") as scratch:
        return asyncio.run(_measure(Path(scratch), bounds, runs=runs, step_count=step_count))


async def _measure(scratch: Path, bounds: CalibrationBounds, *, runs: int, step_count: int | None) -> list[Figure]:
    identity = cpu_identity("cpu-0")
    if daemons.known_probe is not None:
        shutil.copyfile(daemons.known_probe, scratch / "probe.json")
    probe = await probe_device(identity, ["bundled"], state_folder=scratch)
    build = best_build("cpu", probe.ffmpeg_builds, probe.capabilities)
    if build is None:
        raise RuntimeError(f"nothing works here: {probe.fault_message}")
    steps = steps_of("cpu", build, probe.capabilities)[:step_count]
    walls: list[float] = []
    found: list[tuple[CalibrationFigure, ...]] = []
    for number in range(runs):
        work = scratch / f"run-{number}"
        work.mkdir()
        began = time.monotonic()
        calibration = CoreCalibration(
            build.path, core_count=len(identity.cores), work=work, bounds=bounds, clock=SystemClock()
        )
        found.append(await calibration.measure(steps, lambda _: None))
        walls.append(time.monotonic() - began)
    busy = f"{len(steps)} figures, load average {os.getloadavg()[0]:.1f} on {len(identity.cores)} cores"
    whole = Figure(name="calibration: wall, longest", value=max(walls), unit="s", bound="<= 120", detail=busy)
    return [whole, *_deviations(steps, found)]


def _deviations(steps: tuple[CalibrationStep, ...], found: list[tuple[CalibrationFigure, ...]]) -> list[Figure]:
    """Tells for each figure, and for the worst, how far a run was from the middle one at most."""
    figures = []
    for place, step in enumerate(steps):
        values = [run[place].pixels_per_second for run in found]
        measured = [value for value in values if value]
        if not measured:
            raise RuntimeError(f"{step} could not be measured: {found[0][place].problem}")
        middle = statistics.median(measured)
        worst = 100 * max(abs(value - middle) / middle for value in measured)
        detail = f"{', '.join(f'{value / 1e6:.1f}' for value in measured)} million pixels/s"
        if len(measured) < len(values):
            detail += f"; {len(values) - len(measured)} times not in time"
        figures.append(Figure(name=f"calibration: {step}", value=worst, unit="% off", bound="<= 10", detail=detail))
    return figures
