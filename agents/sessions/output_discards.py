"""Throws away what an attempt made, so that the next one can write to the same places.

What stands outside of the attempt's folder goes before its end is told, because the next attempt may begin right then.
Artifacts stand in the attempt's own folder, where nobody else writes: they go after it.
"""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

from agents.sessions.attempt import Condition
from agents.sessions.output_folders import remove_presentation
from agents.sessions.output_moves import remove_parts

if TYPE_CHECKING:
    from datetime import datetime

    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import AnyRecord

_LOG = logging.getLogger(__name__)


def discard_outputs(folder: AttemptFolder, launch: AnyRecord) -> None:
    """Removes an attempt's unfinished files and its HLS presentations outside of its artifacts. May be repeated."""
    remove_parts(launch.every_move, only_empty=False)
    for presentation in launch.presentations:
        try:
            remove_presentation(presentation)
        except OSError as error:
            where = f"{presentation.parent.path}/{presentation.name}"
            _LOG.warning("Cannot remove what %s made in %s: %s", folder.key, where, error.strerror)


def thrown_away(now: datetime) -> Condition:
    """Tells of it, in case no other attempt begins after all: a client may stop the session at that very moment."""
    return Condition(
        type="OUTPUTS_DISCARDED",
        message="What it had made was thrown away, because another attempt was to begin anew.",
        since_time=now,
    )


def remove_artifacts(folder: AttemptFolder) -> None:
    """Removes an attempt's artifacts. May be repeated."""
    shutil.rmtree(folder.artifacts, ignore_errors=True)
