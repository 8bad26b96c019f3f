"""Keeps and tells where a recording stands: its state in its folder, its status to the balancer.

What a successor must know is durable before it is acted upon. What is true again a second later is only told.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from agents.pipelines.progress import Progress
from agents.pipelines.recording_report import RecordingPhase
from agents.recordings.state import STOPPED, RecordingState, write_state
from agents.sessions.attempt import Condition, Ending, Phase, StopCause
from agents.sessions.attempt_health import DEGRADED, STALLED
from agents.sessions.progress_file import bytes_on_disk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from agents.browsers.page import PageFigures
    from agents.pipelines.recording_report import MeasuredUse, RecordedFile
    from agents.recordings.state import RecordingEnd, Take
    from agents.sessions.attempt import AttemptStatus, Failure
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.session_trace import SessionTrace
    from agents.sessions.status_book import Attempt, StatusBook
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_TOLD_AFTER_S = 1.0
"""What is over sooner is told to nobody: a recording that begins at once has other things to do."""
_SIZED_EVERY_S = 5.0


class Narration:
    """The one door to what is kept and told of one recording."""

    def __init__(self, attempt: Attempt, book: StatusBook, trace: SessionTrace, *, clock: Clock) -> None:
        """Knows nothing of the recording yet: `state` is read from its folder by whoever directs it.

        Args:
            attempt: Which one.
            book: Where statuses are kept and told.
            trace: The session's spans.
            clock: For times.
        """
        self.state = RecordingState()
        self._attempt = attempt
        self._book = book
        self._trace = trace
        self._clock = clock
        self._progress = Progress()
        self._written_bytes = 0
        self._sized_s = 0.0
        self._closing = False

    @property
    def folder(self) -> AttemptFolder:
        """The attempt's folder."""
        return self._attempt.folder

    @property
    def status(self) -> AttemptStatus:
        """What is known of the attempt."""
        return self._attempt.status

    @property
    def recorded(self) -> timedelta:
        """How much has been recorded, all takes together."""
        return sum((take.out_time for take in self.state.takes), timedelta())

    # ----------------------------------------------------------------------------------------------------------- kept

    async def keep(self, **changes: Any) -> None:
        """Changes the state, durably. A full disk must not end a recording: what cannot be kept holds until the end."""
        self.note(**changes)
        try:
            await self._book.write_down(partial(write_state, self.folder, self.state))
        except OSError as error:
            _LOG.error("Cannot write down where %s stands: %s", self.status.key, error.strerror)

    def note(self, **changes: Any) -> None:
        """Changes the state; it is written down with the next change that must be."""
        self.state = replace(self.state, **changes)

    async def keep_take(self, take: Take) -> None:
        """Enters a take, durably."""
        self.note(takes=self.state.with_take(take).takes)
        await self.keep()

    async def stop(self, cause: StopCause, *, discard_outputs: bool = False, to_be_continued: bool = False) -> None:
        """Notes that the attempt is to end, durably. The first cause holds, and the last word on its outputs.

        Once its files are being finished, or thrown away, nothing that is said of that comes in time.
        """
        before = self.status
        if not before.live:
            return
        if before.stop_cause is None:
            self._change(stop_cause=cause)
        if self.status.stop_cause is StopCause.ASKED:
            if not self._closing:
                self._change(discard_outputs=discard_outputs)
            self._change(to_be_continued=to_be_continued)
        if self.status is not before:
            await self._book.keep(self._attempt)

    # ----------------------------------------------------------------------------------------------------------- told

    @contextlib.asynccontextmanager
    async def condition(self, type_: str, message: str, *, at_once: bool = False) -> AsyncIterator[None]:
        """Tells a condition for as long as the block runs; one of its type that a predecessor told ends with it.

        Args:
            type_: Its type.
            message: For people.
            at_once: Tells it also when it is over soon.
        """
        condition = Condition(type=type_, message=message, since_time=self._clock.now())
        telling = asyncio.get_running_loop().create_task(self._tell(condition, 0.0 if at_once else _TOLD_AFTER_S))
        try:
            yield
        finally:
            telling.cancel()
            await asyncio.wait({telling})
            await self.over(type_)

    async def over(self, type_: str) -> None:
        """Tells that a condition is not true any more, whoever told it."""
        others = tuple(other for other in self.status.conditions if other.type != type_)
        if others != self.status.conditions:
            self._change(conditions=others)
            await self._book.publish(self._attempt)

    def begin_closing(self) -> AttemptStatus:
        """Takes the last word on what becomes of its outputs, and gives it."""
        self._closing = True
        return self.status

    async def begin_finalising(self) -> None:
        """Tells that finished files are being made. It holds until the end is told."""
        condition = Condition(type="FINALISING", message="Making the finished files.", since_time=self._clock.now())
        self._change(conditions=(*self.status.conditions, condition))
        await self._book.publish(self._attempt)

    async def begin_running(self, first_picture_age: timedelta | None) -> None:
        """Tells that the first picture was taken, and how long ago. None: that is not known, it was just now."""
        now = self._clock.now()
        launched = self.status.launch_time or now
        passed = sum((phase.duration for phase in self.state.phases), timedelta())
        start = max(now - max(first_picture_age or timedelta(), timedelta()) - launched, passed)
        first = RecordingPhase(name="first_frame", duration=start - passed)
        self.note(start_time=start, phases=(*self.state.phases, first))
        await self.keep()
        self._change(
            phase=Phase.RUNNING, running_time=launched + start, conditions=(), recording_report=self.state.report()
        )
        self._trace.first_frame(self.status)
        await self._book.publish(self._attempt)

    def progressed(self, take: Take, progress: Progress) -> None:
        """Tells how far it is: all takes together."""
        self.note(takes=self.state.with_take(take).takes)
        self._progress = progress
        self._change(progress=self._total(), recording_report=self.state.report())
        self._book.progressed(self._attempt)

    def note_page(self, figures: PageFigures) -> None:
        """Notes what is known of the page."""
        self.note(
            dismissed_dialogs=max(figures.dismissed_dialogs, self.state.dismissed_dialogs),
            closed_popups=max(figures.closed_popups, self.state.closed_popups),
            cancelled_downloads=max(figures.cancelled_downloads, self.state.cancelled_downloads),
        )

    async def note_size(self) -> None:
        """Measures what was written, now and then."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._sized_s:
            self._sized_s = now_s + _SIZED_EVERY_S
            self._written_bytes = await asyncio.to_thread(bytes_on_disk, self.folder.artifacts, ())

    async def tell_health(self, conditions: tuple[Condition, ...]) -> None:
        """Tells how recording does, in the place of what was told of that before."""
        await self._tell_instead(conditions, {STALLED, DEGRADED})

    async def tell_outputs(self, conditions: tuple[Condition, ...]) -> None:
        """Tells what is to be known of its outputs besides what was told of them, in the place of the same."""
        await self._tell_instead(conditions, {one.type for one in conditions})

    async def _tell_instead(self, conditions: tuple[Condition, ...], types: Collection[str]) -> None:
        others = tuple(one for one in self.status.conditions if one.type not in types)
        self._change(conditions=(*others, *conditions))
        await self._book.publish(self._attempt)

    async def publish_use(self, use: MeasuredUse) -> None:
        """Keeps and tells what the display was seen to take."""
        await self.keep(measured_use=use)
        self._change(measured_use=use)
        await self._book.publish(self._attempt)

    async def conclude(
        self,
        end: RecordingEnd,
        failure: Failure | None,
        files: tuple[RecordedFile, ...],
        finalised: timedelta | None,
        *,
        conditions: tuple[Condition, ...] = (),
    ) -> None:
        """Tells the end.

        Args:
            end: Why it ended.
            failure: Why it failed. None: it did not.
            files: What was finished.
            finalised: How long that took. None: there was nothing to finish.
            conditions: What is to be known of the files.
        """
        if finalised is not None:
            self.note(phases=(*self.state.phases, RecordingPhase(name="finalise", duration=finalised)))
        self.note(end=end)
        recorded = any(take.begun for take in self.state.takes)
        if failure is not None:
            ending = Ending.FAILED
        else:
            # Not done: another attempt goes on with it.
            goes_on = self.status.to_be_continued and end.cause == STOPPED
            ending = Ending.COMPLETED if recorded and not goes_on else Ending.STOPPED
        if recorded:
            self._written_bytes = await asyncio.to_thread(bytes_on_disk, self.folder.artifacts, ())
        self._change(
            phase=Phase.ENDED,
            ending=ending,
            failure=failure,
            conditions=conditions,
            end_time=self._clock.now(),
            progress=self._total() if self.state.takes else None,
            recording_report=replace(self.state.report(), files=files),
        )
        await self._book.publish(self._attempt)
        self._trace.ended(self.status)

    def _total(self) -> Progress:
        takes = self.state.takes
        return replace(
            self._progress,
            frames=sum(take.frames for take in takes),
            duplicated_frames=sum(take.duplicated_frames for take in takes),
            dropped_frames=sum(take.dropped_frames for take in takes),
            out_time=self.recorded,
            written_bytes=self._written_bytes or self._progress.written_bytes,
            total_time=self.state.max_duration,
        )

    async def _tell(self, condition: Condition, after_s: float) -> None:
        await asyncio.sleep(after_s)
        if any(known.type == condition.type for known in self.status.conditions):
            return
        self._change(conditions=(*self.status.conditions, condition))
        # Shielded: whoever calls this off goes on to tell that it is over, in the order of the book.
        await asyncio.shield(self._book.publish(self._attempt))

    def _change(self, **changes: Any) -> None:
        self._attempt.status = replace(self._attempt.status, **changes)
