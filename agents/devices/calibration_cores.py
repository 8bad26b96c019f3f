"""Calibrates a CPU device: by the core time that a picture costs, not by the time on the wall.

What is booked of such a device is core time, so that is what is measured: a number of pictures is worked on by one
stream per core, side by side, and the processor time of those children is divided among the pictures. Others who use
the same machine make the run longer, not the figure wrong; and nobody has to search for the number of streams that
still keep real time, because it is a division. What a program takes to begin is measured by itself and taken off.

Steps are measured in rounds, all of them once before any for the second time: what disturbs for a while disturbs one
sample of several figures, and when the time is up every figure has at least one. Where the samples of a step do not
agree there are further rounds, until as many of them agree as there are rounds.
"""

from __future__ import annotations

import asyncio
import statistics
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import ProgramRun, run_bounded
from agents.devices.calibration_plan import (
    CORES_SIZE,
    FIRST_FRAMES,
    SCALED_SIZE,
    TIME_UP,
    CalibrationFigure,
    CalibrationProgress,
    CalibrationStep,
    Work,
    core_arguments,
    core_step_pixels,
    picture_arguments,
    sample_arguments,
)
from agents.devices.probe_trials import failure_line
from gpu_balancer.runtime.task_guard import TaskGuard

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from agents.devices.calibration_plan import CalibrationBounds
    from gpu_balancer.runtime.clock import Clock

_MOST_FRAMES = 3000
_MOST_STREAMS = 8
_AGREE_WITHIN = 0.05
"""How far apart samples that agree are at most, as a share of the largest."""
_MOST_TIMES_ROUNDS = 3
_LEAST_SHARE = 0.1
"""Of the core time of a run, what at least counts as work on pictures: what beginning took is known only roughly."""
_LEAST_S = 0.001
_RUN_TIMEOUT = timedelta(seconds=30)
_ENVIRONMENT = {"SVT_LOG": "1"}


@dataclass(slots=True, kw_only=True)
class _Trial:
    """A step while it is measured."""

    step: CalibrationStep
    path: str = ""
    """Of what it reads."""
    frames: int = 0
    """Pictures of a full run."""
    starts_s: list[float] = field(default_factory=list)
    """Core time of runs of one picture."""
    runs_s: list[float] = field(default_factory=list)
    """Core time of full runs."""
    rough: float = 0.0
    """Pixels per second of one core, as seen at first."""
    problem: str = TIME_UP

    def samples(self, streams: int) -> list[float]:
        """Gives the pixels per second of one core by each full run. Of so many streams, which all have to begin."""
        if not self.runs_s:
            return [self.rough] if self.rough else []
        start_s = statistics.median(self.starts_s)
        pixels = (self.frames - 1) * streams * core_step_pixels(self.step)
        return [pixels / _work_s(run_s, start_s) for run_s in self.runs_s]


def _work_s(run_s: float, start_s: float) -> float:
    """Gives what a run worked on pictures, above 0."""
    return max(run_s - start_s, _LEAST_SHARE * run_s, _LEAST_S)


def agreeing(samples: Sequence[float], count: int) -> Sequence[float] | None:
    """Gives so many of the samples, which are above 0, that are nearest one another. None: none are near enough."""
    ordered = sorted(samples)
    groups = [ordered[first : first + count] for first in range(len(ordered) - count + 1)]
    nearest = min(groups, key=lambda group: group[-1] / group[0], default=None)
    return nearest if nearest is not None and nearest[-1] - nearest[0] <= _AGREE_WITHIN * nearest[-1] else None


class CoreCalibration:
    """One calibration of one CPU device."""

    def __init__(self, ffmpeg: str, *, core_count: int, work: Path, bounds: CalibrationBounds, clock: Clock) -> None:
        """Prepares; nothing runs yet.

        Args:
            ffmpeg: The program.
            core_count: Cores of the device, to which this process is pinned.
            work: An empty folder for inputs.
            bounds: How long to measure.
            clock: Measures that.
        """
        self._ffmpeg = ffmpeg
        self._cores = core_count
        self._streams = min(core_count, _MOST_STREAMS)
        self._threads = max(1, core_count // self._streams)
        self._work = work
        self._window_s = bounds.window.total_seconds()
        self._rounds = bounds.rounds
        self._until_s = clock.monotonic_s() + bounds.limit.total_seconds()
        self._clock = clock
        self._pictured = False

    async def measure(
        self, steps: Sequence[CalibrationStep], report: Callable[[CalibrationProgress], None]
    ) -> tuple[CalibrationFigure, ...]:
        """Measures steps in rounds until all rounds are done and samples agree, or the time is up.

        Returns:
            A figure for each step, in order.
        """
        trials = [_Trial(step=step) for step in steps]
        turns = [(number, trial) for number in range(self._rounds) for trial in trials]
        # What there is when the time is up is told, and what is not there has its problem.
        with suppress(TimeoutError):
            for done, (number, trial) in enumerate(turns):
                told = f"{trial.step}, {number + 1} of {self._rounds}"
                report(CalibrationProgress(step=done, step_count=len(turns), message=told))
                await self._in_time(self._sample if number else self._prepare, trial)
            done = len(turns)
            for _ in range(self._rounds, _MOST_TIMES_ROUNDS * self._rounds):
                apart = [trial for trial in trials if self._is_apart(trial)]
                for place, trial in enumerate(apart):
                    told = f"{trial.step}, once more: its figures do not agree"
                    report(CalibrationProgress(step=done + place, step_count=done + len(apart), message=told))
                    await self._in_time(self._sample, trial)
                done += len(apart)
        return tuple(self._figure(trial) for trial in trials)

    async def _in_time(self, measure: Callable[[_Trial], Awaitable[None]], trial: _Trial) -> None:
        """Measures a step while there is time.

        Raises:
            TimeoutError: There is none, or none any more.
        """
        left_s = self._until_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise TimeoutError
        async with asyncio.timeout(left_s):
            await measure(trial)

    async def _prepare(self, trial: _Trial) -> None:
        """Makes what a step reads, finds out how many pictures make a run of the right length, and does the first."""
        fewest = FIRST_FRAMES[trial.step.work]
        trial.path, problem = await self._input(trial.step)
        if not problem:
            problem = await self._start(trial)
        if not problem:
            rough_s, problem = await self._core_seconds(trial, frames=fewest)
        if problem:
            trial.problem = problem
            return
        frames = (fewest - 1) * self._streams
        trial.rough = frames * core_step_pixels(trial.step) / _work_s(rough_s, trial.starts_s[0])
        wanted = self._window_s * trial.rough / core_step_pixels(trial.step)
        trial.frames = min(max(round(wanted), fewest), _MOST_FRAMES)
        trial.problem = ""
        if trial.frames == fewest:
            trial.runs_s.append(rough_s)
        else:
            await self._run_once(trial)

    async def _sample(self, trial: _Trial) -> None:
        """Measures once more. What fails now takes nothing away from what there is."""
        if trial.problem:
            return
        if not await self._start(trial):
            await self._run_once(trial)

    async def _start(self, trial: _Trial) -> str:
        """Measures what beginning takes; gives what kept it from that."""
        start_s, problem = await self._core_seconds(trial, frames=1)
        if not problem:
            trial.starts_s.append(start_s)
        return problem

    async def _run_once(self, trial: _Trial) -> None:
        run_s, problem = await self._core_seconds(trial, frames=trial.frames)
        if not problem:
            trial.runs_s.append(run_s)
        elif not trial.runs_s:
            trial.problem = problem

    def _is_apart(self, trial: _Trial) -> bool:
        return not trial.problem and agreeing(trial.samples(self._streams), self._rounds) is None

    def _figure(self, trial: _Trial) -> CalibrationFigure:
        """Gives the middle of the samples that agree; of others the middle of all, and that they do not."""
        if trial.problem:
            return CalibrationFigure(step=trial.step, problem=trial.problem)
        if trial.runs_s and max(trial.runs_s) <= _LEAST_S:
            return CalibrationFigure(step=trial.step, problem="no core time of the program was seen")
        samples = trial.samples(self._streams)
        near = agreeing(samples, min(self._rounds, len(samples)))
        problem = ""
        if near is None:
            apart = max(samples) / min(samples)
            problem = f"{len(samples)} samples are up to {apart:.2f} times apart; others were at work"
        elif not trial.runs_s:
            problem = "measured roughly, by a short run"
        elif len(samples) < self._rounds:
            problem = f"measured {len(samples)} times instead of {self._rounds}"
        return CalibrationFigure(
            step=trial.step,
            pixels_per_second=max(1, round(statistics.median(near or samples) * self._cores)),
            streams=self._streams,
            stream_size=SCALED_SIZE if trial.step.work is Work.SCALE else CORES_SIZE,
            problem=problem,
        )

    async def _input(self, step: CalibrationStep) -> tuple[str, str]:
        """Gives the path of what a step reads, or why there is none."""
        picture = str(self._work / "picture.yuv")
        if not self._pictured:
            problem = await self._make(picture_arguments(CORES_SIZE, picture))
            if problem:
                return picture, problem
            self._pictured = True
        if step.codec is None or step.work is not Work.DECODE:
            return picture, ""
        path = str(self._work / f"{step.codec}.mkv")
        return path, await self._make(sample_arguments(step.codec, CORES_SIZE, picture=picture, path=path))

    async def _make(self, arguments: list[str]) -> str:
        run = await self._run(arguments)
        return "" if run.exit_code == 0 else f"its input could not be made: {failure_line(run.exit_code, run.output)}"

    async def _core_seconds(self, trial: _Trial, *, frames: int) -> tuple[float, str]:
        """Runs every stream once, side by side; gives their core time together, or why one failed."""
        arguments = core_arguments(trial.step, trial.path, frames=frames, threads=self._threads)
        async with TaskGuard("calibration") as guard:
            tasks = [guard.spawn(self._run(arguments), name=f"stream {number}") for number in range(self._streams)]
            runs = [await task for task in tasks]
        for run in runs:
            if run.exit_code != 0 or run.processor_time is None:
                return 0.0, failure_line(run.exit_code, run.output)
        return sum(run.processor_time.total_seconds() for run in runs if run.processor_time is not None), ""

    async def _run(self, arguments: list[str]) -> ProgramRun:
        try:
            return await run_bounded(
                [self._ffmpeg, *arguments], timeout=_RUN_TIMEOUT, env=_ENVIRONMENT, dies_with_us=True
            )
        except OSError as error:
            return ProgramRun(exit_code=1, output=f"[error] {self._ffmpeg} cannot be started: {error}")
