"""Directs one recording from its launch to its finished files: display, page, takes, pauses, end.

It knows no difference between a recording that this agent launched and one that it found: where it stands is in the
folder, and what can be gone on with is gone on with. Until the first take begins nothing was recorded, so a display
that a predecessor has lent is given up and everything begins anew. Cancelling it leaves all processes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from agents.browsers.page import PageFault
from agents.displays.display import DisplayUnavailable
from agents.recordings.interruption import unless
from agents.recordings.stage import StageFault
from agents.recordings.state import RecordingEnd, Take, read_state
from agents.recordings.take_folder import link_over, make_take_folder, take_folder
from agents.recordings.take_run import TakeRun
from agents.recordings.thumbnails import Thumbnails
from agents.sessions.artifacts import list_artifacts
from agents.sessions.attempt import Failure, Phase
from agents.sessions.records import RecordUnreadableError
from gpu_balancer.runtime.failures import Reason, RequestFailure

if TYPE_CHECKING:
    from datetime import timedelta

    from agents.deliveries.deliveries import Deliveries
    from agents.displays.display import Display
    from agents.recordings.closing import Closing
    from agents.recordings.narration import Narration
    from agents.recordings.shooting import Shooting
    from agents.recordings.stage import Stage
    from agents.recordings.state import RecordingState
    from agents.recordings.take_run import TakeBounds
    from agents.recordings.use_meter import UseMeter
    from agents.sessions.attempt import StopCause
    from agents.sessions.records import RecordingRecord
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_BRISK_S = 0.03
_STEADY_S = 0.5


class RecordingRunner:
    """The director of one recording. Implements `Runner`."""

    def __init__(  # noqa: PLR0913 - its parts, each by its name
        self,
        record: RecordingRecord,
        narration: Narration,
        stage: Stage,
        *,
        shooting: Shooting,
        closing: Closing,
        deliveries: Deliveries,
        meter: UseMeter,
        clock: Clock,
        bounds: TakeBounds,
    ) -> None:
        """Directs nothing yet.

        Args:
            record: What is to be recorded.
            narration: Keeps and tells where it stands.
            stage: What is recorded.
            shooting: Makes the commands of takes and judges how they ended.
            closing: Makes the finished files.
            deliveries: Copies finished files to destinations.
            meter: Measures what the display takes.
            clock: For waits.
            bounds: How takes are looked after.
        """
        self._record = record
        self._told = narration
        self._stage = stage
        self._shooting = shooting
        self._closing = closing
        self._deliveries = deliveries
        self._meter = meter
        self._clock = clock
        self._bounds = bounds
        self._folder = narration.folder
        self._thumbnails = Thumbnails(shooting, narration.folder)
        self._loaded = asyncio.Event()
        self._ended = asyncio.Event()
        self._wake = asyncio.Event()

    # -------------------------------------------------------------------------------------------- what is asked of it

    async def stop(self, cause: StopCause, *, discard_outputs: bool = False) -> None:
        """Asks the recording to end; durable before it returns. The first cause holds."""
        await self._told.stop(cause, discard_outputs=discard_outputs)
        self._note_stop()

    def pace(self, speed_limit: float | None) -> None:
        """Does nothing: what happens on a display goes on whether or not it is recorded."""

    async def pause(self) -> None:
        """Lets the recording rest. Durable before it returns.

        Raises:
            RequestFailure: SESSION_NOT_RECORDING before it has begun, or when it ends.
        """
        await self._require_recording("pause")
        if self._state.paused_time is None:
            await self._told.keep(paused_time=self._clock.now())
            self._wake.set()

    async def resume(self) -> None:
        """Goes on recording. Durable before it returns.

        Raises:
            RequestFailure: As for `pause`.
        """
        await self._require_recording("resume")
        if self._state.paused_time is not None:
            await self._told.keep(paused_time=None)
            self._wake.set()

    async def extend(self, max_duration: timedelta | None) -> None:
        """Gives the recording another bound of time. None: none. Durable before it returns."""
        await self._loaded.wait()
        await self._told.keep(max_duration=max_duration)
        self._wake.set()

    async def snapshot(self, width: int | None) -> bytes:
        """Takes a picture of the display now, as PNG.

        Args:
            width: In pixels; the height follows. None: as it is.

        Raises:
            RequestFailure: SESSION_NOT_RECORDING while it has no display.
        """
        await self._loaded.wait()
        display = self._state.display
        if display is None or self._ended.is_set():
            raise self._not_recording("take a picture of", "it has no display now")
        return await self._shooting.snapshot(self._record.job, self._folder, display, width)

    async def _require_recording(self, what: str) -> None:
        await self._loaded.wait()
        if self._ended.is_set():
            raise self._not_recording(what, "it is ending")
        if not self._state.takes:
            raise self._not_recording(what, "it has not begun to record")

    def _not_recording(self, what: str, why: str) -> RequestFailure:
        message = f"Cannot {what} sessions/{self._record.job.session}: {why}. Try `gpu-balancer sessions` to see it."
        return RequestFailure(reason=Reason.SESSION_NOT_RECORDING, message=message)

    # -------------------------------------------------------------------------------------------- from begin to end

    async def watch(self, shim: int | None = None) -> None:
        """Directs the recording to its end."""
        del shim  # takes have shims of their own
        try:
            await self._load()
            if not self._ended.is_set():
                await self._set_up()
            await self._shoot()
            await self._close()
        except asyncio.CancelledError:
            await self._stage.let_go()
            raise

    @property
    def _state(self) -> RecordingState:
        return self._told.state

    async def _load(self) -> None:
        try:
            self._told.state = await asyncio.to_thread(read_state, self._folder)
        except RecordUnreadableError as error:
            _LOG.error("%s", error)
            await self._fail(
                "RECORD_DAMAGED",
                "Cannot go on recording: what the agent wrote down of it cannot be read any more. Try again, and see "
                "whether the disk of the state folder works.",
            )
        self._loaded.set()
        self._note_stop()
        if self._state.end is not None:
            self._ended.set()

    def _note_stop(self) -> None:
        if self._told.status.stop_cause is not None:
            self._ended.set()
            self._wake.set()

    async def _end_with(self, end: RecordingEnd) -> None:
        """Notes why the recording ends. The first reason holds, a stop that was asked for among them."""
        if self._state.end is None and self._told.status.stop_cause is None:
            await self._told.keep(end=end)
        self._ended.set()
        self._wake.set()

    async def _fail(self, reason: str, message: str) -> None:
        await self._end_with(RecordingEnd(cause=reason, failure=Failure(reason=reason, message=message)))

    # ------------------------------------------------------------------------------------------------------ the stage

    async def _set_up(self) -> None:
        try:
            await unless(self._ended, self._take_over() if self._state.takes else self._set_stage())
        except (DisplayUnavailable, PageFault, StageFault) as fault:
            await self._fail(fault.reason, str(fault))

    async def _set_stage(self) -> None:
        former = self._state.display
        if former is not None:
            await self._stage.give_up(former)
            await self._told.keep(display=None, application_pid=None)
        async with self._told.condition("AWAITING_DISPLAY", "Waiting for a display."):
            lent = await self._stage.take_display()
        display = self._display()
        await asyncio.to_thread(link_over, Path(display.lock), self._folder.lock)
        browser = display.browser.name if display.browser is not None else ""
        await self._told.keep(display=display, browser=browser, phases=(lent,))
        async with self._told.condition("AWAITING_GATE", "Waiting for the start gate."):
            opened = await self._stage.open()
        renderer, pid = self._stage.renderer or "", self._stage.application_pid
        self._told.note(phases=(lent, *opened), renderer=renderer, application_pid=pid)

    async def _take_over(self) -> None:
        display = self._state.display
        if display is None or not await self._stage.take_over(display, self._state.application_pid):
            await self._fail(
                "DISPLAY_LOST",
                "Cannot go on recording: its display ended while no agent was there. What was recorded until then is "
                "kept. Try again.",
            )

    def _display(self) -> Display:
        display = self._stage.display or self._state.display
        assert display is not None, "a stage that is set has a display"
        return display

    # ------------------------------------------------------------------------------------------------------ the takes

    async def _shoot(self) -> None:
        """Records take after take, until the recording ends. One that runs is looked after in any case."""
        watching = asyncio.get_running_loop().create_task(self._watch_stage())
        try:
            while True:
                if (run := await self._open_take()) is not None:
                    with run:
                        await self._look_after(run)
                        await self._conclude(run)
                if self._ended.is_set():
                    return
                if self._state.paused_time is not None:
                    await self._rest()
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            if not watching.cancelled():
                watching.result()

    async def _watch_stage(self) -> None:
        if self._stage.display is not None:
            await self._end_with(await self._stage.ended())

    async def _open_take(self) -> TakeRun | None:
        """Gives the take that runs, or begins one. None: there is none to run now."""
        last = self._state.takes[-1] if self._state.takes else None
        if last is not None and not last.ended:
            run = TakeRun(take_folder(self._folder, last.number), last, clock=self._clock, bounds=self._bounds)
            if run.begun:
                return run
            if self._ended.is_set():
                # A predecessor was killed just before it began.
                self._told.note(takes=self._state.takes[:-1])
                return None
        if self._ended.is_set() or self._state.paused_time is not None:
            return None
        number = 1 if last is None else last.number + last.ended
        await self._told.keep_take(Take(number=number))
        return await self._begun(Take(number=number))

    async def _begun(self, take: Take) -> TakeRun | None:
        try:
            await self._shooting.ready()
            folder = await asyncio.to_thread(make_take_folder, self._folder, take.number)
            command = await asyncio.to_thread(
                self._shooting.command, self._record, self._folder, folder, self._display(), take.number
            )
            return TakeRun.start(folder, command, take, clock=self._clock, bounds=self._bounds)
        except RequestFailure as failure:
            await self._fail(failure.reason.name, failure.message)
        except OSError as error:
            await self._fail(*self._shooting.start_failure(error))
        return None

    async def _look_after(self, run: TakeRun) -> None:
        began_s = self._clock.monotonic_s()
        while not run.gone:
            try:
                await self._turn(run, began_s)
            except OSError:
                # A descriptor short or a sick disk must not cost the recording its director.
                _LOG.exception("Cannot look after %s; trying again", self._folder.key)
            if self._ended.is_set() or self._state.paused_time is not None:
                run.end()
            await self._pause(run)

    async def _turn(self, run: TakeRun, began_s: float) -> None:
        self._tell_progress(run)
        await self._note_first_picture(run)
        waited_s = self._clock.monotonic_s() - began_s
        if not run.take.frames and waited_s > self._bounds.first_picture_timeout.total_seconds():
            await self._fail(
                "NO_FIRST_FRAME",
                "Cannot record: no picture was written in time. Try the session's log, or a longer "
                "first_frame_timeout_s in [inputs].",
            )
        bound = self._state.max_duration
        if bound is not None and self._told.recorded >= bound:
            await self._end_with(RecordingEnd(cause="MAX_DURATION"))
        cause = run.figures.end_by(self._record.job.stop_rules)
        if cause is not None:
            await self._end_with(RecordingEnd(cause=cause))
        await self._told.note_size()
        await self._told.note_stall()
        self._told.note_page(self._stage.figures)
        await self._thumbnails.take_due(self._record.job, self._display(), self._told.recorded)
        if run.take.frames and self._state.measured_use is None:
            use = await asyncio.to_thread(self._meter.measure, self._display(), run.program_pid)
            if use is not None:
                await self._told.publish_use(use)

    def _tell_progress(self, run: TakeRun) -> None:
        if run.look() and run.figures.progress is not None:
            self._told.progressed(run.take, run.figures.progress)

    async def _note_first_picture(self, run: TakeRun) -> None:
        if self._told.status.phase is Phase.STARTING and run.take.frames:
            await self._told.begin_running(run.figures.first_picture_time)

    async def _pause(self, run: TakeRun) -> None:
        """Waits for the next turn: soon while something is expected, at once when ffmpeg ends or something is asked."""
        ending = self._ended.is_set() or self._state.paused_time is not None
        pause_s = _BRISK_S if ending or not run.take.frames else _STEADY_S
        if (bound := self._state.max_duration) is not None:
            pause_s = min(pause_s, max((bound - self._told.recorded).total_seconds(), _BRISK_S))
        with contextlib.suppress(TimeoutError), run.waking(self._wake):
            await asyncio.wait_for(self._wake.wait(), pause_s)
        self._wake.clear()

    async def _conclude(self, run: TakeRun) -> None:
        with contextlib.suppress(OSError):
            self._tell_progress(run)
        await self._note_first_picture(run)
        asked = self._ended.is_set() or self._state.paused_time is not None
        take = replace(run.take, ended=True)
        verdict = await asyncio.to_thread(
            self._shooting.verdict, self._record, self._folder, take, run.exit_code, asked=asked
        )
        await self._told.keep_take(take)
        if verdict is not None:
            await self._end_with(RecordingEnd(cause=verdict.reason, failure=verdict))

    async def _rest(self) -> None:
        """Awaits that the recording goes on, or ends."""
        async with self._told.condition("PAUSED", "It rests until it is resumed or stopped.", at_once=True):
            while self._state.paused_time is not None and not self._ended.is_set():
                await self._wake.wait()
                self._wake.clear()
        self._told.rested()

    # -------------------------------------------------------------------------------------------------------- the end

    async def _close(self) -> None:
        """Makes the finished files and tells the end. A successor does it again when the agent is killed meanwhile."""
        end = self._state.end or RecordingEnd(cause="STOPPED")
        if end.failure is not None:
            await self._closing.keep_evidence(self._folder, self._stage)
        await self._stage.strike(self._state.display)
        discard = self._told.status.discard_outputs
        if discard or not self._state.takes:
            closed = await self._closing.leave(self._record, self._folder, discard=discard)
        else:
            async with self._told.condition("FINALISING", "Making the finished files.", at_once=True):
                closed = await self._closing.finish(self._record, self._folder, self._state)
        failure = None if discard else end.failure or closed.failure
        if not discard:
            await self._send_copies()
        await self._told.conclude(end, failure, closed.files, closed.duration)
        await self._closing.tidy(self._record, self._folder, closed, discarded=discard)

    async def _send_copies(self) -> None:
        """Has every artifact copied to the destinations that were asked for. Durable before the end is told."""
        job, artifacts = self._record.job, self._folder.artifacts
        if not job.destinations:
            return
        found = await asyncio.to_thread(list_artifacts, artifacts)
        paths = [artifact.path for artifact in found]
        try:
            await self._deliveries.begin(job.session, job.attempt, artifacts, paths, job.destinations)
        except OSError as error:
            _LOG.error("Cannot note that %s is to be copied: %s", self._folder.key, error.strerror)
