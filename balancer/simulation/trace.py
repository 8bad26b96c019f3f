"""A trace: sessions as they came, what they asked for, and how long they held their devices.

It names no inputs, no outputs and no devices: what a session took is all that placing another one depends on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from balancer.domain.session import Priority
from balancer.domain.workload import Workload

if TYPE_CHECKING:
    from random import Random

_COPY_SHIFT_S = 60.0
"""A copy of a session comes within this time of it, so that not all copies come at one instant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSession:
    """One session that was asked for."""

    arrival_s: float
    """Seconds from the trace's beginning."""
    duration_s: float | None
    """Seconds for which it holds a device. None: to the end of the trace, and nobody knows how much longer."""
    workload: Workload
    priority: Priority = Priority.LIVE
    preemptible: bool = False
    max_wait_s: float = 0.0
    """Seconds that it would wait for a device. 0: it is refused where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Sessions in the order in which they came."""

    sessions: tuple[TraceSession, ...]
    end_s: float
    """When the trace was closed: no session came later. Not before the last one's arrival."""
    title: str = ""
    """What it is of, for people."""

    def held_s(self, session: TraceSession) -> float:
        """Gives how long a session holds a device, in seconds."""
        return max(0.0, self.end_s - session.arrival_s) if session.duration_s is None else session.duration_s

    def scaled(self, factor: float, chance: Random) -> Trace:
        """Gives the trace with more or fewer sessions of the same kinds at the same times.

        Each session is there as many times as the factor says: whole copies, and one more by chance for the fraction.
        With equally seeded chance, what is in the trace at a low factor is in it at any higher one too.

        Args:
            factor: How many times as many sessions, at least 0.
            chance: Draws for each session alike, whatever the factor.
        """
        sessions: list[TraceSession] = []
        whole = int(factor)
        for session in self.sessions:
            mark = chance.random()
            shifts = [0.0] + [chance.random() * _COPY_SHIFT_S for _ in range(whole)]
            copies = whole + (mark < factor - whole)
            sessions += (_later(session, shift, self.end_s) for shift in shifts[:copies])
        return replace(self, sessions=ordered(sessions))


def ordered(sessions: Iterable[TraceSession]) -> tuple[TraceSession, ...]:
    """Puts sessions in order of arrival; those that come at once keep their order."""
    return tuple(sorted(sessions, key=lambda session: session.arrival_s))


def _later(session: TraceSession, shift_s: float, end_s: float) -> TraceSession:
    return replace(session, arrival_s=min(session.arrival_s + shift_s, end_s)) if shift_s else session
