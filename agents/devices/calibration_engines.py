"""Calibrates a GPU: by real pipelines side by side, more and more of them, until the device is full.

Every stream is what a session would be: decoded, scaled and encoded in device memory by the pipelines' own command. To
see what an encoder does, up to four streams share one decoder, as the renditions of a session do, so that decoding is
not what ends it. What they write goes nowhere. A stream counts from when all of them run and have warmed up; several
short windows are taken and the middle one counts.

The search for a number of streams is `calibration_search`. A driver that lets no more encoder sessions be open ends it.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import ProgramRun, run_bounded
from agents.devices.calibration_pipelines import RUN_STATISTICS_S, EngineRun, engine_run
from agents.devices.calibration_plan import (
    ENGINE_SCALED_SIZE,
    ENGINES_SIZE,
    FRAMES_PER_SECOND,
    TIME_UP,
    CalibrationFigure,
    CalibrationProgress,
    CalibrationStep,
    Work,
    picture_arguments,
    sample_arguments,
)
from agents.devices.calibration_search import Found, Level, find_carried
from agents.devices.probe_trials import failure_line
from agents.pipelines.job import VideoCodec
from agents.pipelines.pipeline_error import PipelineError
from agents.pipelines.progress import Progress, parse_progress
from gpu_balancer.runtime.task_guard import TaskGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agents.devices.calibration_plan import CalibrationBounds
    from agents.pipelines.capability import PipelineDevice
    from gpu_balancer.pictures.sizes import PictureSize
    from gpu_balancer.runtime.clock import Clock

_MOST_STREAMS = 64
_POLL_S = 0.02
_START_TIMEOUT_S = 20.0
_SAMPLE_TIMEOUT = timedelta(seconds=30)
_LONGEST_RUN = timedelta(seconds=60)
_SESSION_CAP = ("openencodesessionex failed: out of memory", "incompatible client key")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    """How far a run was when it last said so."""

    time_s: float
    frames: int


class _Run:
    """One ffmpeg that runs until it is called off."""

    def __init__(self, run: EngineRun, task: asyncio.Task[ProgramRun]) -> None:
        self.streams = run.streams
        self.task = task
        self._progress = Path(run.progress_path)

    def reading(self) -> _Reading:
        """Reads how far it is; at nothing before it has said anything. Touches the disk."""
        try:
            text, time_s = self._progress.read_text(), self._progress.stat().st_mtime_ns / 1e9
        except OSError:
            return _Reading(time_s=0.0, frames=0)
        progress, _ = parse_progress(text, None)
        return _Reading(time_s=time_s, frames=(progress or Progress()).frames)


class EngineCalibration:
    """One calibration of one GPU."""

    def __init__(self, device: PipelineDevice, *, work: Path, bounds: CalibrationBounds, clock: Clock) -> None:
        """Prepares; nothing runs yet.

        Args:
            device: The device, with the one ffmpeg that is measured.
            work: An empty folder for inputs and progress.
            bounds: How long to measure.
            clock: Measures that.
        """
        self._device = device
        self._work = work
        self._window_s = bounds.window.total_seconds()
        self._windows = bounds.rounds
        self._until_s = clock.monotonic_s() + bounds.limit.total_seconds()
        self._clock = clock
        self._samples: dict[VideoCodec, str] = {}
        self._numbers = itertools.count()

    async def measure(
        self, steps: Sequence[CalibrationStep], report: Callable[[CalibrationProgress], None]
    ) -> tuple[CalibrationFigure, ...]:
        """Measures one step after the other until all are done or the time is up.

        Returns:
            A figure for each step, in order.
        """
        figures = []
        for done, step in enumerate(steps):

            def told(streams: int, done: int = done, step: CalibrationStep = step) -> None:
                side_by_side = f", {streams} side by side" if streams else ""
                report(CalibrationProgress(step=done, step_count=len(steps), message=f"{step}{side_by_side}"))

            told(0)
            left_s = self._until_s - self._clock.monotonic_s()
            figure = CalibrationFigure(step=step, problem=TIME_UP)
            if left_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left_s):
                        figure = await self._figure(step, told)
            figures.append(figure)
        return tuple(figures)

    async def _figure(self, step: CalibrationStep, told: Callable[[int], None]) -> CalibrationFigure:
        codec = step.codec if step.work is Work.DECODE and step.codec else VideoCodec.H264
        path, problem = await self._sample(codec)
        if problem:
            return CalibrationFigure(step=step, problem=problem)

        async def level(streams: int) -> Level:
            told(streams)
            return await self._level(step, codec, path, streams)

        try:
            return _figure_of(step, await find_carried(level, most=_MOST_STREAMS))
        except PipelineError as error:
            return CalibrationFigure(step=step, problem=error.message)

    async def _sample(self, codec: VideoCodec) -> tuple[str, str]:
        """Gives the path of a stream in a format, or why there is none."""
        if codec in self._samples:
            return self._samples[codec], ""
        path, picture = str(self._work / f"{codec}.mkv"), str(self._work / "picture.yuv")
        making = [sample_arguments(codec, ENGINES_SIZE, picture=picture, path=path)]
        if not self._samples:
            making.insert(0, picture_arguments(ENGINES_SIZE, picture))
        for arguments in making:
            run = await self._bounded([self._ffmpeg, *arguments], {}, _SAMPLE_TIMEOUT)
            if run.exit_code != 0:
                return path, f"its input could not be made: {failure_line(run.exit_code, run.output)}"
        self._samples[codec] = path
        return path, ""

    @property
    def _ffmpeg(self) -> str:
        return self._device.ffmpeg_builds[0].path

    async def _level(self, step: CalibrationStep, codec: VideoCodec, path: str, streams: int) -> Level:
        """Has so many streams run side by side for some windows."""
        async with AsyncExitStack() as stack:
            guard = await stack.enter_async_context(TaskGuard("calibration"))
            runs = []
            for share in _shares(step, streams):
                folder = self._work / f"run-{next(self._numbers)}"
                await asyncio.to_thread(folder.mkdir)
                run = engine_run(step, codec, self._device, path=path, folder=str(folder), streams=share)
                await asyncio.to_thread(_prepare, run)
                task = guard.spawn(self._bounded(list(run.argv), run.env, _LONGEST_RUN), name=folder.name)
                runs.append(_Run(run, task))
            return await self._watch(step, runs, streams)

    async def _watch(self, step: CalibrationStep, runs: list[_Run], streams: int) -> Level:
        waits = [_START_TIMEOUT_S, *[self._window_s] * (self._windows + 1)]
        readings: list[list[_Reading]] = []
        for number, wait_s in enumerate(waits):
            failure = await self._while_all_run(runs, wait_s, until_begun=number == 0)
            if failure:
                return Level(streams=streams, failure=failure)
            readings.append(await self._readings(runs))
        # From the start to the first window is warming up.
        pixels, speeds = [], []
        for before, after in itertools.pairwise(readings[1:]):
            rates = [_rate(one, other) for one, other in zip(before, after, strict=True)]
            pixels.append(sum(rate * run.streams for rate, run in zip(rates, runs, strict=True)) * _stream_pixels(step))
            speeds.append(min(rates) / FRAMES_PER_SECOND)
        return Level(
            streams=streams,
            pixels_per_second=round(statistics.median(pixels)),
            slowest_speed=statistics.median(speeds),
        )

    async def _while_all_run(self, runs: list[_Run], seconds: float, *, until_begun: bool) -> str:
        """Waits; with `until_begun` until every run has shown a frame, at most so long. Gives why one has ended."""
        end_s = self._clock.monotonic_s() + seconds
        while True:
            for run in runs:
                if run.task.done():
                    ended = run.task.result()
                    return failure_line(ended.exit_code, ended.output)
            if until_begun and all(reading.frames for reading in await self._readings(runs)):
                return ""
            if self._clock.monotonic_s() >= end_s:
                return f"no picture came within {seconds:.0f} s" if until_begun else ""
            await asyncio.sleep(_POLL_S)

    async def _readings(self, runs: list[_Run]) -> list[_Reading]:
        return await asyncio.to_thread(lambda: [run.reading() for run in runs])

    async def _bounded(self, argv: list[str], env: dict[str, str], timeout: timedelta) -> ProgramRun:
        try:
            return await run_bounded(argv, timeout=timeout, env=env, dies_with_us=True)
        except OSError as error:
            return ProgramRun(exit_code=1, output=f"[error] {argv[0]} cannot be started: {error}")


def _figure_of(step: CalibrationStep, found: Found) -> CalibrationFigure:
    best, failed = found.best, found.first_failure
    if best is None:
        return CalibrationFigure(step=step, problem=failed.failure if failed else "nothing ran")
    figure = CalibrationFigure(
        step=step,
        pixels_per_second=max(1, best.pixels_per_second),
        streams=best.streams if best.carried else 0,
        stream_size=_stream_size(step),
    )
    if not best.carried:
        return replace(figure, problem=f"not even one stream kept real time: it ran at {best.slowest_speed:.2f} times")
    if failed is None:
        return figure
    capped = any(words in failed.failure.lower() for words in _SESSION_CAP)
    why = "the driver opened no more encoder sessions" if capped else failed.failure
    return replace(figure, problem=f"{failed.streams} streams did not run, so it may do more than this: {why}")


def _shares(step: CalibrationStep, streams: int) -> list[int]:
    """Spreads streams over programs."""
    most = 1 if step.work is Work.DECODE else 4
    return [min(most, streams - begun) for begun in range(0, streams, most)]


def _stream_size(step: CalibrationStep) -> PictureSize:
    return ENGINE_SCALED_SIZE if step.work is Work.SCALE else ENGINES_SIZE


def _stream_pixels(step: CalibrationStep) -> int:
    width, height = _stream_size(step)
    return width * height


def _rate(before: _Reading, after: _Reading) -> float:
    """Gives frames per second between two readings; 0 when there was no news between them."""
    seconds = after.time_s - before.time_s
    return (after.frames - before.frames) / seconds if seconds > RUN_STATISTICS_S / 2 else 0.0


def _prepare(run: EngineRun) -> None:
    """Makes folders, and lets what is written go nowhere."""
    for folder in run.directories:
        Path(folder).mkdir(parents=True, exist_ok=True)
    for place in run.discarded:
        Path(place).symlink_to("/dev/null")
