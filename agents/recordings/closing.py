"""Makes finished files of what was recorded, and keeps what explains a failure.

A recording's takes are good to play whenever they are cut. So nothing can be lost here: where a finished file cannot be
made, for want of disk for instance, the takes themselves are put in its place. All of it is done again by a successor
when the agent is killed in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.bounded_program import run_bounded
from agents.pipelines.hls import PLAYLIST, ended_playlist
from agents.pipelines.job import HlsOutput
from agents.pipelines.outputs import TAKES_FOLDER
from agents.recordings.failures import not_finished, not_joined, not_placed
from agents.recordings.file_facts import checksum, describe_file
from agents.recordings.take_folder import remove_take_folders
from agents.sessions.artifacts import list_artifacts
from agents.sessions.attempt import Ending
from agents.sessions.endings import tidy_outputs
from agents.sessions.output_discards import discard_outputs, remove_artifacts
from agents.sessions.output_moves import OutputMoveError, place_outputs
from agents.sessions.processes import end_processes
from gpu_balancer.runtime.durable_file import flush_folder, write_durably
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from agents.deliveries.deliveries import Deliveries
    from agents.pipelines.recording_files import FinishStep
    from agents.pipelines.recording_report import RecordedFile
    from agents.recordings.shooting import Shooting
    from agents.recordings.stage import Stage
    from agents.recordings.state import RecordingState
    from agents.sessions.attempt import Failure
    from agents.sessions.fence import FenceHold
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import RecordingRecord
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_PLAYLIST_MODE = 0o644
_ENDED_WITHIN = timedelta(seconds=10)
_JOINED_WITHIN = timedelta(hours=1)
"""Copying runs at the disk's pace; a day of recording at 8 Mbit/s are 86 GB."""
EVIDENCE = "failure.png"
"""Artifact that explains a failure: the page as it was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """What came of a recording."""

    files: tuple[RecordedFile, ...] = ()
    failure: Failure | None = None
    """Why a file is not what or where it was to be. None: each is."""
    duration: timedelta | None = None
    """How long it took. None: there was nothing to finish."""


class Closing:
    """Makes finished files."""

    def __init__(self, shooting: Shooting, deliveries: Deliveries, *, clock: Clock) -> None:
        """Makes nothing yet.

        Args:
            shooting: Plans how files are joined.
            deliveries: Copies them to destinations.
            clock: Measures how long it takes.
        """
        self._shooting = shooting
        self._deliveries = deliveries
        self._clock = clock

    async def keep_evidence(self, record: RecordingRecord, folder: AttemptFolder, stage: Stage) -> None:
        """Keeps a picture of the page that failed, or else of the display, if one can still be had."""
        place = folder.artifacts / EVIDENCE
        with contextlib.suppress(OSError, RequestFailure):
            await stage.save_screenshot(place)
            if stage.display is not None and not await asyncio.to_thread(place.exists):
                picture = await self._shooting.snapshot(record.job, folder, stage.display, None)
                await asyncio.to_thread(place.write_bytes, picture)

    async def finish(
        self, record: RecordingRecord, folder: AttemptFolder, state: RecordingState, fence: FenceHold
    ) -> Closed:
        """Joins takes to the files that were asked for and puts them in place.

        Args:
            record: What was asked for.
            folder: The attempt's.
            state: What was recorded.
            fence: The session's, held; whatever writes files inherits it.
        """
        began_s = self._clock.monotonic_s()
        await self._end_strays(folder)
        try:
            steps = await self._shooting.finish_plan(record, folder, [take.number for take in state.takes])
        except (RequestFailure, OSError) as error:
            # The takes stay where they are: whoever has the device working again can have them.
            return Closed(failure=not_finished(error, folder.artifacts / TAKES_FOLDER))
        await asyncio.to_thread(_end_playlists, record, folder)
        failures = [failure for step in steps if (failure := await self._made(step, folder, fence)) is not None]
        if (failure := await self._placed(record)) is not None:
            failures.append(failure)
        files = [file for step in steps if (file := await self._described(step, record, folder)) is not None]
        passed = timedelta(seconds=self._clock.monotonic_s() - began_s)
        return Closed(files=tuple(files), failure=failures[0] if failures else None, duration=passed)

    async def leave(self, record: RecordingRecord, folder: AttemptFolder, *, discard: bool) -> Closed:
        """Ends a recording of which there is nothing to finish.

        Args:
            record: What was asked for.
            folder: The attempt's.
            discard: Whether what it made is thrown away, because another attempt begins anew.
        """
        await self._end_strays(folder)
        if discard:
            await asyncio.to_thread(discard_outputs, folder, record)
        return Closed()

    async def send_copies(self, record: RecordingRecord, folder: AttemptFolder) -> None:
        """Has every artifact copied to the destinations that were asked for. Durable before the end is told."""
        job = record.job
        if not job.destinations:
            return
        found = await asyncio.to_thread(list_artifacts, folder.artifacts)
        paths = [artifact.path for artifact in found]
        try:
            await self._deliveries.begin(job.session, job.attempt, folder.artifacts, paths, job.destinations)
        except OSError as error:
            _LOG.error("Cannot note that %s is to be copied: %s", folder.key, error.strerror)

    async def tidy(self, record: RecordingRecord, folder: AttemptFolder, closed: Closed, *, discarded: bool) -> None:
        """Takes away what is not needed any more, once the end is written down."""
        await asyncio.to_thread(remove_take_folders, folder)
        if discarded:
            await asyncio.to_thread(remove_artifacts, folder)
            return
        await asyncio.to_thread(tidy_outputs, record, Ending.COMPLETED if closed.failure is None else Ending.FAILED)
        if closed.failure is None:
            await asyncio.to_thread(shutil.rmtree, folder.artifacts / TAKES_FOLDER, ignore_errors=True)

    async def _end_strays(self, folder: AttemptFolder) -> None:
        """Ends what a predecessor that was killed may have left running."""
        if not await end_processes(folder, within=_ENDED_WITHIN, clock=self._clock):
            _LOG.error("Cannot end everything that runs of %s", folder.key)

    async def _made(self, step: FinishStep, folder: AttemptFolder, fence: FenceHold) -> Failure | None:
        """Makes one file. Returns why it is not as it should be."""
        try:
            if await asyncio.to_thread(_is_made, step):
                return None
            await asyncio.to_thread(_prepare, step)
            for command in step.commands:
                run = await run_bounded(command, timeout=_JOINED_WITHIN, inherited=(fence.descriptor,))
                if run.exit_code != 0:
                    raise OSError(None, run.output.strip()[-500:] or "the joining took too long")
            if step.move is None:
                await asyncio.to_thread(_put, Path(step.made_path), Path(step.final_path))
        except OSError as error:
            _LOG.warning("Cannot finish %s of %s: %s", step.output, folder.key, error.strerror)
            return await asyncio.to_thread(_salvaged, step, folder, error)
        finally:
            await asyncio.to_thread(_remove, step.scratch)
        return None

    async def _placed(self, record: RecordingRecord) -> Failure | None:
        try:
            await asyncio.to_thread(place_outputs, record.output_moves, all_made=False)
        except OutputMoveError as error:
            return not_placed(str(error), taken=error.taken)
        return None

    async def _described(self, step: FinishStep, record: RecordingRecord, folder: AttemptFolder) -> RecordedFile | None:
        path = Path(step.final_path)
        told = str(path) if step.move is not None else str(path.relative_to(folder.artifacts))
        try:
            digest = await asyncio.to_thread(checksum, path)
            return await describe_file(path, told=told, sha256=digest, ffmpeg=self._shooting.ffmpeg(record.job))
        except OSError:
            return None


def _end_playlists(record: RecordingRecord, folder: AttemptFolder) -> None:
    """Says in HLS playlists that nothing more will come: takes leave them open for the next one."""
    for output in record.job.outputs:
        if not isinstance(output, HlsOutput):
            continue
        for playlist in (folder.artifacts / output.path).glob(f"*/{PLAYLIST}"):
            try:
                text = playlist.read_text("utf-8")
                if (ended := ended_playlist(text)) != text:
                    write_durably(playlist, ended.encode(), mode=_PLAYLIST_MODE)
            except (OSError, ValueError) as error:
                _LOG.warning("Cannot end %s of %s: %s", playlist, folder.key, error)


def _is_made(step: FinishStep) -> bool:
    """Tells whether a predecessor has made an artifact: it gets its name only when it is complete."""
    return step.move is None and Path(step.final_path).is_file()


def _remove(paths: tuple[str, ...]) -> None:
    for path in paths:
        Path(path).unlink(missing_ok=True)


def _prepare(step: FinishStep) -> None:
    for directory in step.directories:
        Path(directory).mkdir(parents=True, exist_ok=True)
    for path, text in step.texts.items():
        write_durably(Path(path), text.encode())


def _put(made: Path, final: Path) -> None:
    """Gives a finished artifact its name, durably."""
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(final)
    flush_folder(final.parent)


def _salvaged(step: FinishStep, folder: AttemptFolder, error: OSError) -> Failure:
    """Puts the takes themselves where the finished file should be. Returns what there is now instead of it."""
    final = Path(step.final_path) if step.move is None else folder.artifacts / Path(step.final_path).name
    places = []
    for number, take in enumerate(step.takes, start=1):
        place = final if len(step.takes) == 1 else final.with_name(f"{final.stem}.part-{number}{final.suffix}")
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            Path(take).replace(place)
            places.append(str(place.relative_to(folder.artifacts)))
    return not_joined(step.output, error, places)
