"""Reads what an ffmpeg writes while it captures a take: how far it is, each picture's truth, silence and stillness."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.frame_lines import parse_frame_lines
from agents.pipelines.stillness import parse_stillness
from agents.sessions.growing_text import GrowingText
from agents.sessions.progress_file import ProgressFile

if TYPE_CHECKING:
    from agents.pipelines.frame_lines import FrameTruth
    from agents.pipelines.progress import Progress
    from agents.pipelines.recording import StopRules
    from agents.pipelines.stillness import Stillness
    from agents.recordings.state import Take
    from agents.sessions.folder import AttemptFolder

FRAMES, SILENCE, IDLENESS = "frames", "silence", "idleness"
"""Names of files in a take's folder."""


class TakeFigures:
    """What is known of one take. A successor that reads a long take sees what is kept of its files."""

    def __init__(self, folder: AttemptFolder, take: Take) -> None:
        """Reads nothing yet.

        Args:
            folder: The take's own.
            take: What is known of it.
        """
        self.take = take
        self.progress: Progress | None = None
        self._told_s: float | None = None
        self._progress_file = ProgressFile(folder.progress)
        self._frames = GrowingText(folder.path / FRAMES)
        self._truth: FrameTruth | None = None
        self._frames_left = ""
        self._still = {name: _StillnessFile(GrowingText(folder.path / name)) for name in (SILENCE, IDLENESS)}

    def read(self, at_s: float) -> bool:
        """Reads what is new. Returns whether anything is.

        Args:
            at_s: Monotonic seconds now.

        Raises:
            OSError: When a file cannot be read.
        """
        progress = self._progress_file.read(self.progress)
        self._progress_file.bound()
        self._truth, self._frames_left = parse_frame_lines(self._frames_left + self._frames.read(), self._truth)
        self._frames.bound()
        for still in self._still.values():
            still.read()
        if progress is None or progress is self.progress:
            return False
        self.progress = progress
        self._told_s = at_s - self._progress_file.unread_s
        self.take = self._known(progress)
        return True

    def first_picture_age(self, at_s: float) -> timedelta | None:
        """Tells how long ago the first picture was taken, as the latest report tells. None: there is none.

        What is captured is captured in real time, so it is as old as the report says that there is of it.

        Args:
            at_s: Monotonic seconds now.
        """
        if self._told_s is None or not self.take.begun:
            return None
        return self.take.out_time + timedelta(seconds=at_s - self._told_s)

    def out_time_at(self, at_s: float) -> timedelta:
        """Estimates how much there is of it at a time: what was told last, and what has passed since.

        It is recorded in real time: an ffmpeg that hangs makes up for it when it goes on, or is told to end.

        Args:
            at_s: Monotonic seconds.
        """
        if self._told_s is None or not self.take.begun:
            return self.take.out_time
        return self.take.out_time + timedelta(seconds=max(at_s - self._told_s, 0.0))

    def end_by(self, rules: StopRules) -> str | None:
        """Tells by which of its rules the recording is to end. None: by none."""
        now = self.take.out_time
        for name, cause, bound in ((SILENCE, "SILENCE", rules.silence), (IDLENESS, "IDLE", rules.idle)):
            since = self._still[name].since
            if bound is not None and since is not None and now - since >= bound:
                return cause
        return None

    def _known(self, progress: Progress) -> Take:
        take = replace(
            self.take,
            frames=progress.frames,
            duplicated_frames=progress.duplicated_frames,
            dropped_frames=progress.dropped_frames,
            out_time=progress.out_time,
        )
        truth = self._truth
        if truth is None or not truth.encoded_frames:
            return take
        longest = max(truth.longest_freeze, take.longest_freeze or timedelta())
        if truth.encoded_frames < progress.frames:
            # A predecessor has read the beginning, or the last lines are still to come.
            return replace(take, longest_freeze=longest)
        return replace(
            take,
            frames=truth.encoded_frames,
            duplicated_frames=truth.duplicated_frames,
            dropped_frames=truth.dropped_frames,
            longest_freeze=longest,
        )


class _StillnessFile:
    """The file of one detector."""

    def __init__(self, text: GrowingText) -> None:
        self._text = text
        self._left = ""
        self._known: Stillness | None = None

    @property
    def since(self) -> timedelta | None:
        """Media time from which on it is still. None: it is not."""
        return self._known.since if self._known is not None else None

    def read(self) -> None:
        self._known, self._left = parse_stillness(self._left + self._text.read(), self._known)
        self._text.bound()
