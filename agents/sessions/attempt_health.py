"""Judges how a running program does: whether it goes on at all, and where that matters whether it keeps up.

What it says is told as conditions; a program that stands still for too long is to be ended, with the reason that could
be seen. Time for which the program was held is not counted: it could do nothing.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.sessions.attempt import Condition, StopCause
from agents.sessions.blockage import Blockage, find_blockage, moved_bytes
from agents.sessions.lag_watch import LagWatch, Reading

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.pipelines.progress import Progress
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.settings_sections import SessionSettings

STALLED, DEGRADED = "STALLED", "DEGRADED"
_FIGURES_EVERY_S = 10.0
"""Seconds after which new figures of the same trouble are told."""
_LOOKED_AT_AFTER = 0.2
"""Share of the time to a stall after which it is looked at what the program waits for."""
_WORKING_BYTES = 256 * 1024
"""Bytes of files between two looks, a second, that show work: the index of a long file is put in front of it at the
end, which can take minutes without a frame. Reports and log lines are a thousandth of that."""
_UNREPORTED_BYTES = 4096
"""The same of a program that does not report any more: what it writes is its work, and some log."""
_UNREPORTED_S = 2.0
"""After which a program counts as one that does not report: a disk that was full has ended its reports, for good."""
_WHY = {
    Blockage.INPUT: ": its input gives nothing",
    Blockage.OUTPUT: ": an output takes nothing",
    Blockage.STOPPED: ": its process is stopped",
    Blockage.UNKNOWN: "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthBounds:
    """What is still taken for healthy."""

    stalled_after: timedelta = timedelta(seconds=10)
    """Without a new frame for so long it counts as stalled."""
    stalled_timeout: timedelta = timedelta(seconds=30)
    """After so long it is ended."""
    degraded_below: float = 0.97
    """Speed in times real time below which it counts as degraded."""


USUAL_BOUNDS = HealthBounds()


def health_bounds(settings: SessionSettings) -> HealthBounds:
    """Gives the bounds of an agent's settings."""
    return HealthBounds(
        stalled_timeout=timedelta(seconds=settings.stalled_timeout_s), degraded_below=settings.degraded_below
    )


class AttemptHealth:
    """The health of one attempt's program."""

    def __init__(
        self,
        clock: Clock,
        bounds: HealthBounds,
        *,
        active_s: float,
        real_time: bool,
        frame_rate: float | None,
        published: bool,
        look: Callable[[int], Blockage] = find_blockage,
        moved: Callable[[int], int | None] = moved_bytes,
    ) -> None:
        """Begins with a program that has just gone on.

        Args:
            clock: For times.
            bounds: What is still healthy.
            active_s: Active seconds now.
            real_time: Whether it is to keep up with real time.
            frame_rate: Frames per second that it ought to do. None: not known.
            published: Whether somebody publishes its input to it: one who pauses does nothing wrong.
            look: Tells what a process waits for.
            moved: Tells how many bytes of files a process has read and written so far.
        """
        self._clock = clock
        self._bounds = bounds
        self._published = published
        self._look = look
        self._moved = moved
        self._moved_bytes: int | None = None
        self._lag = LagWatch(below=bounds.degraded_below, frame_rate=frame_rate) if real_time else None
        self._advanced_s = active_s
        self._reported_s = clock.monotonic_s()
        self._seen: Counter[Blockage] = Counter()
        self._conditions: tuple[Condition, ...] = ()
        self._told_s = 0.0

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """What is to be told."""
        return self._conditions

    @property
    def blockage(self) -> Blockage:
        """What the program was mostly seen waiting for since its last frame."""
        # Nothing seen is no evidence; a thing seen now and then is.
        known = [(count, one) for one, count in self._seen.items() if one is not Blockage.UNKNOWN]
        return max(known, default=(0, Blockage.UNKNOWN))[1]

    def no_frame_cause(self) -> StopCause:
        """Tells why it is to be ended that has not written its first frame in time."""
        if self.blockage is Blockage.OUTPUT:
            return StopCause.OUTPUT_STALLED
        return StopCause.NO_PUBLISHER if self._published else StopCause.NO_FIRST_FRAME

    def advanced(self, active_s: float) -> None:
        """Notes that something new was written."""
        self._advanced_s = active_s
        self._seen.clear()

    def begin_anew(self, active_s: float) -> None:
        """Notes that it goes on after a rest, in which nothing could be written."""
        self.advanced(active_s)
        if self._lag is not None:
            self._lag.begin_anew()

    def progressed(self, progress: Progress, *, written_s: float, lost_frames: int | None = None) -> None:
        """Notes a report.

        Args:
            progress: What the program told.
            written_s: When it wrote that, in monotonic seconds.
            lost_frames: How many frames are lost so far. None: those that were dropped.
        """
        self._reported_s = self._clock.monotonic_s()
        if self._lag is not None:
            self._lag.note(
                Reading(
                    at_s=written_s,
                    out_s=progress.out_time.total_seconds(),
                    frames=progress.frames,
                    lost_frames=progress.dropped_frames if lost_frames is None else lost_frames,
                )
            )

    def examine(self, pid: int | None, active_s: float) -> None:
        """Looks what a program waits for that has written nothing for a while. Reads /proc.

        Args:
            pid: The program. None: it has not begun.
            active_s: Active seconds now.
        """
        looked_at_after_s = self._bounds.stalled_after.total_seconds() * _LOOKED_AT_AFTER
        if pid is None or active_s - self._advanced_s < looked_at_after_s:
            return
        before, self._moved_bytes = self._moved_bytes, self._moved(pid)
        unreported = self._clock.monotonic_s() - self._reported_s > _UNREPORTED_S
        least = _UNREPORTED_BYTES if unreported else _WORKING_BYTES
        if before is not None and self._moved_bytes is not None and self._moved_bytes - before >= least:
            self.advanced(active_s)
            return
        self._seen[self._look(pid)] += 1

    def judge(self, active_s: float) -> bool:
        """Works the conditions out anew.

        Returns:
            Whether they are to be told again.
        """
        idle_s = active_s - self._advanced_s
        stalled = idle_s >= self._bounds.stalled_after.total_seconds()
        now = self._clock.now()
        if stalled:
            since = now - timedelta(seconds=idle_s)
            return self._tell(Condition(type=STALLED, message=self._stall_message(), since_time=since))
        if self._lag is not None and self._lag.told is not None:
            return self._tell(Condition(type=DEGRADED, message=self._lag.told, since_time=now))
        changed, self._conditions = bool(self._conditions), ()
        return changed

    def end_cause(self, active_s: float) -> StopCause | None:
        """Tells why the program is to be ended now. None: it is not."""
        if active_s - self._advanced_s < self._bounds.stalled_timeout.total_seconds():
            return None
        if self.blockage is Blockage.OUTPUT:
            return StopCause.OUTPUT_STALLED
        if self._published and self.blockage is Blockage.INPUT:
            return None
        return StopCause.STALLED

    def _tell(self, condition: Condition) -> bool:
        now_s = self._clock.monotonic_s()
        known = next((one for one in self._conditions if one.type == condition.type), None)
        if known is not None:
            if known.message == condition.message or now_s - self._told_s < _FIGURES_EVERY_S:
                return False
            condition = replace(condition, since_time=known.since_time)
        self._conditions, self._told_s = (condition,), now_s
        return True

    def _stall_message(self) -> str:
        return f"No frame was written for {self._bounds.stalled_after.total_seconds():g} s{_WHY[self.blockage]}."
