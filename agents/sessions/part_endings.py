"""What becomes of a transcode's outputs at its end: files are joined with what earlier attempts made of them."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from agents.sessions import joining
from agents.sessions.attempt import Condition, Ending
from agents.sessions.earlier_parts import earlier_parts, parts_missing
from agents.sessions.late_playlists import PLAYLISTS_OPEN, close_playlists
from agents.sessions.output_folders import unmark_presentations
from agents.sessions.part_failures import (
    UNFINISHED_FILES,
    in_parts,
    not_joined,
    not_placed,
    not_placed_at_all,
    together,
    unfinished_files,
)
from agents.sessions.torn_files import mend_files

if TYPE_CHECKING:
    from collections.abc import Sequence
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
    if conclusion.ending is Ending.FAILED:
        await asyncio.to_thread(mend_files, launch, folder)
    if not goes_on:
        # Before anything is removed.
        missing = await asyncio.to_thread(
            parts_missing, launch.files, folder, now, leaves_artifacts=launch.leaves_artifacts
        )
        conclusion = _with_conditions(conclusion, missing)
        if conclusion.ending is Ending.FAILED and not launch.files:
            unfinished = await asyncio.to_thread(unfinished_files, launch, now)
            conclusion = _with_conditions(conclusion, unfinished, anew=UNFINISHED_FILES)
    if launch.files and not goes_on:
        conclusion, steps = await _join_parts(launch, folder, conclusion, fence, now)
    # Of a film that broke off elsewhere than on a full disk nothing says that it is whole.
    torn = launch.hls_folders if conclusion.failure is not None and conclusion.failure.reason == "DISK_FULL" else ()
    still_open = await asyncio.to_thread(close_playlists, launch.playlists, now, goes_on=goes_on, torn=torn)
    conclusion = _with_conditions(conclusion, still_open, anew=PLAYLISTS_OPEN)
    done = conclusion.ending is Ending.COMPLETED and not launch.may_continue
    if not goes_on and (conclusion.ending is Ending.STOPPED or done):
        # Of what failed the mark stays: another attempt may begin anew there.
        await asyncio.to_thread(unmark_presentations, launch.presentations, folder.key.session)
    return conclusion, steps


def _with_conditions(conclusion: Conclusion, told: Sequence[Condition], *, anew: str = "") -> Conclusion:
    """Adds conditions, each in the place of one of its type that was told when outputs were finished before.

    One of the type `anew` goes also when it is not told again: it has become untrue.
    """
    types = {anew, *(condition.type for condition in told)}
    kept = [condition for condition in conclusion.conditions if condition.type not in types]
    return replace(conclusion, conditions=(*kept, *told))


async def _join_parts(
    launch: LaunchRecord, folder: AttemptFolder, conclusion: Conclusion, fence: FenceHold, now: datetime
) -> tuple[Conclusion, tuple[FinishStep, ...]]:
    made, failures = await _made(launch, folder, fence)
    placed: tuple[FinishStep, ...] = ()
    try:
        placed, errors = await asyncio.to_thread(joining.place, made, folder)
        failures += [not_placed(str(error), taken=error.taken) for error in errors]
    except OSError as error:
        failures.append(not_placed_at_all(error, [step.made_path for step in made]))
    conclusion = _with_conditions(conclusion, in_parts(placed, now))
    if failures:
        told = [] if conclusion.failure is None else [conclusion.failure]
        conclusion = replace(conclusion, ending=Ending.FAILED, failure=together([*told, *failures]))
    return conclusion, placed


async def _made(
    launch: LaunchRecord, folder: AttemptFolder, fence: FenceHold
) -> tuple[list[FinishStep], list[Failure]]:
    """Makes every file that can be made. Gives those, and why others cannot."""
    made: list[FinishStep] = []
    failures: list[Failure] = []
    ffmpeg = launch.argv[0]
    for file in launch.files:
        try:
            steps = await joining.plan_file(file, [file.own_path], folder=folder, ffmpeg=ffmpeg)
        except OSError as error:
            earlier = await asyncio.to_thread(earlier_parts, file, folder)
            kept = [*(path for _, path in earlier), file.own_path]
            failures.append(not_joined(file.output, error, _shown(kept, folder)))
            continue
        for step in steps:
            try:
                await joining.make(step, folder, fence)
                made.append(step)
            except OSError as error:
                _LOG.warning("Cannot finish %s of %s: %s", step.output, folder.key, error.strerror)
                failures.append(not_joined(step.output, error, _shown(step.takes, folder)))
    return made, failures


def _shown(paths: Sequence[str], folder: AttemptFolder) -> list[str]:
    """Gives paths as clients know them: of artifacts, inside the artifacts."""
    return [path.removeprefix(f"{folder.artifacts}/") for path in paths]


def joining_condition(now: datetime) -> Condition:
    """Gives the condition of an attempt while its parts of files are joined with earlier ones."""
    return Condition(type="FINALISING", message="Joining what several attempts have made.", since_time=now)
