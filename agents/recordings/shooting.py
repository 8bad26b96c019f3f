"""The commands of a recording on this agent's device: takes, pictures, joins; and what became of a take's ffmpeg."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import run_bounded
from agents.pipelines.exit_classification import ExitOutcome, classify_exit
from agents.pipelines.pipeline_error import PipelineError
from agents.pipelines.recording import PageSource
from agents.pipelines.recording_files import file_places, final_moves, take_files
from agents.pipelines.snapshots import snapshot_command, thumbnail_command
from agents.pipelines.takes import DisplayAccess, TakePlaces, build_take, recording_coders
from agents.recordings.failures import capture_ended
from agents.recordings.take_figures import FRAMES, IDLENESS, SILENCE
from agents.sessions.attempt import Failure
from agents.sessions.joining import plan_file, resolved
from agents.sessions.logs import read_tail
from agents.sessions.refusals import pipeline_refusal
from gpu_balancer.runtime.failures import Reason, RequestFailure
from gpu_balancer.runtime.ids import random_id
from gpu_balancer.runtime.redaction import Redactor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agents.displays.display import Display
    from agents.pipelines.capability import PipelineDevice
    from agents.pipelines.command import Command, OutputMove
    from agents.pipelines.recording import RecordingJob
    from agents.pipelines.recording_files import FinishStep
    from agents.pipelines.recording_report import SoundTiming
    from agents.recordings.sound_timings import SoundTimings
    from agents.recordings.state import Take
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import RecordingRecord

_LOG_LINES = 200
_ASKED_EVERY_S = 0.2
_SNAPSHOT_WITHIN = timedelta(seconds=4)
"""Less than the balancer waits for an agent, which would be blamed for its display otherwise."""
_THUMBNAIL_WITHIN = timedelta(seconds=10)
_PLANNED = DisplayAccess(name=":0", authority="/dev/null", sound_server="unix:/dev/null", sound_source="output.monitor")
"""Stands for the display that a recording will get."""


def access_to(display: Display) -> DisplayAccess:
    """Tells ffmpeg's side how to look at a display and hear it."""
    return DisplayAccess(
        name=display.name,
        capture_name=display.capture_name,
        authority=display.authority,
        sound_server=display.sound_server,
        sound_source=display.sound_source,
    )


class Shooting:
    """Makes commands for one device."""

    def __init__(
        self,
        device: Callable[[], PipelineDevice],
        *,
        browser: Callable[[], str],
        timings: SoundTimings,
        log_tail_lines: int,
    ) -> None:
        """Makes nothing yet.

        Args:
            device: Gives the device as it was proved; raises RequestFailure while that is not known.
            browser: Gives name and version of what shows pages; empty while there is none.
            timings: Know by how much sound is delayed.
            log_tail_lines: How many last lines of its log a failure carries.
        """
        self._device = device
        self._browser = browser
        self._timings = timings
        self._log_tail_lines = log_tail_lines

    async def ready(self) -> None:
        """Awaits that the device is known: a new agent may have to probe it first.

        Raises:
            RequestFailure: When the device cannot work.
        """
        while True:
            try:
                self._device()
            except RequestFailure as failure:
                if failure.retry_after is None:
                    raise
                await asyncio.sleep(_ASKED_EVERY_S)
            else:
                return

    def planned(self, job: RecordingJob, artifacts: Path) -> Command:
        """Builds the command of a first take, for a display that is not there yet.

        Raises:
            RequestFailure: When this device, or any, cannot do it.
        """
        return self._take(job, _PLANNED, artifacts.parent, artifacts, 1)

    def command(
        self,
        record: RecordingRecord,
        attempt: AttemptFolder,
        folder: AttemptFolder,
        display: Display,
        number: int,
        *,
        resumed_at: timedelta,
    ) -> Command:
        """Builds the command of a take, and makes the folders that it writes to. Blocks for the disk.

        Args:
            record: The recording.
            attempt: Its folder.
            folder: The take's.
            display: What is captured.
            number: Of the take.
            resumed_at: Where on the timeline of HLS it goes on.

        Raises:
            RequestFailure: When the device cannot do it.
            OSError: When a folder cannot be made.
        """
        command = self._take(record.job, access_to(display), folder.path, attempt.artifacts, number, resumed_at)
        for directory in command.directories:
            Path(directory).mkdir(parents=True, exist_ok=True)
        return command

    def sound_timing(self, job: RecordingJob) -> SoundTiming | None:
        """Tells how far sound is from its picture in takes that are made ready now. None: there is no sound.

        Raises:
            RequestFailure: When the device is not known, or cannot do it.
        """
        if not job.capture.sound:
            return None
        build = recording_coders(job, self._device()).build
        browser = self._browser() if isinstance(job.source, PageSource) else ""
        return self._timings.timing(browser=browser, ffmpeg=build.version)

    def moves(self, job: RecordingJob) -> tuple[OutputMove, ...]:
        """Gives the moves of all files under the output roots."""
        return final_moves(job)

    async def snapshot(self, job: RecordingJob, folder: AttemptFolder, display: Display, width: int | None) -> bytes:
        """Takes a picture of a display, as PNG.

        Raises:
            RequestFailure: When it cannot be taken.
        """
        access = access_to(display)
        path = folder.path / random_id(".snapshot-")
        build = recording_coders(job, self._device()).build
        command = snapshot_command(job.capture, build, access, width=width, path=str(path))
        try:
            run = await run_bounded(command.argv, timeout=_SNAPSHOT_WITHIN, env=command.env)
            if run.exit_code == 0:
                return await asyncio.to_thread(path.read_bytes)
            if run.exit_code is None:
                problem = f"its display did not answer within {_SNAPSHOT_WITHIN.total_seconds():g} s"
            else:
                problem = (run.output.strip().splitlines() or ["ffmpeg gave no reason"])[-1]
        except OSError as error:
            problem = error.strerror or str(error)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)
        raise RequestFailure(
            reason=Reason.SESSION_NOT_RECORDING,
            message=f"Cannot take a picture of sessions/{job.session}: {problem}. Try again.",
        )

    async def take_thumbnail(self, job: RecordingJob, display: Display, path: Path) -> bool:
        """Writes a small picture of a display. Returns whether it is there; one that is missing is no failure."""
        access = access_to(display)
        nascent = path.with_name(f".{path.name}")
        try:
            build = recording_coders(job, self._device()).build
            command = thumbnail_command(job.capture, build, access, path=str(nascent))
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
            run = await run_bounded(command.argv, timeout=_THUMBNAIL_WITHIN, env=command.env)
            if run.exit_code == 0:
                await asyncio.to_thread(nascent.replace, path)
        except (OSError, RequestFailure):
            return False
        return run.exit_code == 0

    def verdict(
        self, record: RecordingRecord, attempt: AttemptFolder, take: Take, exit_code: int | None, *, asked: bool
    ) -> Failure | None:
        """Tells whether a take's ffmpeg ended as it should. Blocks for the disk.

        Args:
            record: The recording.
            attempt: Its folder, with the log.
            take: What was captured.
            exit_code: How ffmpeg ended. None: that was not seen.
            asked: Whether it had been asked to end.

        Returns:
            Why it failed. None: it did not.
        """
        lines = read_tail(attempt.log, Redactor(record.secrets), _LOG_LINES)
        watermark = record.job.watermark
        outcome = classify_exit(
            exit_code=exit_code,
            stopping=asked,
            log_tail=lines,
            made_output=take.begun,
            captured=True,
            input_name=None if watermark is None else f"file:{watermark.path}",
        )
        shown = lines[-self._log_tail_lines :]
        if outcome.kind is ExitOutcome.FAILED:
            return Failure(
                reason=str(outcome.failure_reason), message=outcome.message, exit_code=exit_code, log_tail=shown
            )
        if asked:
            return None
        return capture_ended(exit_code, shown)

    async def finish_plan(
        self, record: RecordingRecord, folder: AttemptFolder, numbers: Sequence[int]
    ) -> tuple[FinishStep, ...]:
        """Plans how every file is made of the takes that can be played.

        Raises:
            RequestFailure: When the device is not known.
        """
        await self.ready()
        artifacts, ffmpeg = str(folder.artifacts), self.ffmpeg(record.job)
        found = take_files(record.job, numbers, artifacts_dir=artifacts)
        places = resolved(file_places(record.job, artifacts_dir=artifacts), record.output_moves)
        plans = [await plan_file(place, found[place.output], folder=folder, ffmpeg=ffmpeg) for place in places]
        return tuple(step for plan in plans for step in plan)

    def ffmpeg(self, job: RecordingJob) -> str:
        """Gives the path of the ffmpeg that a recording uses."""
        return recording_coders(job, self._device()).build.path

    def _take(
        self,
        job: RecordingJob,
        access: DisplayAccess,
        folder: Path,
        artifacts: Path,
        number: int,
        resumed_at: timedelta = timedelta(),
    ) -> Command:
        places = TakePlaces(
            artifacts_dir=str(artifacts),
            progress=str(folder / "progress"),
            frames=str(folder / FRAMES),
            silence=str(folder / SILENCE),
            idleness=str(folder / IDLENESS),
        )
        try:
            timing = self.sound_timing(job)
            return build_take(
                job,
                self._device(),
                access,
                places,
                number=number,
                sound_delay=timing.delay if timing is not None else timedelta(),
                resumed_at=resumed_at,
            )
        except PipelineError as error:
            raise pipeline_refusal(error, where="session.recording") from error
