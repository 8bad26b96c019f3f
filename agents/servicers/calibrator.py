"""The agent's one calibration at a time: refused on a busy device, and ended when whoever asked for it leaves."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from agents.devices.calibration import NothingToCalibrateError, calibrate_device, remove_work
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from pathlib import Path

    from agents.devices.calibration_plan import CalibrationProgress, CalibrationResult
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.recording_report import SoundTiming
    from agents.recordings.sound_calibration import SoundCalibration
    from agents.servicers.probed_device import ProbedDevice
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.settings_sections import CalibrationSettings
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
_RETRY = timedelta(seconds=5)

_Result = TypeVar("_Result")


class Calibrator:
    """Calibrates the agent's device when asked."""

    def __init__(
        self,
        device: ProbedDevice,
        sound: SoundCalibration,
        *,
        work: Path,
        settings: CalibrationSettings,
        tasks: TaskGuard,
        clock: Clock,
    ) -> None:
        """Calibrates nothing yet.

        Args:
            device: The device.
            sound: Measures its recordings.
            work: A folder of its own, which exists only while it calibrates.
            settings: How it measures.
            tasks: Owns what runs.
            clock: Measures it.
        """
        self._device = device
        self._sound = sound
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
        await self._sound.clear()

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

    def calibrate(self, live_count: int) -> AsyncGenerator[CalibrationProgress | CalibrationResult, None]:
        """Calibrates, and tells how far it is and last what came of it. Closing this ends it.

        Args:
            live_count: Sessions on the device now.

        Raises:
            RequestFailure: DEVICE_BUSY while it has sessions or is being calibrated; NO_DEVICE_READY while it cannot
                work; DISK_FULL when inputs cannot be written.
        """

        async def measure(device: PipelineDevice, report: Callable[[CalibrationProgress], None]) -> CalibrationResult:
            try:
                return await calibrate_device(
                    self._device.identity,
                    device,
                    work=self._work,
                    window=timedelta(seconds=self._settings.window_s),
                    rounds=self._settings.rounds,
                    clock=self._clock,
                    report=report,
                )
            except NothingToCalibrateError as error:
                raise RequestFailure(reason=Reason.NO_DEVICE_READY, message=str(error)) from error
            except OSError as error:
                told = f"Cannot calibrate {device.id}: {error.strerror}: {error.filename}. Try freeing space."
                raise RequestFailure(reason=Reason.DISK_FULL, message=told) from error

        return self._followed(measure, live_count)

    def calibrate_sound(self, live_count: int) -> AsyncGenerator[CalibrationProgress | SoundTiming, None]:
        """Measures how far sound is from its picture, and tells as `calibrate` does. Closing this ends it.

        Args:
            live_count: Sessions on the device now.

        Raises:
            RequestFailure: As for `calibrate`; and NO_CAPABLE_DEVICE when it cannot record pages with sound.
        """
        return self._followed(self._sound.measure, live_count)

    async def _followed(
        self,
        measure: Callable[[PipelineDevice, Callable[[CalibrationProgress], None]], Awaitable[_Result]],
        live_count: int,
    ) -> AsyncGenerator[CalibrationProgress | _Result, None]:
        """Has something measured by a task, and tells what it tells; the task ends with this."""
        busy = f"it has {live_count} live sessions" if live_count else "it is being calibrated" if self.running else ""
        if busy:
            raise RequestFailure(
                reason=Reason.DEVICE_BUSY,
                message=f"Cannot calibrate {self._device.identity.id}: {busy}. Try again when it is idle.",
            )
        device = self._device.pipeline_device()
        news: asyncio.Queue[CalibrationProgress | None] = asyncio.Queue()
        ended: list[_Result | RequestFailure] = []

        async def run() -> None:
            try:
                ended.append(await measure(device, news.put_nowait))
            except RequestFailure as failure:
                ended.append(failure)
            news.put_nowait(None)

        self._running = running = self._tasks.spawn(run(), name="calibrate")
        _LOG.info("Calibrating %s", device.id)
        try:
            while (told := await news.get()) is not None:
                yield told
            if isinstance(result := ended[0], RequestFailure):
                raise result
            yield result
        finally:
            running.cancel()
            _LOG.info("Ended calibrating %s", device.id)
