"""Makes finished files of what was recorded, and keeps what explains a failure.

A recording's takes are good to play whenever they are cut. So nothing can be lost here: where a finished file cannot be
made, for want of disk for instance, the takes themselves are put in its place. All of it is done again by a successor
when the agent is killed in the middle.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from agents.pipelines.command import HlsPresentation
from agents.pipelines.hls import PLAYLIST
from agents.pipelines.job import HlsOutput
from agents.pipelines.outputs import TAKES_FOLDER
from agents.pipelines.recording_files import file_places
from agents.recordings.failures import not_finished
from agents.recordings.file_facts import describe_file
from agents.recordings.shortfalls import find_shortfalls
from agents.recordings.take_folder import remove_take_folders
from agents.sessions import joining
from agents.sessions.artifacts import list_artifacts
from agents.sessions.attempt import Ending
from agents.sessions.earlier_parts import parts_missing
from agents.sessions.endings import tidy_outputs
from agents.sessions.late_playlists import close_playlists
from agents.sessions.output_discards import discard_outputs, remove_artifacts, thrown_away
from agents.sessions.output_folders import unmark_presentations
from agents.sessions.output_moves import OutputMoveError, open_output
from agents.sessions.part_failures import in_parts, not_described, not_joined, not_placed, not_placed_at_all, together
from agents.sessions.processes import end_processes
from agents.sessions.salvage import salvage
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import BufferedReader

    from agents.deliveries.deliveries import Deliveries
    from agents.pipelines.recording_files import FinishStep
    from agents.pipelines.recording_report import RecordedFile
    from agents.recordings.shooting import Shooting
    from agents.recordings.stage import Stage
    from agents.recordings.state import RecordingEnd, RecordingState
    from agents.sessions.attempt import Condition, Failure
    from agents.sessions.fence import FenceHold
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import RecordingRecord
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_ENDED_WITHIN = timedelta(seconds=10)
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
    steps: tuple[FinishStep, ...] = ()
    """How files were made."""
    conditions: tuple[Condition, ...] = ()
    """What is to be known of them."""


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
        self,
        record: RecordingRecord,
        folder: AttemptFolder,
        state: RecordingState,
        fence: FenceHold,
        *,
        final: bool,
    ) -> Closed:
        """Joins takes to the files that were asked for and puts them in place.

        Args:
            record: What was asked for.
            folder: The attempt's.
            state: What was recorded.
            fence: The session's, held; whatever writes files inherits it.
            final: Whether nothing goes on with it. Else its playlists are left open.
        """
        began_s = self._clock.monotonic_s()
        await self._end_strays(folder)
        try:
            steps = await self._shooting.finish_plan(record, folder, [take.number for take in state.takes])
        except (RequestFailure, OSError) as error:
            # The takes stay where they are: whoever has the device working again can have them.
            return Closed(failure=not_finished(error, folder.artifacts / TAKES_FOLDER))
        still_open = await asyncio.to_thread(self._close_playlists, record, folder, final=final)
        outcomes = [(step, await self._made(step, folder, fence)) for step in steps]
        failures = [failure for _, failure in outcomes if failure is not None]
        made = [step for step, failure in outcomes if failure is None]
        # Before anything is removed.
        missing = await asyncio.to_thread(self._missing, record, folder) if final else ()
        placed, unplaced = await self._placed(made, folder)
        there = [step for step in steps if step.move is None or step in placed]
        files, lost = await self._described(there, made, record, folder)
        failures += [*unplaced, *lost]
        if final and not failures:
            outputs = file_places(record.job, artifacts_dir=str(folder.artifacts))
            failures += find_shortfalls(outputs, steps, files, state)
        passed = timedelta(seconds=self._clock.monotonic_s() - began_s)
        return Closed(
            files=tuple(file for file in files if file is not None),
            failure=together(failures),
            duration=passed,
            steps=tuple(made),
            conditions=(*missing, *in_parts(made, self._clock.now()), *still_open),
        )

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
            return Closed(conditions=(thrown_away(self._clock.now()),))
        return Closed()

    async def settle(self, record: RecordingRecord, folder: AttemptFolder) -> tuple[Condition, ...]:
        """Makes up for what was left undone when a recording failed, in case another attempt would go on with it.

        Returns:
            What is to be known of its playlists.
        """
        still_open = await asyncio.to_thread(self._close_playlists, record, folder, final=True)
        await self.send_copies(record, folder)
        return still_open

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
            await asyncio.to_thread(joining.tidy, closed.steps)
            await asyncio.to_thread(shutil.rmtree, folder.artifacts / TAKES_FOLDER, ignore_errors=True)

    async def _end_strays(self, folder: AttemptFolder) -> None:
        """Ends what a predecessor that was killed may have left running."""
        if not await end_processes(folder, within=_ENDED_WITHIN, clock=self._clock):
            _LOG.error("Cannot end everything that runs of %s", folder.key)

    async def _made(self, step: FinishStep, folder: AttemptFolder, fence: FenceHold) -> Failure | None:
        """Makes one file. Returns why it is not as it should be."""
        try:
            await joining.make(step, folder, fence)
        except OSError as error:
            _LOG.warning("Cannot finish %s of %s: %s", step.output, folder.key, error.strerror)
            return not_joined(step.output, error, await asyncio.to_thread(salvage, step, folder))
        return None

    async def _placed(
        self, made: Sequence[FinishStep], folder: AttemptFolder
    ) -> tuple[Sequence[FinishStep], list[Failure]]:
        try:
            placed, errors = await asyncio.to_thread(joining.place, made, folder)
        except OSError as error:
            return (), [not_placed_at_all(error, [step.made_path for step in made])]
        return placed, [not_placed(str(error), taken=error.taken) for error in errors]

    def _close_playlists(self, record: RecordingRecord, folder: AttemptFolder, *, final: bool) -> tuple[Condition, ...]:
        """Says in HLS playlists that nothing more will come: takes leave them open for the next one."""
        playlists = record.playlists or _playlists(record, folder)
        still_open = close_playlists(playlists, self._clock.now(), goes_on=not final)
        if final:
            unmark_presentations(record.presentations, folder.key.session)
        return still_open

    def _missing(self, record: RecordingRecord, folder: AttemptFolder) -> tuple[Condition, ...]:
        places = file_places(record.job, artifacts_dir=str(folder.artifacts))
        files = joining.resolved(places, record.output_moves)
        return parts_missing(files, folder, self._clock.now(), leaves_artifacts=True)

    async def _described(
        self, steps: Sequence[FinishStep], made: Sequence[FinishStep], record: RecordingRecord, folder: AttemptFolder
    ) -> tuple[tuple[RecordedFile | None, ...], list[Failure]]:
        """Tells what the files of steps are, and which of those that were made are gone or another's by now.

        Of one that could not be made there may be a take in its place, and it may be in several.
        """
        files: list[RecordedFile | None] = []
        lost, ffmpeg = [], self._shooting.ffmpeg(record.job)
        for step in steps:
            path, file = Path(step.final_path), None
            told = str(path) if step.move is not None else str(path.relative_to(folder.artifacts))
            try:
                with contextlib.ExitStack() as stack:
                    opened = await asyncio.to_thread(stack.enter_context, _opened(step))
                    file = await describe_file(opened, told=told, ffmpeg=ffmpeg)
            except OutputMoveError as error:
                lost.append(not_placed(str(error), taken=error.taken))
            except OSError as error:
                if step in made:
                    lost.append(not_described(told, error))
            files.append(file)
        return tuple(files), lost


@contextlib.contextmanager
def _opened(step: FinishStep) -> Iterator[BufferedReader]:
    if step.move is not None:
        with open_output(step.move) as file:
            yield file
    else:
        with Path(step.final_path).open("rb") as file:
            yield file


def is_final(record: RecordingRecord, end: RecordingEnd | None) -> bool:
    """Tells whether nothing goes on with what a recording has made: it has not failed, or may not be continued."""
    return not record.may_continue or end is None or end.failure is None


def _playlists(record: RecordingRecord, folder: AttemptFolder) -> tuple[HlsPresentation, ...]:
    """Finds the playlists of a recording that an older agent has launched."""
    found = [folder.artifacts / output.path for output in record.job.outputs if isinstance(output, HlsOutput)]
    return tuple(
        HlsPresentation(
            folder=str(path),
            variants=tuple(playlist.parent.name for playlist in path.glob(f"*/{PLAYLIST}")),
            window=None,
            part=None,
        )
        for path in found
    )
