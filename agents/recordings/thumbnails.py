"""Small pictures of a recording, one each so much recorded time, among its artifacts."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.displays.display import Display
    from agents.pipelines.recording import RecordingJob
    from agents.recordings.shooting import Shooting
    from agents.sessions.folder import AttemptFolder

_FOLDER = "thumbnails"


def last_thumbnail(folder: AttemptFolder) -> int:
    """Gives the number of the last thumbnail that is there. 0: there is none."""
    found = (folder.artifacts / _FOLDER).glob("*.jpg")
    return max((int(path.stem) for path in found if path.stem.isdecimal()), default=0)


class Thumbnails:
    """The thumbnails of one recording. Those for which no agent was there are left out, and so are their numbers."""

    def __init__(self, shooting: Shooting, folder: AttemptFolder) -> None:
        """Takes none yet.

        Args:
            shooting: Takes them.
            folder: The attempt's.
        """
        self._shooting = shooting
        self._folder = folder.artifacts / _FOLDER
        self._last = -1

    async def take_due(self, job: RecordingJob, display: Display, recorded: timedelta, *, before: int = 0) -> None:
        """Takes the one that is due, if there is one.

        Args:
            job: Tells how often.
            display: What is recorded.
            recorded: How much has been recorded.
            before: How many earlier attempts have taken.
        """
        if job.thumbnail_interval is None or not recorded:
            return
        number = recorded // job.thumbnail_interval
        if number == self._last:
            return
        self._last = number
        path = self._folder / f"{before + number + 1:05}.jpg"
        if not await asyncio.to_thread(path.exists):
            await self._shooting.take_thumbnail(job, display, path)
