"""Holds a program at a speed: it is stopped and continued in slices, so that its media time keeps to a line.

SIGSTOP and SIGCONT work with any program on any device, and what is stopped uses neither cores nor engines. Cheaper
means do not: ffmpeg's own `-readrate` cannot be changed while it runs, and a nice value does nothing for NVENC. How
fast the program goes when it is let is learned from its progress reports; each report also shows how far it really is,
so that errors of the guess do not add up. Of a program that fell behind, as when its cores were busy, only a little is
made good, because it would take that time from those for whom it is held.

A stopped program reports nothing, so nothing that only a report could tell may keep it stopped: whatever is believed of
it, it runs for a moment every other second, or every few on a machine that is very busy.

What is held is always let go before anybody else signals it: a stopped program hears no SIGTERM.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from typing import TYPE_CHECKING

from agents.pipelines.holding import Hold

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.pipelines.progress import Progress
    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_PERIOD_S = 0.2
"""Seconds from one slice to the next: short against a segment, long against what stopping costs."""
_LEAST_SLICE_S = 0.002
"""Seconds; less is not worth a stop. What is due is saved up to a later period then."""
_LONGEST_REST_S, _LONGEST_LATE_REST_S = 1.6, 5.0
"""Seconds of a stop. Files would wait for ever, but who watches one would take it for dead: what is so fast, or so far
ahead, that it ought to rest longer runs for the least slice all the same, a thousandth of the time. When the machine is
so busy that slices end late it may rest longer in proportion, up to the second figure: else it would take much more."""
_LONGEST_MOMENT_S = 0.5
"""Seconds of a stop when somebody waits at the other end of a connection; a tenth of what ffmpeg itself waits."""
_MADE_GOOD_S, _PAID_BACK_S = 2.0, 10.0
"""Seconds of being behind that may be caught up, and of being ahead that are waited for."""
_SLOWED_WITHIN_S, _HASTENED_WITHIN_S = 0.5, 0.2
"""Seconds over which being ahead is spread, so that one late report makes no jerk, and being behind, which can be
shorter: as the program is taken to be as fast as it was at its best, it makes less of its slices than they allow."""
_GUESSED_SPEED = 8.0
"""How fast a program is taken to be that has told nothing yet, in times real time."""
_REPORTED_EVERY_S = 0.1
"""Seconds of wall time after which ffmpeg reports, as it is told to for inputs that can be held."""
_REPORTS, _JOINED_REPORTS = 12, 4
"""How many reports are remembered, and how many are looked at together: one alone tells of a slice of the past."""
_UNHEARD_S = 3 * _REPORTED_EVERY_S
"""Seconds of running without a report that are believed; beyond them others had its cores, and it made nothing."""
_SLOWEST = 0.01
_OPENING_S = 0.02
"""Seconds between looks for the first report, before which nothing can be told."""


class Pacer:
    """Holds one program. `release` it before it is signalled or left."""

    def __init__(
        self,
        clock: Clock,
        *,
        hold: Hold | None,
        send: Callable[[signal.Signals], bool],
        read: Callable[[], Progress | None],
    ) -> None:
        """Lets the program go freely at first.

        Args:
            clock: For slices.
            hold: How the program can be held. None: not at all, limits are passed over.
            send: Signals the program; tells whether it is there.
            read: Gives the latest progress, the same object while there is no newer one. None: none yet.
        """
        self._clock = clock
        self._hold = hold
        self._send = send
        self._read = read
        self._limit: float | None = None
        self._released = False
        self._timer: asyncio.TimerHandle | None = None
        self._held = False
        self._held_s = 0.0
        self._stretch_s = 0.0
        self._rested_s = 0.0
        self._slice_s = 0.0
        self._slice_ran_s = 0.0
        self._ran_s = 0.0
        self._marked_s = clock.monotonic_s()
        self._rest_s = 0.0
        self._seen: Progress | None = None
        self._reports: deque[tuple[float, float]] = deque(maxlen=_REPORTS)
        self._guess = _GUESSED_SPEED
        self._line = (0.0, self._marked_s)
        self._line_is_guessed = False

    @property
    def holding(self) -> bool:
        """Whether the program is stopped just now."""
        return self._held

    @property
    def held_s(self) -> float:
        """Seconds for which the program was stopped, all stops together."""
        return self._held_s + (self._clock.monotonic_s() - self._marked_s if self._held else 0.0)

    def set_limit(self, limit: float | None) -> None:
        """Holds the program at a speed from now on; the same limit again changes nothing.

        Args:
            limit: In times real time, above 0. None: as fast as it goes.
        """
        if self._released or self._hold is None or limit == self._limit:
            return
        self._account()
        begins = self._limit is None
        self._limit = limit
        if limit is None:
            self._let_go()
        elif begins:
            self._begin()
        else:
            self._line = (self._out_time_s(), self._marked_s)
            self._rest_s = 0.0
            self._wait(0.0)

    def release(self) -> None:
        """Lets the program go for good. May be repeated."""
        self._released = True
        self._limit = None
        self._let_go()

    def _begin(self) -> None:
        if self._reports:
            self._guess = self._free_speed()
        self._seen = self._latest()
        if not self._reports:
            self._guess = self._told_speed()
        self._reports.clear()
        self._ran_s = self._slice_s = self._slice_ran_s = self._rested_s = 0.0
        # A program that is launched with a limit begins at 0. Of one that runs, the next report tells where it was.
        self._line = (self._out_time_s(), self._marked_s)
        self._line_is_guessed = self._seen is not None
        self._wait(0.0)

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._rest_s = 0.0
        self._continue()

    def _wait(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if self._limit is None:
            return
        try:
            self._wait(self._next_slice(self._limit))
        except OSError:
            # A descriptor short must not let it go: held a little wrongly is better than not at all.
            _LOG.exception("Cannot pace a program; trying again")
            self._wait(_PERIOD_S)

    def _next_slice(self, limit: float) -> float:
        """Stops or continues the program. Returns for how many seconds."""
        self._account()
        self._note_report()
        if self._rest_s > 0:
            rest_s, self._rest_s = self._rest_s, 0.0
            self._stop()
            return rest_s
        if self._seen is None:
            self._slice_s += _OPENING_S
            return _OPENING_S
        slice_s = self._due_slice_s(limit)
        if slice_s <= 0:
            self._stop()
            return _PERIOD_S
        if self._held:
            self._slice_s = 0.0
        self._continue()
        self._slice_s += slice_s
        if slice_s >= _PERIOD_S:
            return _PERIOD_S
        self._rest_s = _PERIOD_S - slice_s
        return slice_s

    def _due_slice_s(self, limit: float) -> float:
        """Tells for how many seconds of the next period the program runs."""
        ahead_s = self._ahead_s(limit)
        within_s = _SLOWED_WITHIN_S if ahead_s > 0 else _HASTENED_WITHIN_S
        due = limit * _PERIOD_S - ahead_s * _PERIOD_S / within_s
        slice_s = due / self._free_speed()
        if slice_s >= _LEAST_SLICE_S:
            return min(slice_s, _PERIOD_S)
        return _LEAST_SLICE_S if self._stretch_s + _PERIOD_S > self._longest_rest_s() else 0.0

    def _longest_rest_s(self) -> float:
        if self._hold is Hold.FOR_A_MOMENT:
            return _LONGEST_MOMENT_S
        late = self._slice_ran_s / self._slice_s if self._slice_s else 1.0
        return min(_LONGEST_REST_S * max(late, 1.0), _LONGEST_LATE_REST_S)

    def _ahead_s(self, limit: float) -> float:
        """Tells by how many seconds of media the program is ahead of what it may have done; negative: behind."""
        out_s, since_s = self._line
        ahead_s = self._out_time_s() - out_s - limit * (self._marked_s - since_s)
        counted_s = min(max(ahead_s, -limit * _MADE_GOOD_S), limit * _PAID_BACK_S)
        self._line = (out_s + ahead_s - counted_s, since_s)
        return counted_s

    def _out_time_s(self) -> float:
        """Media seconds that are done: by the last report, and by its speed since then."""
        if self._seen is None:
            return 0.0
        return self._seen.out_time.total_seconds() + min(self._ran_s, _UNHEARD_S) * self._free_speed()

    def _free_speed(self) -> float:
        """Tells how fast the program goes while it is let, in times real time: as fast as it was lately at its best.

        Where others want the same cores it goes now fast, now slowly. Taken for slow, it would run far ahead in one
        slice; taken for fast, it falls behind a little, which the next slices make good.
        """
        reports = tuple(self._reports)
        if len(reports) < _JOINED_REPORTS:
            made_s, ran_s = sum(made for made, _ in reports), sum(ran for _, ran in reports)
            shown = max(made_s / max(ran_s, _LEAST_SLICE_S), _SLOWEST)
            return shown if ran_s >= _REPORTED_EVERY_S else max(shown, self._guess)
        joined = [reports[first : first + _JOINED_REPORTS] for first in range(len(reports) - _JOINED_REPORTS + 1)]
        speeds = [sum(made for made, _ in some) / max(sum(ran for _, ran in some), _LEAST_SLICE_S) for some in joined]
        return max(*speeds, _SLOWEST)

    def _told_speed(self) -> float:
        told = None if self._seen is None else self._seen.speed
        # What was held before, by another agent perhaps, tells far too little.
        return max(told or 0.0, _GUESSED_SPEED)

    def _note_report(self) -> None:
        latest = self._latest()
        if latest is None or latest is self._seen:
            return
        before_s = 0.0 if self._seen is None else self._seen.out_time.total_seconds()
        # After a rest the report was due: it was written as soon as the program went on.
        since_s = min(self._slice_ran_s, _REPORTED_EVERY_S) if self._rested_s >= _REPORTED_EVERY_S else 0.0
        made_s = latest.out_time.total_seconds() - before_s
        first, believed_s = self._seen is None, self._out_time_s()
        if not first and not self._line_is_guessed:
            # Not the first one: it covers the start, which takes its time and makes nothing, or a time before the hold.
            self._reports.append((max(made_s, 0.0), max(self._ran_s - since_s, 0.0)))
        self._seen = latest
        self._ran_s = since_s
        if first:
            self._guess = self._told_speed()
        if self._line_is_guessed:
            # It tells where the program was when the hold began, not what it made too much since.
            self._line = (self._line[0] + self._out_time_s() - believed_s, self._line[1])
            self._line_is_guessed = False

    def _latest(self) -> Progress | None:
        try:
            return self._read()
        except OSError:
            return self._seen

    def _account(self) -> None:
        now_s = self._clock.monotonic_s()
        passed_s, self._marked_s = now_s - self._marked_s, now_s
        if self._held:
            self._held_s += passed_s
            self._stretch_s += passed_s
        else:
            self._ran_s += passed_s
            self._slice_ran_s += passed_s

    def _stop(self) -> None:
        if not self._held and self._send(signal.SIGSTOP):
            self._account()
            self._held = True

    def _continue(self) -> None:
        if self._held:
            self._send(signal.SIGCONT)
            self._account()
            self._held = False
            self._rested_s, self._slice_ran_s = self._stretch_s, 0.0
        self._stretch_s = 0.0
