"""What becomes of a transcode's outputs at its end: files are joined with what earlier attempts made of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agents.sessions import joining
from agents.sessions.attempt import Condition, Ending
from agents.sessions.live_playlists import LivePlaylists
from agents.sessions.output_folders import unmark_presentations
from agents.sessions.output_moves import OutputMoveError
from agents.sessions.part_failures import not_joined, not_placed

if TYPE_CHECKING:
    from datetime import datetime

    from agents.pipelines.recording_files import FinishStep
    from agents.sessions.attempt import Failure
    from agents.sessions.endings import Conclusion
    from agents.sessions.fence import FenceHold
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import LaunchRecord

_LOG = logging.getLogger(__name__)


async def finish_outputs(
    launch: LaunchRecord,
    folder: AttemptFolder,
    conclusion: Conclusion,
    fence: FenceHold,
    now: datetime,
    *,
    goes_on: bool,
) -> tuple[Conclusion, tuple[FinishStep, ...]]:
    """Joins files with what earlier attempts have made, and says in HLS playlists that nothing more comes.

    May be repeated.

    Args:
        launch: How the attempt was launched.
        folder: Its folder.
        conclusion: How its program ended.
        fence: The session's, held.
        now: The time.
        goes_on: Whether another attempt may go on with them. Then nothing of that is done.

    Returns:
        How the attempt ended, and what is to be tidied up once that is told.
    """
    steps: tuple[FinishStep, ...] = ()
    if launch.files and not goes_on:
        conclusion, steps = await _join_parts(launch, folder, conclusion, fence, now)
    await asyncio.to_thread(_close_playlists, launch, ended=not goes_on)
    if not goes_on and (conclusion.ending is Ending.STOPPED or not launch.may_continue):
        await asyncio.to_thread(unmark_presentations, launch.presentations, folder.key.session)
    return conclusion, steps


async def _join_parts(
    launch: LaunchRecord, folder: AttemptFolder, conclusion: Conclusion, fence: FenceHold, now: datetime
) -> tuple[Conclusion, tuple[FinishStep, ...]]:
    made: list[FinishStep] = []
    failure: Failure | None = None
    ffmpeg = launch.argv[0]
    for file in launch.files:
        try:
            steps = await joining.plan_file(file, [file.own_path], folder=folder, ffmpeg=ffmpeg)
        except OSError as error:
            failure = failure or not_joined(file.output, error, ())
            continue
        for step in steps:
            try:
                await joining.make(step, folder, fence)
                made.append(step)
            except OSError as error:
                _LOG.warning("Cannot finish %s of %s: %s", step.output, folder.key, error.strerror)
                kept = [path.removeprefix(f"{folder.artifacts}/") for path in step.takes]
                failure = failure or not_joined(step.output, error, kept)
    try:
        await asyncio.to_thread(joining.place, made, folder)
    except OutputMoveError as error:
        failure = failure or not_placed(str(error), taken=error.taken)
    except OSError as error:
        failure = failure or not_placed(f"Cannot put files in place: {error.strerror}.", taken=False)
    if failure is not None:
        return replace(conclusion, ending=Ending.FAILED, failure=conclusion.failure or failure), ()
    return replace(conclusion, conditions=joining.in_parts(made, now)), tuple(made)


def _close_playlists(launch: LaunchRecord, *, ended: bool) -> None:
    playlists = LivePlaylists(launch.playlists)
    try:
        playlists.end() if ended else playlists.update()
    except OSError as error:
        _LOG.error("Cannot end playlists: %s: %s", error.strerror, error.filename)


def joining_condition(now: datetime) -> Condition:
    """Gives the condition of an attempt while its parts of files are joined with earlier ones."""
    return Condition(type="FINALISING", message="Joining what several attempts have made.", since_time=now)
