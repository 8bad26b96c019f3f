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
from agents.pipelines.takes import TakePlaces, build_take, recording_coders
from agents.recordings.shooting import access_to
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

_SETTLED_S = 1.0
"""A page has begun to play by then."""
_LONGER_FILM_S = 10
"""Than what is recorded of it."""
_LEAST_PAIRS = 5
_WITHIN = timedelta(minutes=2)
"""For each run of ffmpeg."""
_WINDOWS = 30
"""A measurement of sound takes so many times as long as one of speed."""
_SHORTEST_S, _LONGEST_S = 8.0, 60.0
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
_KINDS = ("film", "drawing", "drawing as heard")
_STEPS = ("a display", *(f"sound of a {kind}" for kind in _KINDS), "what was recorded")


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
        window: timedelta,
        acquire_timeout: timedelta,
        clock: Clock,
    ) -> None:
        """Measures nothing yet.

        Args:
            work: A folder that a measurement makes, empties and removes.
            pool: Lends the display.
            browsers: Show pages on it.
            timings: Keeps what was measured.
            window: How long one measurement of speed takes, from which follows how much of each page is recorded: 15 s
                for half a second. A flash comes every 0.7 s.
            acquire_timeout: How long the display may take.
            clock: Tells when it was measured.
        """
        self._work = work
        self._pool = pool
        self._browsers = browsers
        self._timings = timings
        self._recorded_s = min(max(_WINDOWS * window.total_seconds(), _SHORTEST_S), _LONGEST_S)
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
            files = await self._recorded(device, build.path, report)
            _tell(report, len(_STEPS) - 1)
            film, drawing, heard_drawing = [
                await self._offset(file, build.path, what, kind) for file, kind in zip(files, _KINDS, strict=True)
            ]
            measured = SoundMeasurement(
                film=film,
                drawing=drawing,
                heard_drawing=heard_drawing,
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
    ) -> list[Path]:
        """Records the pages, and gives the files in the order of their kinds."""
        _tell(report, 0)
        capture = _JOB.capture
        display = await self._pool.acquire(
            width=capture.width, height=capture.height, browser=True, sound=True, timeout=self._acquire_timeout
        )
        try:
            film = self._work / "film.webm"
            await _run([ffmpeg, *film_arguments(str(film), seconds=round(self._recorded_s + _LONGER_FILM_S))])
            shown = film_page(await asyncio.to_thread(film.read_bytes))
            pages = (shown, drawing_page(heard=False), drawing_page(heard=True))
            files = []
            async with self._browsers.own_page(display) as show:
                for number, page in enumerate(pages, start=1):
                    _tell(report, number)
                    await show(page)
                    files.append(await self._take(device, display, number))
        finally:
            await self._pool.release(display.id)
        return files

    async def _take(self, device: PipelineDevice, display: Display, number: int) -> Path:
        """Records what is shown, and gives the file."""
        await asyncio.sleep(_SETTLED_S)
        told = {name: str(self._work / f"{number}-{name}") for name in ("progress", "frames", "silence", "idleness")}
        command = build_take(
            _JOB, device, access_to(display), TakePlaces(artifacts_dir=str(self._work), **told), number=number
        )
        file = self._work / take_files(_JOB, (number,), artifacts_dir=str(self._work))["file"][0]
        await asyncio.to_thread(file.parent.mkdir, parents=True)
        # Its only output is its last argument.
        *options, path = command.argv
        await _run([*options, "-t", str(self._recorded_s), path], env=command.env)
        return file

    async def _offset(self, recording: Path, ffmpeg: str, what: str, name: str) -> timedelta:
        levels, sound = self._work / f"{recording.parent.name}-levels", self._work / f"{recording.parent.name}-sound"
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
        raise _ProgramError(f"{argv[0]} failed: {told}. Try again when that is mended.")


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
