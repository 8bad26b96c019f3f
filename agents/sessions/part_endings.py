"""Joins what a transcode has written with what earlier attempts of its session have, at its end."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agents.sessions import joining
from agents.sessions.attempt import Ending
from agents.sessions.output_moves import OutputMoveError
from agents.sessions.part_failures import not_joined, not_placed

if TYPE_CHECKING:
    from datetime import datetime

    from agents.pipelines.recording_files import FinishStep
    from agents.sessions.attempt import Failure
    from agents.sessions.endings import Conclusion
    from agents.sessions.fence import FenceHold
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.live_playlists import LivePlaylists
    from agents.sessions.records import LaunchRecord

_LOG = logging.getLogger(__name__)


async def join_parts(
    launch: LaunchRecord, folder: AttemptFolder, conclusion: Conclusion, fence: FenceHold, now: datetime
) -> tuple[Conclusion, tuple[FinishStep, ...]]:
    """Makes every file of its parts and puts it in place. May be repeated.

    Args:
        launch: How the attempt was launched.
        folder: Its folder.
        conclusion: How its program ended; well.
        fence: The session's, held.
        now: The time.

    Returns:
        How the attempt ended, and what is to be tidied up once that is told.
    """
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
        return replace(conclusion, ending=Ending.FAILED, failure=failure), ()
    return replace(conclusion, conditions=joining.in_parts(made, now)), tuple(made)


def close_playlists(playlists: LivePlaylists, launch: LaunchRecord, conclusion: Conclusion) -> None:
    """Says in HLS playlists that nothing more comes, unless another attempt may go on with them. Blocks."""
    try:
        if conclusion.ending is Ending.FAILED and launch.may_continue:
            playlists.update()
        else:
            playlists.end()
    except OSError as error:
        _LOG.error("Cannot end playlists: %s: %s", error.strerror, error.filename)
