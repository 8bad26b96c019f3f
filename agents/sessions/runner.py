"""Watches one attempt until its processes are gone, by its folder alone.

It knows no difference between an attempt that this agent launched, one that it found running and one that ended while
no agent was there: each turn looks at what is true now. Cancelling it leaves the processes alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agents.pipelines.job import IngestProtocol
from agents.sessions.attempt import Ending, Phase, StopCause
from agents.sessions.attempt_health import AttemptHealth
from agents.sessions.bounded_files import bound_file
from agents.sessions.endings import Conclusion, conclude, conclude_fenced, has_output, place_late, tidy_outputs
from agents.sessions.fence import AttemptFence, FencedError
from agents.sessions.file_ages import written_time
from agents.sessions.ingest import another_key_was_used
from agents.sessions.joining import tidy
from agents.sessions.live_playlists import LivePlaylists
from agents.sessions.output_discards import remove_artifacts, thrown_away
from agents.sessions.output_folders import unmark_presentations
from agents.sessions.pacing import Pacer
from agents.sessions.part_endings import finish_outputs, joining_condition
from agents.sessions.playlist_guard import PlaylistGuard
from agents.sessions.processes import AttemptProcesses
from agents.sessions.progress_file import ProgressFile
from agents.sessions.recent_speed import RecentSpeed
from agents.sessions.shim_watch import ShimWatch
from agents.sessions.stop_ladder import Step, StopLadder
from agents.sessions.written_size import WrittenSize
from gpu_balancer.runtime.redaction import Redactor

if TYPE_CHECKING:
    import signal
    from datetime import datetime

    from agents.pipelines.progress import Progress
    from agents.sessions.attempt import AttemptStatus
    from agents.sessions.fence import FenceHold, Fences
    from agents.sessions.records import LaunchRecord
    from agents.sessions.running import RunnerSettings
    from agents.sessions.session_trace import SessionTrace
    from agents.sessions.status_book import Attempt, StatusBook
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_BRISK_S = 0.1
_STEADY_S = 1.0


class AttemptRunner:
    """The watcher of one attempt."""

    def __init__(
        self,
        attempt: Attempt,
        launch: LaunchRecord,
        *,
        book: StatusBook,
        fences: Fences,
        trace: SessionTrace,
        clock: Clock,
        settings: RunnerSettings,
    ) -> None:
        """Makes a watcher.

        Args:
            attempt: What to watch.
            launch: How it was launched.
            book: Where its statuses are kept and told.
            fences: Of this host.
            trace: The session's spans.
            clock: For deadlines and times.
            settings: How attempts are run.
        """
        self._attempt = attempt
        self._folder = attempt.folder
        self._launch = launch
        self._book = book
        self._fence = AttemptFence(fences=fences, key=attempt.key, folder=attempt.folder.path, generation=launch.fences)
        self._trace = trace
        self._clock = clock
        self._settings = settings
        self._redactor = Redactor(launch.secrets)
        self._progress = ProgressFile(attempt.folder.progress)
        self._read = self._noted = attempt.status.progress
        self._recent_speed = RecentSpeed()
        self._playlists = LivePlaylists(launch.playlists)
        self._processes: AttemptProcesses | None = None
        self._to_continue = self._concluding = False
        self._trouble = ""
        self._pacer = Pacer(clock, hold=launch.hold, send=self._send, read=self._latest_progress)
        self._ladder = StopLadder(clock, grace=settings.stop_timeout, signalled=attempt.status.signal_time is not None)
        self._wake = asyncio.Event()
        self._shim_watch = ShimWatch(self._wake.set)
        self._deadline_s = self._next_deadline_s()
        self._health = AttemptHealth(
            clock,
            settings.health,
            active_s=self._active_s(),
            real_time=launch.real_time,
            frame_rate=launch.frame_rate,
            published=launch.ingest_protocol is not None,
        )
        self._playlist_guard = PlaylistGuard(launch.hls_folders)
        self._size = WrittenSize(clock, attempt.folder.artifacts, [move.part_path for move in launch.every_move])

    @property
    def _status(self) -> AttemptStatus:
        return self._attempt.status

    def _change(self, **changes: Any) -> None:
        self._attempt.status = replace(self._attempt.status, **changes)

    async def stop(self, cause: StopCause, *, discard_outputs: bool = False, to_be_continued: bool = False) -> None:
        """Asks the program to complete its outputs and end; as `Runner.stop`.

        What a program has made that ended by itself before is kept, though it is to be thrown away: it was asked for.
        Of what several stops say of the outputs the last holds, until the attempt is being concluded.
        """
        if not self._status.live:
            return
        before = self._status
        if before.stop_cause is None:
            self._change(stop_cause=cause)
        if self._status.stop_cause is StopCause.ASKED:
            if not self._concluding:
                discard_outputs &= before.discard_outputs or self._folder.exit_code() is None
                self._change(discard_outputs=discard_outputs)
            self._change(to_be_continued=to_be_continued)
        if self._status is not before:
            self._wake.set()
            await self._book.keep(self._attempt)

    def pace(self, speed_limit: float | None) -> None:
        """Holds the program at a speed, in times real time. None: lets it go. A live input is never held."""
        if self._status.stop_cause is None:
            self._pacer.set_limit(speed_limit)

    async def settle(self) -> None:
        """Names or joins files and ends playlists of an attempt that failed, once none goes on with it."""
        launch, status = self._launch, self._status
        with contextlib.suppress(FencedError), await asyncio.to_thread(self._fence.prove) as fence:
            ended = await asyncio.to_thread(place_late, self._folder, launch, status)
            conclusion, steps = await finish_outputs(
                launch, self._folder, ended, fence, self._clock.now(), goes_on=False
            )
            await asyncio.to_thread(tidy, steps)
            await asyncio.to_thread(unmark_presentations, launch.presentations, status.key.session)
            self._change(failure=conclusion.failure, conditions=conclusion.conditions)
            if self._status != status:
                await self._book.publish(self._attempt)

    async def give_up(self) -> None:
        """Gives back nothing: it holds nothing beyond a watch."""

    async def watch(self, shim: int | None = None) -> None:
        """Watches until the attempt has ended and that was told.

        Args:
            shim: Process id of the shim when it is the agent's own child. None: it was found.
        """
        with AttemptProcesses(self._folder, shim) as processes:
            self._processes = processes
            try:
                # A predecessor that was killed may have been holding it just then.
                self._to_continue = shim is None
                while await self._turn(processes):
                    await self._pause(processes)
            finally:
                self._pacer.release()
                self._processes = None
                self._shim_watch.end()
        await self._finish()

    async def _turn(self, processes: AttemptProcesses) -> bool:
        """Looks after the attempt once. Returns False when none of its processes lives."""
        trouble = ""
        for step in (self._look_after, self._end_in_time):
            try:
                if not processes.any_alive():
                    return False
                await step(processes)
            except OSError as error:
                # A descriptor short or a sick disk must not cost the attempt its watcher, or its end.
                trouble = f"{trouble}{error}"
                if trouble not in self._trouble:
                    _LOG.warning("Cannot look after %s; trying again: %s", self._status.key, error, exc_info=True)
        self._trouble = trouble
        return True

    async def _look_after(self, processes: AttemptProcesses) -> None:
        if self._to_continue:
            processes.continue_program()
            self._to_continue = False
        self._read_progress()
        await self._note_size()
        if self._playlists.any:
            await asyncio.to_thread(self._playlists.follow)
        await self._note_phase()
        await self._note_health(processes)
        await self._guard_playlists()
        await self._note_lost_shim(processes)
        self._progress.bound()
        bound_file(self._folder.log, limit_bytes=(limit := self._settings.log_limit_bytes), keep_bytes=limit // 2)

    async def _end_in_time(self, processes: AttemptProcesses) -> None:
        if self._deadline_s is not None and self._active_s() >= self._deadline_s:
            self._deadline_s = None
            running = self._status.phase is Phase.RUNNING
            await self.stop(StopCause.MAX_DURATION if running else self._health.no_frame_cause())
        if self._status.stop_cause is not None:
            self._pacer.release()
            await self._climb(processes)

    def _active_s(self) -> float:
        """Tells monotonic seconds without those for which the program was held: all that it can be blamed for."""
        return self._clock.monotonic_s() - self._pacer.held_s

    def _send(self, number: signal.Signals) -> bool:
        return self._processes is not None and self._processes.signal_program(number)

    def _latest_progress(self) -> Progress | None:
        self._read = self._progress.read(self._read)
        return self._read

    def _read_progress(self) -> None:
        before, read = self._noted, self._latest_progress()
        if read is None or read is before:
            return
        self._noted = read
        if before is None or (read.frames, read.out_time) != (before.frames, before.out_time):
            self._health.advanced(self._active_s())
        written_s = self._clock.monotonic_s() - self._progress.unread_s
        self._health.progressed(read, written_s=written_s)
        self._change(progress=self._measured(self._recent_speed.note(read, written_s)))
        self._book.progressed(self._attempt)

    async def _note_size(self, *, at_once: bool = False) -> None:
        if self._status.progress is not None and await self._size.look(at_once=at_once):
            self._change(progress=self._measured(self._status.progress))

    def _measured(self, progress: Progress) -> Progress:
        written = self._size.bytes or progress.written_bytes
        return replace(progress, written_bytes=written, total_time=self._launch.total_time)

    async def _note_phase(self) -> None:
        if self._status.phase is not Phase.STARTING:
            return
        if self._publisher_used_another_key():
            await self.stop(StopCause.WRONG_STREAM_KEY)
        elif has_output(self._launch, self._status):
            self._change(phase=Phase.RUNNING, running_time=self._clock.now(), conditions=())
            self._trace.first_frame(self._status)
            self._deadline_s = self._next_deadline_s()
            await self._book.publish(self._attempt)

    def _publisher_used_another_key(self) -> bool:
        protocol = self._launch.ingest_protocol
        return protocol is IngestProtocol.RTMP and another_key_was_used(self._folder.log, self._redactor)

    async def _note_health(self, processes: AttemptProcesses) -> None:
        if self._status.stop_cause is not None:
            return
        if not self._pacer.holding and processes.program_fd is not None:
            self._health.examine(self._folder.program_pid(), self._active_s())
        if self._status.phase is not Phase.RUNNING:
            return
        if self._health.judge(self._active_s()):
            self._change(conditions=self._health.conditions)
            await self._book.publish(self._attempt)
        if (cause := self._health.end_cause(self._active_s())) is not None:
            _LOG.warning("Ending %s: nothing was written for too long (%s)", self._status.key, cause)
            await self.stop(cause)

    async def _guard_playlists(self) -> None:
        if not self._launch.hls_folders or self._status.stop_cause is not None:
            return
        made_s = self._status.progress.out_time.total_seconds() if self._status.progress is not None else 0.0
        rate = self._size.bytes / made_s if made_s > 1 else 0.0
        if not await asyncio.to_thread(self._playlist_guard.look, rate):
            await self.stop(StopCause.DISK_FULL)

    async def _note_lost_shim(self, processes: AttemptProcesses) -> None:
        if processes.shim_alive() is not False:
            return
        if self._folder.exit_code() is None:
            await self.stop(StopCause.SHIM_LOST)
        else:
            # The program has ended and was told of; what still holds the lock are strays of it.
            processes.kill_all()

    async def _climb(self, processes: AttemptProcesses) -> None:
        step = self._ladder.climb(processes)
        if step is Step.SIGNALLED:
            self._change(signal_time=self._clock.now())
            await self._book.keep(self._attempt)
        elif step is Step.KILLED:
            _LOG.warning("%s did not end in time after its signal and was killed", self._status.key)

    def _next_deadline_s(self) -> float | None:
        """Tells when something must have happened, in active seconds. None: nothing must."""
        starting = self._status.phase is Phase.STARTING
        bound = self._launch.first_frame_timeout if starting else self._launch.max_duration
        if bound is None:
            return None
        since = self._status.launch_time if starting else self._status.running_time
        now = self._clock.now()
        gone_s = max((now - (since or now)).total_seconds(), 0.0)
        return self._active_s() + bound.total_seconds() - gone_s

    async def _pause(self, processes: AttemptProcesses) -> None:
        """Waits for the next turn: soon while something is expected, at once when the shim ends or a stop is asked."""
        self._shim_watch.begin(processes)
        shim_ended = processes.shim_alive() is False
        expecting = self._status.phase is Phase.STARTING or self._status.stop_cause is not None or shim_ended
        pause_s = _BRISK_S if expecting else _STEADY_S
        if self._deadline_s is not None:
            # One that has passed could not be kept, for a sick disk.
            pause_s = min(pause_s, max(self._deadline_s - self._active_s(), _BRISK_S))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), pause_s)
        self._wake.clear()

    async def _finish(self) -> None:
        with contextlib.suppress(OSError):
            self._read_progress()
            await self._note_size(at_once=True)
        if self._status.phase is Phase.STARTING:
            await self._notice_what_was_missed()
        try:
            with await asyncio.to_thread(self._fence.prove) as fence:
                await self._restore_playlists()
                await self._conclude(fence)
        except FencedError as error:
            _LOG.error("%s", error)
            await self._tell_end(await asyncio.to_thread(conclude_fenced, error, self._launch, self._clock.now()))

    async def _restore_playlists(self) -> None:
        full = self._status.stop_cause is StopCause.DISK_FULL
        try:
            await asyncio.to_thread(self._playlists.follow)
            await self._book.write_down(partial(self._playlist_guard.restore, full=full))
        except OSError as error:
            _LOG.error("Cannot put back the playlists of %s: %s", self._status.key, error.strerror)

    async def _conclude(self, fence: FenceHold) -> None:
        self._concluding = True
        tail_lines = self._settings.log_tail_lines
        conclusion = await asyncio.to_thread(
            conclude, self._folder, self._launch, self._status, redactor=self._redactor, log_tail_lines=tail_lines
        )
        if self._status.discard_outputs:
            await self._tell_end(replace(conclusion, conditions=(thrown_away(self._clock.now()),)))
            await asyncio.to_thread(remove_artifacts, self._folder)
            return
        if self._launch.files:
            self._change(conditions=(joining_condition(self._clock.now()),))
            await self._book.publish(self._attempt)
        conclusion, steps = await finish_outputs(
            self._launch, self._folder, conclusion, fence, self._clock.now(), goes_on=self._goes_on(conclusion)
        )
        await self._tell_end(conclusion)
        await asyncio.to_thread(tidy, steps)
        await asyncio.to_thread(tidy_outputs, self._launch, conclusion.ending)

    def _goes_on(self, conclusion: Conclusion) -> bool:
        """Tells whether another attempt may go on with its outputs."""
        failed = self._launch.may_continue and conclusion.ending is Ending.FAILED
        return self._status.to_be_continued if self._status.stop_cause is StopCause.ASKED else failed

    async def _tell_end(self, conclusion: Conclusion) -> None:
        self._change(
            phase=Phase.ENDED,
            ending=conclusion.ending,
            failure=conclusion.failure,
            conditions=conclusion.conditions,
            end_time=self._end_time(),
        )
        await self._book.publish(self._attempt)
        self._trace.ended(self._status)

    async def _notice_what_was_missed(self) -> None:
        """Looks for a beginning that came and went between two turns, or while no agent was there."""
        if self._publisher_used_another_key():
            await self.stop(StopCause.WRONG_STREAM_KEY)
        elif has_output(self._launch, self._status):
            self._change(running_time=self._end_time())
            self._trace.first_frame(self._status)

    def _end_time(self) -> datetime:
        now = self._clock.now()
        begun = self._status.signal_time or self._status.running_time or self._status.launch_time or now
        return now if self._folder.exit_code() is None else written_time(self._folder.exit, since=begun, now=now)
