"""How fast sessions may run that are not bound to real time, so that they do not starve those that are.

A file runs as fast as it is let, which is the whole of an engine or of the cores. That is fine while it is alone. Where
work in real time shares its device, all files there together get what that work leaves of the headroom: one common
speed, but nobody less than the speed that is kept free for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from balancer.domain.device import Dimension
from balancer.domain.ids import SessionId
from balancer.domain.offers import RATES

_STEP = Fraction(1, 20)
"""Limits are told in twentieths of real time, rounded down, so that small changes are not told at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedSession:
    """A session on a device."""

    session_id: SessionId
    real_time: bool
    amounts: Mapping[Dimension, int]
    """What it takes: in real time what it has booked, else what real time would take."""
    least_speed: Fraction
    """What is kept free for it, in times real time. Of no matter for a session in real time."""


def speed_limits(
    sessions: Sequence[PacedSession], bookable: Mapping[Dimension, int]
) -> dict[SessionId, Fraction | None]:
    """Tells how fast each session of a device may run.

    Args:
        sessions: All sessions of the device.
        bookable: What they may take together by dimension. Dimensions that are not there do not limit.

    Returns:
        The limit in times real time of every session that is not bound to real time. None: as fast as it goes.
    """
    files = [session for session in sessions if not session.real_time]
    live = [session for session in sessions if session.real_time]
    if not live:
        return {session.session_id: None for session in files}
    speed = _common_speed(files, _left(live, bookable))
    return {session.session_id: None if speed is None else max(speed, session.least_speed, _STEP) for session in files}


def _left(live: Sequence[PacedSession], bookable: Mapping[Dimension, int]) -> dict[Dimension, int]:
    taken: dict[Dimension, int] = {}
    for session in live:
        for dimension, amount in session.amounts.items():
            taken[dimension] = taken.get(dimension, 0) + amount
    # A dimension that no work in real time uses is nobody's to starve there.
    return {
        dimension: max(0, bookable[dimension] - amount)
        for dimension, amount in taken.items()
        if dimension in bookable and dimension in RATES
    }


def _common_speed(files: Sequence[PacedSession], left: Mapping[Dimension, int]) -> Fraction | None:
    """Finds the speed at which files fit into what is left, where who is owed more gets more. None: nothing limits."""
    speeds: list[Fraction] = []
    for dimension, room in left.items():
        takers = [(session.amounts.get(dimension, 0), session.least_speed) for session in files]
        takers = [(amount, least) for amount, least in takers if amount]
        # Who is owed more than the common speed takes that, and the others share the rest.
        owed: list[tuple[int, Fraction]] = []
        while takers:
            rest = room - sum(amount * least for amount, least in owed)
            speed = max(Fraction(0), Fraction(rest) / sum(amount for amount, _ in takers))
            more = [one for one in takers if one[1] > speed]
            if not more:
                speeds.append(speed)
                break
            owed += more
            takers = [one for one in takers if one[1] <= speed]
    if not speeds:
        # Nobody uses what is short, or everybody is owed more than there is.
        return None if not any(dimension in session.amounts for session in files for dimension in left) else Fraction(0)
    return min(speeds) // _STEP * _STEP
