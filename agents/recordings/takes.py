"""The takes of a recording: begun, looked after, ended by a pause or for good; one that an earlier agent began, too."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from agents.recordings.encoder_turns import EncoderTurns
from agents.recordings.failures import (
    CAPTURE_STALLED,
    MACHINE_LOST,
    NO_PICTURE,
    OUTPUT_STALLED,
    STAGE_BROKEN,
    playlist_torn,
    start_failure,
    told_failure,
)
from agents.recordings.held_take import HeldTake
from agents.recordings.state import RecordingEnd, Take
from agents.recordings.take_folder import flush_take, make_take_folder, take_folder, take_outputs
from agents.recordings.take_run import TakeRun
from agents.recordings.thumbnails import Thumbnails
from agents.recordings.torn_playlists import find_torn_playlist
from agents.sessions.attempt import Phase, StopCause
from agents.sessions.attempt_health import AttemptHealth
from agents.sessions.endings import fenced
from agents.sessions.fence import FencedError
from agents.sessions.live_playlists import LivePlaylists
from gpu_balancer.runtime.failures import RequestFailure

if TYPE_CHECKING:
    from agents.pipelines.command import Command
    from agents.recordings.direction import Direction
    from agents.recordings.shooting import Shooting
    from agents.recordings.take_run import TakeBounds
    from agents.recordings.use_meter import UseMeter
    from agents.sessions.fence import FenceHold
    from agents.sessions.folder import AttemptFolder
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_BRISK_S = 0.03
_STEADY_S = 0.5
_FLUSHED_EVERY_S = 1.0
_GAP = timedelta(milliseconds=100)
"""Between two takes on the timeline of HLS: sound begins up to this much before its picture."""


class Takes:
    """Records take after take."""

    def __init__(
        self, direction: Direction, shooting: Shooting, *, meter: UseMeter, clock: Clock, bounds: TakeBounds
    ) -> None:
        """Records nothing yet.

        Args:
            direction: The recording.
            shooting: Makes the commands of takes and judges how they ended.
            meter: Measures what it takes of the host.
            clock: For waits.
            bounds: How takes are looked after.
        """
        self._now = direction
        self._shooting = shooting
        self._meter = meter
        self._clock = clock
        self._bounds = bounds
        self._thumbnails = Thumbnails(shooting, direction.folder)
        self._playlists = LivePlaylists(direction.record.playlists)
        self._prepared: tuple[AttemptFolder, Command] | None = None
        self._held: HeldTake | None = None
        self._health = _health(direction, clock, bounds)

    async def shoot(self) -> None:
        """Records take after take, until the recording ends. One that runs is looked after in any case."""
        watching = asyncio.get_running_loop().create_task(self._watch_stage())
        try:
            while True:
                if (run := await self._open_take()) is not None:
                    with run:
                        # A predecessor may have been killed while it told a pause that ended without it.
                        await self._now.told.over("PAUSED")
                        await self._look_after(run)
                        await self._conclude(run)
                if self._now.ended.is_set():
                    return
                if self._now.resting:
                    await self._rest()
        finally:
            watching.cancel()
            await asyncio.wait({watching})
            await self.give_up_prepared()
            if not watching.cancelled():
                watching.result()

    async def _watch_stage(self) -> None:
        if self._now.stage.display is None:
            return
        try:
            await self._now.end_with(await self._now.stage.ended())
        except Exception:  # noqa: BLE001 - a stranger's page must not end the agent
            _LOG.exception("Cannot watch the stage of %s", self._now.folder.key)
            await self._now.fail(STAGE_BROKEN)

    async def _open_take(self) -> TakeRun | None:
        """Gives the take that runs, or begins one. None: there is none to run now."""
        takes = self._now.state.takes
        last = takes[-1] if takes else None
        if last is not None and not last.ended:
            run = TakeRun(take_folder(self._now.folder, last.number), last, clock=self._clock, bounds=self._bounds)
            if run.begun:
                return run
            if self._now.ended.is_set() or self._has_files(last.number):
                await self._keep_what_is_left(run)
                return None
        if self._now.ended.is_set() or self._now.resting:
            return None
        number = 1 if last is None else last.number + last.ended
        held, self._held = self._held, None
        prepared = None if held is None else await held.let_go()
        if prepared is not None:
            # Only now: with a take that never began a successor could do nothing; with none it begins anew.
            await self._now.told.keep_take(prepared.take)
            return prepared
        take = self._take(number)
        await self._now.told.keep_take(take)
        return await self._begun(take)

    def _take(self, number: int) -> Take:
        return Take(number=number, sound_only=not self._now.record.job.pictures)

    def _has_files(self, number: int) -> bool:
        return any(path.stat().st_size for path in take_outputs(self._now.folder, number))

    async def _keep_what_is_left(self, run: TakeRun) -> None:
        """Closes a take whose shim nobody knows: it was never started, or the machine went down under it."""
        with contextlib.suppress(OSError):
            run.look()
        if self._has_files(run.take.number):
            await self._now.told.keep_take(replace(run.take, ended=True))
            await self._now.fail(MACHINE_LOST)
        else:
            self._now.told.note(takes=self._now.state.takes[:-1])

    async def prepare(self) -> None:
        """Makes ready what the first take needs, while its stage is still being set: ffmpeg itself, which waits.

        What goes wrong here goes wrong again when the take is to begin, and is told then.
        """
        with contextlib.suppress(RequestFailure, OSError, FencedError):
            self._prepared = folder, command = await self._preparation(1)
            if not command.may_be_held or self._now.resting:
                return
            with await asyncio.to_thread(self._now.fence.prove) as fence:
                self._held = HeldTake.start(command, partial(self._start, folder, self._take(1), fence))
            # Should it end before its time, its folder cannot be used again.
            self._prepared = None

    async def give_up_prepared(self) -> None:
        """Ends what `prepare` has started, if it was not needed."""
        held, self._held = self._held, None
        if held is not None:
            await held.give_up()

    async def _preparation(self, number: int) -> tuple[AttemptFolder, Command]:
        now = self._now
        await self._shooting.ready()
        folder = await asyncio.to_thread(make_take_folder, now.folder, number)
        resumed_at = now.state.resumed_at + now.told.recorded + (number - 1) * _GAP
        command = await asyncio.to_thread(
            self._shooting.command, now.record, now.folder, folder, now.display, number, resumed_at=resumed_at
        )
        now.told.note(sound_timing=self._shooting.sound_timing(now.record.job))
        return folder, command

    async def _begun(self, take: Take) -> TakeRun | None:
        try:
            prepared, self._prepared = self._prepared, None
            folder, command = prepared or await self._preparation(take.number)
            if take.number > 1:
                torn = await asyncio.to_thread(find_torn_playlist, command.presentations)
                if torn is not None:
                    await self._now.fail(playlist_torn(torn))
                    return None
            with await asyncio.to_thread(self._now.fence.prove) as fence:
                return self._start(folder, take, fence, command)
        except FencedError as error:
            await self._now.fail(fenced(error))
        except RequestFailure as failure:
            await self._now.fail(told_failure(failure.reason.name, failure.message))
        except OSError as error:
            await self._now.fail(start_failure(error))
        return None

    def _start(
        self, folder: AttemptFolder, take: Take, fence: FenceHold, command: Command, inherited: tuple[int, ...] = ()
    ) -> TakeRun:
        return TakeRun.start(
            folder, command, take, fence=fence, clock=self._clock, bounds=self._bounds, inherited=inherited
        )

    async def _look_after(self, run: TakeRun) -> None:
        began_s = self._clock.monotonic_s()
        rate = self._now.record.job.capture.frame_rate
        turns = EncoderTurns(rate.numerator / rate.denominator)
        flushing = asyncio.get_running_loop().create_task(self._flush(run.take.number))
        try:
            await self._look_after_until_gone(run, began_s, turns)
        finally:
            flushing.cancel()
            await asyncio.wait({flushing})

    async def _flush(self, number: int) -> None:
        """Has the disk keep what was recorded, again and again: the machine may go down."""
        while True:
            await asyncio.sleep(_FLUSHED_EVERY_S)
            with contextlib.suppress(OSError):
                await asyncio.to_thread(flush_take, self._now.folder, number)

    async def _look_after_until_gone(self, run: TakeRun, began_s: float, turns: EncoderTurns) -> None:
        while not run.gone:
            try:
                await self._turn(run, began_s, turns)
            except OSError:
                # A descriptor short or a sick disk must not cost the recording its director.
                _LOG.exception("Cannot look after %s; trying again", self._now.folder.key)
            if self._is_to_end(run):
                run.end()
            await self._pause(run)

    async def _turn(self, run: TakeRun, began_s: float, turns: EncoderTurns) -> None:
        self._tell_progress(run)
        if not run.gone and (ffmpeg := run.program_pid) is not None:
            turns.follow(ffmpeg, run.take, self._clock.monotonic_s())
        await self._note_first_picture(run)
        waited_s = self._clock.monotonic_s() - began_s
        if not run.take.begun and waited_s > self._bounds.first_picture_timeout.total_seconds():
            await self._now.fail(NO_PICTURE)
        bound = self._now.state.max_duration
        if bound is not None and self._recorded(run) >= bound:
            await self._now.end_with(RecordingEnd(cause="MAX_DURATION"))
        cause = run.figures.end_by(self._now.record.job.stop_rules)
        if cause is not None:
            await self._now.end_with(RecordingEnd(cause=cause))
        await self._now.told.note_size()
        await self._note_health(run)
        self._now.told.note_page(self._now.stage.figures)
        if self._playlists.any:
            await asyncio.to_thread(self._playlists.follow)
        await self._thumbnails.take_due(
            self._now.record.job, self._now.display, self._now.told.recorded, before=self._now.state.thumbnails_before
        )
        if run.take.frames and self._now.state.measured_use is None:
            use = await asyncio.to_thread(self._meter.measure, self._now.display, run.program_pid)
            if use is not None:
                await self._now.told.publish_use(use)

    def _tell_progress(self, run: TakeRun) -> None:
        if not run.look() or run.figures.progress is None:
            return
        known = [take for take in self._now.state.takes if take.number == run.take.number]
        if all(run.take.is_beyond(take) for take in known):
            self._health.advanced(self._clock.monotonic_s())
        self._now.told.progressed(run.take, run.figures.progress)
        if (progress := self._now.told.status.progress) is not None:
            lost = progress.duplicated_frames + progress.dropped_frames
            self._health.progressed(progress, written_s=self._clock.monotonic_s(), lost_frames=lost)

    async def _note_health(self, run: TakeRun) -> None:
        now_s = self._clock.monotonic_s()
        if self._is_to_end(run) or self._now.told.status.phase is not Phase.RUNNING:
            return
        self._health.examine(run.program_pid, now_s)
        if self._health.judge(now_s):
            await self._now.told.tell_health(self._health.conditions)
        cause = self._health.end_cause(now_s)
        if cause is not None:
            await self._now.fail(OUTPUT_STALLED if cause is StopCause.OUTPUT_STALLED else CAPTURE_STALLED)

    def _is_to_end(self, run: TakeRun) -> bool:
        """Tells whether a take is to end; one that was told to ends also when the recording is resumed meanwhile."""
        return run.told_to_end or self._now.ended.is_set() or self._now.resting

    def _recorded(self, run: TakeRun) -> timedelta:
        """How much there is now of all takes together; ffmpeg tells only now and then."""
        return self._now.told.recorded - run.take.out_time + run.figures.out_time_at(self._clock.monotonic_s())

    async def _note_first_picture(self, run: TakeRun) -> None:
        if self._now.told.status.phase is Phase.STARTING and run.take.begun:
            await self._now.told.begin_running(run.figures.first_picture_age(self._clock.monotonic_s()))

    async def _pause(self, run: TakeRun) -> None:
        """Waits for the next turn: soon while something is expected, at once when ffmpeg ends or something is asked."""
        pause_s = _BRISK_S if self._is_to_end(run) or not run.take.begun else _STEADY_S
        if (bound := self._now.state.max_duration) is not None:
            pause_s = min(pause_s, max((bound - self._recorded(run)).total_seconds(), _BRISK_S))
        with contextlib.suppress(TimeoutError), run.waking(self._now.wake):
            await asyncio.wait_for(self._now.wake.wait(), pause_s)
        self._now.wake.clear()

    async def _conclude(self, run: TakeRun) -> None:
        with contextlib.suppress(OSError):
            self._tell_progress(run)
        await self._note_first_picture(run)
        await run.reap()
        asked = self._is_to_end(run)
        take = replace(run.take, ended=True)
        verdict = await asyncio.to_thread(
            self._shooting.verdict, self._now.record, self._now.folder, take, run.exit_code, asked=asked
        )
        await self._now.told.keep_take(take)
        if verdict is not None:
            await self._now.fail(verdict)

    async def _rest(self) -> None:
        """Awaits that the recording goes on, or ends."""
        async with self._now.told.condition("PAUSED", "It rests until it is resumed or stopped.", at_once=True):
            while self._now.resting and not self._now.ended.is_set():
                await self._now.wake.wait()
                self._now.wake.clear()
        self._health.begin_anew(self._clock.monotonic_s())


def _health(direction: Direction, clock: Clock, bounds: TakeBounds) -> AttemptHealth:
    job = direction.record.job
    rate = job.capture.frame_rate
    return AttemptHealth(
        clock,
        bounds.health,
        active_s=clock.monotonic_s(),
        real_time=True,
        frame_rate=rate.numerator / rate.denominator if job.pictures else None,
        published=False,
    )
