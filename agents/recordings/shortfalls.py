"""What is not in the files of a recording although it was recorded: a disk has lost it, or somebody has."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from agents.pipelines.job import Container
from agents.recordings.failures import cut_short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.pipelines.command import FileParts
    from agents.pipelines.recording_files import FinishStep
    from agents.pipelines.recording_report import RecordedFile
    from agents.recordings.state import RecordingState
    from agents.sessions.attempt import Failure

_MAY_LACK = timedelta(seconds=2)
"""What an ffmpeg that hung had not written when it was ended."""
_ROUNDED = timedelta(seconds=0.1)
"""Each take's length, and where its sound ends beside its pictures."""
_TIMED = (Container.MP4, Container.MKV)
"""Containers that say how long they are."""


def find_shortfalls(
    outputs: Sequence[FileParts],
    steps: Sequence[FinishStep],
    files: Sequence[RecordedFile | None],
    state: RecordingState,
) -> list[Failure]:
    """Compares the files of a recording that has ended in order with what its ffmpegs told to have recorded.

    Args:
        outputs: The files that were asked for.
        steps: How they were made; each was, and stands where it was to be.
        files: What came of each step.
        state: What was recorded. Of earlier attempts, which are not in it, nothing is asked.
    """
    if state.end is not None and state.end.failure is not None:
        return []  # That tells of it.
    recorded = sum((take.out_time for take in state.takes if take.begun), timedelta())
    least = recorded - _MAY_LACK - _ROUNDED * len(state.takes)
    found = []
    for output in outputs:
        own = [(step, file) for step, file in zip(steps, files, strict=True) if step.output == output.output]
        lengths = [file.duration for step, file in own if file is not None and file.duration and step.whole]
        if own and (len(lengths) < len(own) or output.container not in _TIMED):
            continue  # It stays in parts, or cannot be looked at, or does not say.
        if (length := sum(lengths, timedelta())) < least:
            found.append(cut_short(output.output, length, recorded))
    return found
