"""Ends a program: one signal, a bounded wait, then death. Never a second signal, which would cost the file its index.

A stopped program hears no signal, so it is continued before it gets its one. To a program that runs that is nothing.
A program that waits for its input hears it only when something comes: so what it waits for is cut off after a moment,
and it finds its input at an end, as it would if the other side had left.

It is climbed by small steps from a loop, and what was done is told to the caller, who keeps it, so that an agent that
starts anew goes on from the same rung.
"""

from __future__ import annotations

import signal
from enum import Enum, auto
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import timedelta

    from agents.sessions.processes import AttemptProcesses
    from gpu_balancer.runtime.clock import Clock

_CUT_AFTER_S = 1.0
"""Seconds after the signal. Who still waits for bytes then has not heard it: it asks for none once it has."""
_SHIM_GRACE_S = 2.0
"""Seconds that a shim gets to write down that its program was killed."""


class Step(Enum):
    """What a step of the ladder did."""

    WAITED = auto()
    SIGNALLED = auto()
    KILLED = auto()


class StopLadder:
    """The rungs of one attempt."""

    def __init__(self, clock: Clock, *, grace: timedelta, signalled: bool) -> None:
        """Stands at the foot.

        Args:
            clock: For waits.
            grace: How long the program may complete its outputs after the signal; longer than its I/O timeouts.
            signalled: Whether a predecessor has sent the signal already.
        """
        self._clock = clock
        self._grace_s = grace.total_seconds()
        self._signalled = signalled
        self._since_s: float | None = None
        self._killed_s: float | None = None

    @property
    def begun(self) -> bool:
        """Whether it is being climbed."""
        return self._since_s is not None

    @property
    def killed(self) -> bool:
        """Whether the program was killed."""
        return self._killed_s is not None

    def climb(self, processes: AttemptProcesses) -> Step:
        """Does what is due.

        Returns:
            What was done.
        """
        now_s = self._clock.monotonic_s()
        if self._since_s is None:
            self._since_s = now_s
        if self._killed_s is not None:
            if now_s - self._killed_s > _SHIM_GRACE_S:
                processes.kill_all()
            return Step.WAITED
        # The program may not have begun yet: then the signal is tried again at the next step.
        if not self._signalled and processes.continue_program() and processes.signal_program(signal.SIGTERM):
            self._signalled = True
            self._since_s = now_s
            return Step.SIGNALLED
        if self._signalled and _CUT_AFTER_S < now_s - self._since_s <= self._grace_s:
            processes.cut_inputs()
        if now_s - self._since_s > self._grace_s:
            processes.kill_but_shim()
            self._killed_s = now_s
            return Step.KILLED
        return Step.WAITED
