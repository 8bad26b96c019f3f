"""Puts together what makes recordings: displays, browsers, directors, and copies of what they leave.

An agent that records nothing pays nothing: displays and Playwright are there from the first recording on.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agents.deliveries.deliveries import Deliveries
from agents.displays.pool import DisplayPool
from agents.displays.sound_server import find_sound_fault
from agents.displays.xvfb import Xvfb
from agents.pipelines.recording import ApplicationSource, PageSource
from agents.recordings.ability import RecordingAbility
from agents.recordings.browsers import Browsers
from agents.recordings.closing import Closing
from agents.recordings.direction import Direction
from agents.recordings.excess import DisplayBounds, find_excess
from agents.recordings.launcher import RecordingLauncher
from agents.recordings.narration import Narration
from agents.recordings.runner import RecordingRunner
from agents.recordings.shooting import Shooting
from agents.recordings.sound_calibration import SoundCalibration
from agents.recordings.sound_timings import SoundTimings
from agents.recordings.stage import Stage, StageSettings
from agents.recordings.state import used_display
from agents.recordings.take_run import TakeBounds
from agents.recordings.takes import Takes
from agents.recordings.use_meter import UseMeter
from agents.sessions.attempt_health import health_bounds
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.trace import Tracer

    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.recording import RecordingJob
    from agents.pipelines.recording_report import SoundTiming
    from agents.sessions.fence import Fences
    from agents.sessions.folder import SessionFolders
    from agents.sessions.records import RecordingRecord
    from agents.sessions.session_trace import SessionTrace
    from agents.sessions.status_book import Attempt, StatusBook
    from agents.settings import AgentSettings
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
_MIB = 1 << 20
_FOUND_WITHIN_S = 3.0
_TAKEN_OVER_WITHIN_S = 2.0
_NOT_TAKEN_OVER = "Cannot record yet: what an earlier agent left of displays is still being looked at. Try again soon."


class Recordings:
    """All that an agent records with."""

    def __init__(  # noqa: PLR0913 - the agent's parts, each by its name
        self,
        settings: AgentSettings,
        state_dir: Path,
        folders: SessionFolders,
        *,
        fences: Fences,
        device: Callable[[], PipelineDevice],
        book: StatusBook,
        tracer: Tracer,
        tasks: TaskGuard,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        """Starts nothing before `start`.

        Args:
            settings: The agent's.
            state_dir: Its state folder.
            folders: Where attempts live.
            fences: Of this host.
            device: Gives the device as it was proved; raises RequestFailure while that is not known.
            book: Where statuses are kept and told.
            tracer: Makes spans.
            tasks: Owns what runs.
            clock: For times and waits.
            changed: Called when `ability` gives something else.
        """
        self._settings = settings
        self._folders = folders
        self._fences = fences
        self._device = device
        self._book = book
        self._clock = clock
        self._tasks = tasks
        self._changed = changed
        self._displays_known = asyncio.Event()
        self._browsers = Browsers(settings, clock=clock, changed=changed)
        self._pool = DisplayPool(
            state_dir / "displays",
            settings.recordings,
            backend=Xvfb(),
            start_browser=self._browsers.starter(lambda: self._pool),
            tasks=tasks,
            clock=clock,
            on_changed=changed,
        )
        self._timings = SoundTimings(state_dir / "sound.json", asked_ms=settings.recordings.sound_delay_ms)
        self._shooting = Shooting(
            device,
            browser=lambda: self._browsers.name,
            timings=self._timings,
            log_tail_lines=settings.sessions.log_tail_lines,
        )
        self.launcher = RecordingLauncher(
            folders,
            self._shooting,
            fences=fences,
            tracer=tracer,
            clock=clock,
            output_roots=settings.outputs.roots,
        )
        self.deliveries = Deliveries(
            state_dir / "deliveries",
            settings.deliveries,
            settings.destinations,
            tasks=tasks,
            clock=clock,
            on_changed=lambda _: None,
        )
        self._closing = Closing(self._shooting, self.deliveries, clock=clock)
        self.sound_calibration = self._sound_calibration(state_dir / "sound-work")

    async def start(self) -> None:
        """Takes over what an earlier agent left: displays in use, copies under way. Ends displays that nobody uses."""
        try:
            await self.deliveries.start()
        except OSError as error:
            # Sessions matter more than their copies. What is in the journal waits for the next start.
            _LOG.error("Cannot go on with copies to destinations: %s: %s", error.strerror, error.filename)
        finding = self._tasks.spawn(self._browsers.find(), name="find a browser")
        # One that takes longer to say what it is must not keep the agent from its sessions.
        await asyncio.wait({finding}, timeout=_FOUND_WITHIN_S)
        taking_over = self._tasks.spawn(self._take_over_displays(), name="take over displays")
        # Nor may a sick disk, or a process that does not go.
        await asyncio.wait({taking_over}, timeout=_TAKEN_OVER_WITHIN_S)
        if fault := self.ability().fault_message:
            _LOG.info("%s", fault)

    async def _take_over_displays(self) -> None:
        used = await asyncio.to_thread(self._used_displays)
        await self._pool.start(used=used)
        self._displays_known.set()
        self._changed()

    async def close(self) -> None:
        """Ends the displays that nobody uses, and lets go of the others."""
        await self._pool.close()
        await self._browsers.close()

    def ability(self) -> RecordingAbility:
        """Tells what can be recorded now."""
        pool = self._pool.ability()
        browser, applications = self._browsers.name, tuple(sorted(self._applications()))
        fault = "" if pool.available else pool.fault_message
        if not self._displays_known.is_set():
            fault = _NOT_TAKEN_OVER
        if not fault and not browser and not applications:
            fault = self._browsers.fault
        return RecordingAbility(
            fault_message=fault,
            display_count=pool.display_count,
            ready_display_count=pool.ready_display_count,
            browser=browser,
            applications=applications,
            largest_width=pool.largest_width,
            largest_height=pool.largest_height,
            sound_timing=self._sound_timing() if pool.sound and not fault else None,
        )

    def _sound_calibration(self, work: Path) -> SoundCalibration:
        return SoundCalibration(
            work,
            pool=self._pool,
            browsers=self._browsers,
            timings=self._timings,
            window=timedelta(seconds=self._settings.calibration.window_s),
            acquire_timeout=timedelta(seconds=self._settings.recordings.acquire_timeout_s),
            clock=self._clock,
        )

    def _sound_timing(self) -> SoundTiming:
        """Tells of recordings of pages that begin now; while the device is not known, of their delay alone."""
        try:
            return self.sound_calibration.timing(self._device())
        except RequestFailure:
            return self._timings.timing(browser="", ffmpeg="")

    def require_able(self, job: RecordingJob) -> None:
        """Makes sure that a recording can be made here.

        Raises:
            RequestFailure: NO_CAPABLE_DEVICE.
        """
        ability, source = self.ability(), job.source
        message = ability.fault_message
        if not message and isinstance(source, PageSource) and not ability.browser:
            message = self._browsers.fault
        if not message and isinstance(source, ApplicationSource) and source.name not in ability.applications:
            known = ", ".join(ability.applications) or "none"
            message = (
                f"Cannot record the application {source.name!r}: the operator's settings do not name it. Try one of "
                f"{known}."
            )
        if not message and job.capture.sound and (fault := find_sound_fault()) is not None:
            message = f"{fault} Or try to record without sound."
        if message:
            raise RequestFailure(reason=Reason.NO_CAPABLE_DEVICE, message=message)

    def make_runner(self, attempt: Attempt, record: RecordingRecord, trace: SessionTrace) -> RecordingRunner:
        """Makes the director of a recording."""
        settings, clock = self._settings, self._clock
        stage = Stage(
            record.job,
            self._pool,
            self._browsers,
            log=attempt.folder.artifacts / "console.log",
            clock=clock,
            settings=StageSettings(
                acquire_timeout=timedelta(seconds=settings.recordings.acquire_timeout_s),
                applications=self._applications(),
            ),
        )
        bounds = TakeBounds(
            stop_timeout=timedelta(seconds=settings.sessions.stop_timeout_s),
            log_limit_bytes=settings.sessions.log_max_mib * _MIB,
            first_picture_timeout=timedelta(seconds=settings.inputs.first_frame_timeout_s),
            health=health_bounds(settings.sessions),
        )
        direction = Direction(record, Narration(attempt, self._book, trace, clock=clock), stage, self._fences)
        takes = Takes(direction, self._shooting, meter=UseMeter(clock), clock=clock, bounds=bounds)
        largest = DisplayBounds(
            memory_mib=settings.recordings.largest_memory_mib, folder_mib=settings.recordings.largest_folder_mib
        )
        return RecordingRunner(
            direction,
            takes,
            shooting=self._shooting,
            closing=self._closing,
            clock=clock,
            find_excess=partial(find_excess, bounds=largest),
            displays_known=self._displays_known.wait,
        )

    def _applications(self) -> dict[str, tuple[str, ...]]:
        return {one.name: one.command for one in self._settings.applications}

    def _used_displays(self) -> set[str]:
        """Finds the displays of live recordings."""
        found = (used_display(folder) for folder in self._folders.found())
        return {display for display in found if display is not None}
