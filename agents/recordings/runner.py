"""Directs one recording from its launch to its finished files: display, page, takes, pauses, end.

It knows no difference between a recording that this agent launched and one that it found: where it stands is in the
folder, and what can be gone on with is gone on with. Until the first take begins nothing was recorded, so a display
that a predecessor has lent is given up and everything begins anew. Cancelling it leaves all processes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from agents.browsers.page import PageFault
from agents.displays.display import DisplayUnavailable
from agents.recordings.closing import is_final
from agents.recordings.failures import (
    DISK_LOW,
    DISK_LOW_BEFORE,
    DISPLAY_LOST,
    STAGE_BROKEN,
    STATE_DAMAGED,
    told_failure,
)
from agents.recordings.interruption import beside, beside_it, unless
from agents.recordings.stage import END_SIGNAL, StageFault
from agents.recordings.state import STOPPED, RecordingEnd, read_state
from agents.recordings.take_folder import link_over
from agents.sessions.attempt import StopCause
from agents.sessions.endings import fenced
from agents.sessions.fence import FencedError
from agents.sessions.records import RecordUnreadableError
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import timedelta

    from agents.displays.display import Display
    from agents.recordings.closing import Closing
    from agents.recordings.direction import Direction
    from agents.recordings.shooting import Shooting
    from agents.recordings.state import RecordingState
    from agents.recordings.takes import Takes
    from agents.sessions.attempt import Failure
    from agents.sessions.fence import FenceHold
    from gpu_balancer.runtime.clock import Clock

_GUARDED_EVERY_S = 2.0
_LOG = logging.getLogger(__name__)


class RecordingRunner:
    """The director of one recording. Implements `Runner`."""

    def __init__(
        self,
        direction: Direction,
        takes: Takes,
        *,
        shooting: Shooting,
        closing: Closing,
        clock: Clock,
        find_excess: Callable[[Display], Failure | None],
        displays_known: Callable[[], Awaitable[object]],
    ) -> None:
        """Directs nothing yet.

        Args:
            direction: The recording.
            takes: Records it.
            shooting: Takes pictures of its display.
            closing: Makes the finished files.
            clock: For times.
            find_excess: Tells why a display takes more than it may; None when it does not. Blocks.
            displays_known: Returns when the displays that an earlier agent has lent were taken over.
        """
        self._find_excess = find_excess
        self._displays_known = displays_known
        self._direction = direction
        self._told = direction.told
        self._stage = direction.stage
        self._takes = takes
        self._shooting = shooting
        self._closing = closing
        self._clock = clock
        self._loaded = asyncio.Event()
        self._failed = asyncio.Event()

    # -------------------------------------------------------------------------------------------- what is asked of it

    async def stop(self, cause: StopCause, *, discard_outputs: bool = False, to_be_continued: bool = False) -> None:
        """Asks the recording to end; durable before it returns. The first cause holds."""
        if cause is StopCause.DISK_LOW:
            if await self._is_loaded():  # else another runner is asked soon
                await self._direction.fail(DISK_LOW if self._state.takes else DISK_LOW_BEFORE)
            return
        await self._told.stop(cause, discard_outputs=discard_outputs, to_be_continued=to_be_continued)
        self._direction.note_stop()

    def pace(self, speed_limit: float | None) -> None:
        """Does nothing: what happens on a display goes on whether or not it is recorded."""

    async def pause(self) -> None:
        """Lets the recording rest. Durable before it returns.

        Raises:
            RequestFailure: SESSION_NOT_RECORDING before it has begun, or when it ends.
        """
        await self._require_recording("pause")
        if not self._direction.resting:
            await self._told.keep(paused_time=self._clock.now())
            self._direction.wake.set()

    async def resume(self) -> None:
        """Goes on recording. Durable before it returns.

        Raises:
            RequestFailure: As for `pause`.
        """
        await self._require_recording("resume")
        if self._direction.resting:
            await self._told.keep(paused_time=None)
            self._direction.wake.set()

    async def extend(self, max_duration: timedelta | None) -> None:
        """Gives the recording another bound of time. None: none. Durable before it returns.

        Raises:
            RequestFailure: SESSION_NOT_RECORDING when it cannot be found out where it stands.
        """
        await self._require_loaded("extend")
        await self._told.keep(max_duration=max_duration)
        self._direction.wake.set()

    async def snapshot(self, width: int | None) -> bytes:
        """Takes a picture of the display now, as PNG.

        Args:
            width: In pixels; the height follows. None: as it is.

        Raises:
            RequestFailure: SESSION_NOT_RECORDING while it has no display.
        """
        await self._require_loaded("take a picture of")
        if self._state.display is None or self._direction.ended.is_set():
            raise self._not_recording("take a picture of", "it has no display now")
        direction = self._direction
        return await self._shooting.snapshot(direction.record.job, direction.folder, self._state.display, width)

    async def _require_recording(self, what: str) -> None:
        await self._require_loaded(what)
        if self._direction.ended.is_set():
            raise self._not_recording(what, "it is ending")
        if not self._state.takes and not self._direction.resting:
            raise self._not_recording(what, "it has not begun to record")

    async def _is_loaded(self) -> bool:
        """Waits until it is known where the recording stands. False: this runner never learns it."""
        await unless(self._failed, self._loaded.wait())
        return self._loaded.is_set()

    async def _require_loaded(self, what: str) -> None:
        if not await self._is_loaded():
            raise self._not_recording(what, "its agent could not look at it and tries again")

    def _not_recording(self, what: str, why: str) -> RequestFailure:
        name = f"sessions/{self._direction.record.job.session}"
        message = f"Cannot {what} {name}: {why}. Try `gpu-balancer sessions` to see it."
        return RequestFailure(reason=Reason.SESSION_NOT_RECORDING, message=message)

    async def settle(self) -> None:
        """Ends playlists and begins copies of a recording that failed, once nothing goes on with it."""
        direction = self._direction
        with contextlib.suppress(FencedError), await asyncio.to_thread(direction.fence.prove):
            still_open = await self._closing.settle(direction.record, direction.folder)
            if still_open:
                await self._told.tell_outputs(still_open)

    async def give_up(self) -> None:
        """Ends its display."""
        await self._stage.strike(self._state.display)

    # -------------------------------------------------------------------------------------------- from begin to end

    async def watch(self, shim: int | None = None) -> None:
        """Directs the recording to its end."""
        del shim  # takes have shims of their own
        try:
            await self._displays_known()
            await self._load()
            async with beside_it(self._guard()):
                if not self._direction.ended.is_set():
                    await self._set_up()
                await self._takes.shoot()
            await self._close()
        except BaseException:
            self._failed.set()
            await self._takes.give_up_prepared()
            await self._stage.let_go()
            raise

    @property
    def _state(self) -> RecordingState:
        return self._direction.state

    async def _load(self) -> None:
        try:
            self._told.state = await asyncio.to_thread(read_state, self._direction.folder)
        except RecordUnreadableError as error:
            _LOG.error("%s", error)
            await self._direction.fail(STATE_DAMAGED)
        self._loaded.set()
        self._direction.note_stop()

    async def _set_up(self) -> None:
        setting_up = self._take_over() if self._state.takes else self._set_stage()
        try:
            await unless(self._direction.ended, setting_up)
        except PageFault as fault:
            await self._direction.fail(await self._stage.lost() or told_failure(fault.reason, str(fault)))
        except (DisplayUnavailable, StageFault) as fault:
            await self._direction.fail(told_failure(fault.reason, str(fault)))
        except Exception:  # noqa: BLE001 - a stranger's page must not end the agent, nor the next one that tries it
            _LOG.exception("Cannot set the stage of %s", self._direction.folder.key)
            await self._direction.fail(STAGE_BROKEN)

    async def _set_stage(self) -> None:
        former = self._state.display
        if former is not None:
            await self._stage.give_up(former)
            await self._told.keep(display=None, application_pid=None)
        async with self._told.condition("AWAITING_DISPLAY", "Waiting for a display."):
            lent = await self._stage.take_display()
        display = self._direction.display
        await asyncio.to_thread(link_over, Path(display.lock), self._direction.folder.lock)
        browser = display.browser.name if display.browser is not None else ""
        await self._told.keep(display=display, browser=browser, phases=(lent,))
        async with self._told.condition("AWAITING_GATE", "Waiting for the start gate."):
            opened = await beside(self._takes.prepare(), self._stage.open())
        renderer, pid = self._stage.renderer or "", self._stage.application_pid
        self._told.note(phases=(lent, *opened), renderer=renderer, application_pid=pid)
        if self._stage.is_over:
            # Known now, not a moment after the first picture.
            await self._direction.end_with(RecordingEnd(cause=END_SIGNAL))

    async def _guard(self) -> None:
        """Ends the recording when its display takes too much of the host."""
        while not self._direction.ended.is_set():
            await asyncio.sleep(_GUARDED_EVERY_S)
            if self._stage.display is None:
                continue
            excess = await asyncio.to_thread(self._find_excess, self._stage.display)
            if excess is not None:
                await self._direction.fail(excess)

    async def _take_over(self) -> None:
        display = self._state.display
        if display is None or not await self._stage.take_over(display, self._state.application_pid):
            await self._direction.fail(DISPLAY_LOST)

    async def _close(self) -> None:
        """Makes the finished files and tells the end. A successor does it again when the agent is killed meanwhile."""
        try:
            with await asyncio.to_thread(self._direction.fence.prove) as fence:
                await self._close_behind(fence)
        except FencedError as error:
            _LOG.error("%s", error)
            await self._stage.strike(self._state.display)
            failure = fenced(error)
            await self._told.conclude(RecordingEnd(cause=failure.reason, failure=failure), failure, (), None)

    async def _close_behind(self, fence: FenceHold) -> None:
        record, folder = self._direction.record, self._direction.folder
        end = self._state.end or RecordingEnd(cause=STOPPED)
        if end.failure is not None:
            await self._closing.keep_evidence(record, folder, self._stage)
        await self._stage.strike(self._state.display)
        asked = self._told.begin_closing()
        discard, final = asked.discard_outputs, not asked.to_be_continued and is_final(record, end)
        if discard or not (self._state.takes or record.job.continues):
            closed = await self._closing.leave(record, folder, discard=discard)
        else:
            await self._told.begin_finalising()
            closed = await self._closing.finish(record, folder, self._state, fence, final=final)
        failure = None if discard else end.failure or closed.failure
        if not discard and final:
            await self._closing.send_copies(record, folder)
        await self._told.conclude(end, failure, closed.files, closed.duration, conditions=closed.conditions)
        await self._closing.tidy(record, folder, closed, discarded=discard)
