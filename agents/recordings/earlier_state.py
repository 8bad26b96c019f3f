"""Where the attempt stood that a recording goes on with: what its agent wrote down, and what its ffmpegs did since."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from agents.recordings.state import RecordingState, read_state
from agents.recordings.take_figures import TakeFigures
from agents.recordings.take_folder import take_folder
from agents.sessions.attempt import AttemptKey
from agents.sessions.folder import AttemptFolder
from agents.sessions.records import RecordUnreadableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agents.sessions.continuation import EarlierAttempt


def state_before(folder: AttemptFolder, earlier: Sequence[EarlierAttempt]) -> RecordingState:
    """Gives where the latest of the earlier attempts stood whose folder can be read. Blocks for the disk.

    Args:
        folder: Of the attempt that goes on; its fence is held, so nothing of the others runs.
        earlier: Those that it goes on with.

    Returns:
        The state, of which each take tells all that its ffmpeg reported. That of a recording which has not begun: none
        can be read.
    """
    known = [one for one in earlier if one.folder]
    for one in sorted(known, key=lambda attempt: attempt.attempt, reverse=True):
        source = AttemptFolder(path=Path(one.folder), key=AttemptKey(session=folder.key.session, attempt=one.attempt))
        with contextlib.suppress(RecordUnreadableError, OSError):
            return _with_all_told(read_state(source), source)
    return RecordingState()


def _with_all_told(state: RecordingState, source: AttemptFolder) -> RecordingState:
    """Reads what takes reported that no agent has seen the end of: it may have been killed before they were."""
    for take in state.takes:
        if not take.ended:
            figures = TakeFigures(take_folder(source, take.number), take)
            with contextlib.suppress(OSError):
                figures.read(0.0)
            if figures.take.is_beyond(take):
                state = state.with_take(figures.take)
    return state
