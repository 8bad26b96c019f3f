"""When a session begins anew by itself, and after which pause.

A rule is chosen by the session's client, or by the operator for all that do not choose. Only failures that may pass
count: a film that cannot be read is not read better by a second attempt. Restarts are counted in a row, and an attempt
that ran for long enough ends the row, so that a camera which fails once a day is not given up after a week.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

STEADY = timedelta(minutes=10)
"""An attempt that ran for so long ends the row of restarts."""

LEAST_LEFT = timedelta(seconds=1)
"""Of running that an attempt is given, however little is left of what its session may run: agents refuse less."""

LOST_REASONS = frozenset(
    {
        *("AGENT_FAULT", "AGENT_LOST", "ATTEMPT_LOST", "DEVICE_LOST", "DEVICE_UNHEALTHY"),
        *("LAUNCH_INTERRUPTED", "PROCESS_LOST", "RECORD_DAMAGED"),
    }
)
"""Failures of what a session runs on, for which neither it nor its input is to blame."""

PASSING_REASONS = LOST_REASONS | frozenset(
    {
        *(
            "ENCODER_SESSION_LIMIT",
            "ENCODER_UNAVAILABLE",
            "ENGINE_FAULT",
            "DEVICE_MEMORY",
            "FFMPEG_CRASHED",
            "FFMPEG_FAILED",
        ),
        *("KILLED", "SHIM_LOST", "UNEXPLAINED", "STALLED", "NO_FIRST_FRAME", "CAPTURE_ENDED"),
        *("INPUT_LOST", "INPUT_ENDED", "INPUT_UNREADABLE", "INPUT_UNREACHABLE", "PAGE_UNREACHABLE"),
        *("OUTPUT_UNREACHABLE", "OUTPUT_STALLED", "OUTPUT_FENCED"),
        *("DISPLAY_TIMEOUT", "DISPLAY_FAILED", "DISPLAY_LOST", "SOUND_LOST"),
        *("BROWSER_FAILED", "BROWSER_LOST", "PAGE_CRASHED"),
    }
)
"""Failures that may not come again at the next attempt."""

INPUT_ENDED = "INPUT_ENDED"
"""What counts as the failure of a session that is to go on although its live input ended by itself."""


class RestartMode(StrEnum):
    """When a session begins anew."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"
    """Also when its live input ends by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRule:
    """What becomes of a session whose attempt ends short of its work."""

    mode: RestartMode = RestartMode.NEVER
    max_restarts: int = 3
    """In a row, from 1."""
    first_backoff: timedelta = timedelta(seconds=1)
    """Before the first of a row; doubled before each further one."""
    longest_backoff: timedelta = timedelta(minutes=1)
    reasons: frozenset[str] = PASSING_REASONS
    """Failures that count."""

    def counts(self, reason: str) -> bool:
        """Tells whether a session begins anew after a failure, as far as that depends on which it was."""
        if reason == INPUT_ENDED and self.mode is RestartMode.ALWAYS:
            # It is what the mode is for, whatever else counts.
            return True
        return self.mode is not RestartMode.NEVER and reason in self.reasons

    def backoff(self, row: int) -> timedelta:
        """Gives the pause before a restart.

        Args:
            row: How many restarts came before it in this row, from 0.
        """
        # Bounded before it is computed: a session may restart for weeks.
        return min(self.longest_backoff, self.first_backoff * (1 << min(row, 30)))


NO_RESTART = RestartRule()
"""Of a session that begins anew for no reason."""
LOSSES_ONLY = RestartRule(mode=RestartMode.ON_FAILURE, reasons=LOST_REASONS)
"""Of a session for which neither its client nor the operator said anything."""


def row_after(row: int, ran_for: timedelta | None) -> int:
    """Gives how many restarts came before, in the row that goes on after an attempt.

    Args:
        row: The same before the attempt.
        ran_for: For how long it ran. None: it did not begin to.
    """
    return 0 if ran_for is not None and ran_for >= STEADY else row


def left_of(whole: timedelta, ran_for: timedelta) -> timedelta:
    """Gives what is left of a session's time for its present attempt.

    Args:
        whole: What it may run in all.
        ran_for: What earlier attempts ran that it continues.
    """
    return max(whole - ran_for, LEAST_LEFT) if ran_for else whole
