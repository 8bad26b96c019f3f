"""What the parts of a recording's direction share: where it stands, and why it ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agents.recordings.state import RecordingEnd
from agents.sessions.fence import AttemptFence

if TYPE_CHECKING:
    from agents.displays.display import Display
    from agents.recordings.narration import Narration
    from agents.recordings.stage import Stage
    from agents.recordings.state import RecordingState
    from agents.sessions.attempt import Failure
    from agents.sessions.fence import Fences
    from agents.sessions.records import RecordingRecord


class Direction:
    """One recording while it is directed."""

    def __init__(self, record: RecordingRecord, narration: Narration, stage: Stage, fences: Fences) -> None:
        """Begins.

        Args:
            record: What is to be recorded.
            narration: Keeps and tells where it stands.
            stage: What is recorded.
            fences: Of this host.
        """
        self.record = record
        self.told = narration
        self.stage = stage
        self.folder = narration.folder
        self.fence = AttemptFence(
            fences=fences, key=narration.status.key, folder=self.folder.path, generation=record.fences
        )
        """Proved whenever the outputs are touched."""
        self.ended = asyncio.Event()
        """Set when it is to end."""
        self.wake = asyncio.Event()
        """Set when something was asked, so that it is looked at soon."""

    @property
    def state(self) -> RecordingState:
        """Where it stands."""
        return self.told.state

    @property
    def resting(self) -> bool:
        """Whether it is not to record now, although it goes on."""
        return self.state.paused_time is not None

    @property
    def display(self) -> Display:
        """Its display, once it has one."""
        display = self.stage.display or self.state.display
        assert display is not None, "a stage that is set has a display"
        return display

    def note_stop(self) -> None:
        """Ends it when that was asked for, by whichever agent's time."""
        if self.told.status.stop_cause is not None or self.state.end is not None:
            self.ended.set()
            self.wake.set()

    async def end_with(self, end: RecordingEnd) -> None:
        """Notes why it ends. The first reason holds, a stop that was asked for among them."""
        if self.state.end is None and self.told.status.stop_cause is None:
            await self.told.keep(end=end)
        self.ended.set()
        self.wake.set()

    async def fail(self, failure: Failure) -> None:
        """Ends it with a failure."""
        await self.end_with(RecordingEnd(cause=failure.reason, failure=failure))
