"""Measures how far sound is from its picture, by real recordings of pages that flash and beep.

They are captured from a display like any other by the command of any take, with nothing delayed. What runs ends with
this agent, however that ends: the display is one that nobody uses to the next agent, and ffmpeg dies with its parent.
"""

from __future__ import annotations

import asyncio
import shutil
from array import array
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.bounded_program import run_bounded
from agents.browsers.page import PageFault
from agents.devices.calibration_plan import CalibrationProgress
from agents.displays.display import DisplayUnavailable
from agents.displays.sound_server import find_sound_fault
from agents.pipelines.job import AudioRendition, Container, EncodingSpeed, FileOutput, Rendition, VideoEncoding
from agents.pipelines.pipeline_error import PipelineError
from agents.pipelines.recording import Capture, PageSource, RecordingJob, StartGate, StopRules
from agents.pipelines.recording_files import take_files
from agents.pipelines.sound_offsets import (
    beep_times,
    film_arguments,
    flash_times,
    reading_arguments,
    sound_offset,
)
from agents.pipelines.takes import DisplayAccess, TakePlaces, build_take, recording_coders
from agents.recordings.sound_pages import drawing_page, film_page
from agents.recordings.sound_timings import SoundMeasurement
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agents.displays.display import Display
    from agents.displays.pool import DisplayPool
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.recording_report import SoundTiming
    from agents.recordings.browsers import Browsers
    from agents.recordings.sound_timings import SoundTimings
    from gpu_balancer.runtime.clock import Clock

_RECORDED = timedelta(seconds=20)
"""Of each page: some 29 flashes. A browser that draws by the host's cores shows things later after some seconds."""
_SETTLED_S = 1.0
"""A page has begun to play by then."""
_FILM_S = 30
_LEAST_PAIRS = 8
_WITHIN = timedelta(seconds=60)
"""For each run of ffmpeg."""
_JOB = RecordingJob(
    session="sound-calibration",
    attempt=1,
    source=PageSource(url="about:blank"),
    capture=Capture(),
    gate=StartGate(),
    stop_rules=StopRules(),
    renditions=(Rendition(id="it", video=VideoEncoding(speed=EncodingSpeed.FASTEST), audio=AudioRendition()),),
    outputs=(FileOutput(id="file", path="it.mp4", container=Container.MP4),),
    allow_software_encode=True,
)
_STEPS = ("a display", "sound of a film", "sound of a drawing", "what was recorded")


class _ProgramError(Exception):
    """An ffmpeg did not do what it was started for. The message says why."""


class SoundCalibration:
    """Measures one agent's recordings."""

    def __init__(
        self,
        work: Path,
        *,
        pool: DisplayPool,
        browsers: Browsers,
        timings: SoundTimings,
        acquire_timeout: timedelta,
        clock: Clock,
    ) -> None:
        """Measures nothing yet.

        Args:
            work: A folder that a measurement makes, empties and removes.
            pool: Lends the display.
            browsers: Show pages on it.
            timings: Keeps what was measured.
            acquire_timeout: How long the display may take.
            clock: Tells when it was measured.
        """
        self._work = work
        self._pool = pool
        self._browsers = browsers
        self._timings = timings
        self._acquire_timeout = acquire_timeout
        self._clock = clock

    async def measure(self, device: PipelineDevice, report: Callable[[CalibrationProgress], None]) -> SoundTiming:
        """Measures, and keeps what was found. Must be awaited in the main thread.

        Args:
            device: What records, with what it was proved to do.
            report: Told of each step before it begins.

        Returns:
            What holds for recordings from now on.

        Raises:
            RequestFailure: NO_CAPABLE_DEVICE when it cannot record pages with sound, or what was recorded shows no
                flashes with beeps; DISK_FULL when something cannot be written.
        """
        what = f"calibrate the sound of {device.id}"
        if (fault := find_sound_fault()) is not None:
            raise RequestFailure(reason=Reason.NO_CAPABLE_DEVICE, message=f"Cannot {what}: {fault}")
        try:
            build = recording_coders(_JOB, device).build
            await asyncio.to_thread(_make_empty, self._work)
            film, drawing = await self._recorded(device, build.path, report)
            _tell(report, 3)
            measured = SoundMeasurement(
                film=await self._offset(film, build.path, what, "film"),
                drawing=await self._offset(drawing, build.path, what, "drawing"),
                end_time=self._clock.now(),
                browser=self._browsers.name,
                ffmpeg=build.version,
            )
            await asyncio.to_thread(self._timings.keep, measured)
        except (DisplayUnavailable, PageFault, PipelineError, _ProgramError) as error:
            raise RequestFailure(reason=Reason.NO_CAPABLE_DEVICE, message=f"Cannot {what}: {error}") from error
        except OSError as error:
            told = f"Cannot {what}: {error.strerror or error}: {error.filename}. Try freeing space."
            raise RequestFailure(reason=Reason.DISK_FULL, message=told) from error
        finally:
            await self.clear()
        return self.timing(device)

    def timing(self, device: PipelineDevice) -> SoundTiming:
        """Tells what holds for recordings of pages that begin now on a device."""
        try:
            ffmpeg = recording_coders(_JOB, device).build.version
        except PipelineError:
            ffmpeg = ""
        return self._timings.timing(browser=self._browsers.name, ffmpeg=ffmpeg)

    async def clear(self) -> None:
        """Removes what a measurement left whose agent was killed."""
        await asyncio.to_thread(shutil.rmtree, self._work, ignore_errors=True)

    async def _recorded(
        self, device: PipelineDevice, ffmpeg: str, report: Callable[[CalibrationProgress], None]
    ) -> tuple[Path, Path]:
        """Records the film and the drawing, and gives the files."""
        _tell(report, 0)
        capture = _JOB.capture
        display = await self._pool.acquire(
            width=capture.width, height=capture.height, browser=True, sound=True, timeout=self._acquire_timeout
        )
        try:
            film = self._work / "film.webm"
            await _run([ffmpeg, *film_arguments(str(film), seconds=_FILM_S)])
            shown = film_page(await asyncio.to_thread(film.read_bytes))
            async with self._browsers.own_page(display) as show:
                _tell(report, 1)
                await show(shown)
                first = await self._take(device, display, 1)
                _tell(report, 2)
                await show(drawing_page())
                second = await self._take(device, display, 2)
        finally:
            await self._pool.release(display.id)
        return first, second

    async def _take(self, device: PipelineDevice, display: Display, number: int) -> Path:
        """Records what is shown, and gives the file."""
        await asyncio.sleep(_SETTLED_S)
        access = DisplayAccess(
            name=display.name,
            authority=display.authority,
            sound_server=display.sound_server,
            sound_source=display.sound_source,
        )
        told = {name: str(self._work / f"{number}-{name}") for name in ("progress", "frames", "silence", "idleness")}
        command = build_take(_JOB, device, access, TakePlaces(artifacts_dir=str(self._work), **told), number=number)
        file = self._work / take_files(_JOB, (number,), artifacts_dir=str(self._work))["file"][0]
        await asyncio.to_thread(file.parent.mkdir, parents=True)
        # Its only output is its last argument.
        *options, path = command.argv
        await _run([*options, "-t", str(_RECORDED.total_seconds()), path], env=command.env)
        return file

    async def _offset(self, recording: Path, ffmpeg: str, what: str, name: str) -> timedelta:
        levels, sound = self._work / f"{name}-levels", self._work / f"{name}-sound"
        await _run([ffmpeg, *reading_arguments(str(recording), levels=str(levels), sound=str(sound))])
        flashes = await asyncio.to_thread(lambda: flash_times(levels.read_text()))
        beeps = await asyncio.to_thread(lambda: beep_times(array("h", sound.read_bytes())))
        found = sound_offset(flashes, beeps)
        if found is None or found.pair_count < _LEAST_PAIRS:
            raise RequestFailure(
                reason=Reason.NO_CAPABLE_DEVICE,
                message=f"Cannot {what}: of a {name} {len(flashes)} flashes and {len(beeps)} beeps were recorded, and "
                f"{found.pair_count if found else 0} of them belong together. Try again when the machine is less busy.",
            )
        return found.offset


def _tell(report: Callable[[CalibrationProgress], None], step: int) -> None:
    report(CalibrationProgress(step=step, step_count=len(_STEPS), message=_STEPS[step]))


async def _run(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> None:
    """Runs an ffmpeg to its end.

    Raises:
        _ProgramError: When it fails, or takes too long.
        OSError: When it cannot be started.
    """
    run = await run_bounded(argv, timeout=_WITHIN, env=env, dies_with_us=True)
    if run.timed_out:
        raise _ProgramError(f"{argv[0]} took more than {_WITHIN.total_seconds():g} s. Try again.")
    if run.exit_code:
        told = (run.output.strip().splitlines() or ["it does not say why"])[-1]
        raise _ProgramError(f"{argv[0]} failed: {told}. Try another ffmpeg.")


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
