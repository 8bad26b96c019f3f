"""The agent's one calibration at a time: refused on a busy device, and ended when whoever asked for it leaves."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.devices.calibration import NothingToCalibrateError, calibrate_device, remove_work
from agents.devices.calibration_plan import CalibrationProgress, CalibrationResult
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from agents.servicers.probed_device import ProbedDevice
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.settings_sections import CalibrationSettings
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
_RETRY = timedelta(seconds=5)

_News = CalibrationProgress | CalibrationResult | RequestFailure


class Calibrator:
    """Calibrates the agent's device when asked."""

    def __init__(
        self, device: ProbedDevice, *, work: Path, settings: CalibrationSettings, tasks: TaskGuard, clock: Clock
    ) -> None:
        """Calibrates nothing yet.

        Args:
            device: The device.
            work: A folder of its own, which exists only while it calibrates.
            settings: How it measures.
            tasks: Owns what runs.
            clock: Measures it.
        """
        self._device = device
        self._work = work
        self._settings = settings
        self._tasks = tasks
        self._clock = clock
        self._running: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """Whether the device is being calibrated."""
        return self._running is not None and not self._running.done()

    async def clear(self) -> None:
        """Removes what a calibration left whose agent was killed."""
        await asyncio.to_thread(remove_work, self._work)

    def refuse_meanwhile(self, what: str) -> None:
        """Refuses what cannot be done while the device is being calibrated.

        Args:
            what: That, after "Cannot ".

        Raises:
            RequestFailure: NO_DEVICE_READY while it is.
        """
        if self.running:
            raise RequestFailure(
                reason=Reason.NO_DEVICE_READY,
                message=f"Cannot {what}: {self._device.identity.id} is being calibrated. Try again in a few minutes.",
                retry_after=_RETRY,
            )

    async def calibrate(self, live_count: int) -> AsyncGenerator[CalibrationProgress | CalibrationResult, None]:
        """Calibrates, and tells how far it is and last what came of it. Closing this ends it.

        Args:
            live_count: Sessions on the device now.

        Raises:
            RequestFailure: DEVICE_BUSY while it has sessions or is being calibrated; NO_DEVICE_READY while it cannot
                work; DISK_FULL when inputs cannot be written.
        """
        busy = f"it has {live_count} live sessions" if live_count else "it is being calibrated" if self.running else ""
        if busy:
            raise RequestFailure(
                reason=Reason.DEVICE_BUSY,
                message=f"Cannot calibrate {self._device.identity.id}: {busy}. Try again when it is idle.",
            )
        device = self._device.pipeline_device()
        news: asyncio.Queue[_News] = asyncio.Queue()

        async def run() -> None:
            try:
                news.put_nowait(
                    await calibrate_device(
                        self._device.identity,
                        device,
                        work=self._work,
                        window=timedelta(seconds=self._settings.window_s),
                        rounds=self._settings.rounds,
                        clock=self._clock,
                        report=news.put_nowait,
                    )
                )
            except NothingToCalibrateError as error:
                news.put_nowait(RequestFailure(reason=Reason.NO_DEVICE_READY, message=str(error)))
            except OSError as error:
                told = f"Cannot calibrate {device.id}: {error.strerror}: {error.filename}. Try freeing space."
                news.put_nowait(RequestFailure(reason=Reason.DISK_FULL, message=told))

        self._running = running = self._tasks.spawn(run(), name="calibrate")
        _LOG.info("Calibrating %s", device.id)
        try:
            while True:
                told = await news.get()
                if isinstance(told, RequestFailure):
                    raise told
                yield told
                if isinstance(told, CalibrationResult):
                    return
        finally:
            running.cancel()
            _LOG.info("Ended calibrating %s", device.id)
