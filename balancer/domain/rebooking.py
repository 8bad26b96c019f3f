"""What is booked for a session once it was seen what it takes of its host.

What was measured is all that its processes take, encoding included. Encoding was no guess: its rates are at the slow
end of what is known, and a page that stood still meanwhile must not give away what encoding needs when it moves. So
what was measured takes the place of the estimate of display and browser alone, and never is less booked than was
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from balancer.domain.decision import Reservation
from balancer.domain.device import Dimension
from balancer.domain.session import MeasuredUse

_NEGLIGIBLE_PERCENT = 10
"""Differences up to this are left as they are: measurements scatter."""


def differs(known: int, told: int) -> bool:
    """Whether a figure is another than what was known, by more than measurements scatter."""
    return 100 * abs(told - known) > _NEGLIGIBLE_PERCENT * known


def rebooked(reservation: Reservation, measured: MeasuredUse) -> Reservation:
    """Books what was measured in the place of what was estimated.

    Args:
        reservation: What is booked.
        measured: Of the session, all of its processes.

    Returns:
        What is to be booked: the same where nothing was estimated, or the measurement bears it out.
    """
    estimated = reservation.capture_amounts
    if estimated is None:
        return reservation
    told = {Dimension.CORES: measured.cores, Dimension.MEMORY: measured.memory_mib}
    encoding = {one: reservation.host_amounts.get(one, 0) - estimated.get(one, 0) for one in told}
    host = {one: max(encoding[one], amount) for one, amount in told.items()}
    if not any(differs(reservation.host_amounts.get(one, 0), amount) for one, amount in host.items()):
        return reservation
    capture = {one: amount - encoding[one] for one, amount in host.items()}
    device = dict(reservation.device_amounts)
    if Dimension.CORES in device:
        # A CPU device: what its host has of the session is its own.
        for one in told:
            device[one] = device.get(one, 0) + capture[one] - estimated.get(one, 0)
    return replace(
        reservation,
        device_amounts=device,
        host_amounts=_merged(reservation.host_amounts, host),
        capture_amounts=capture,
    )


def _merged(amounts: Mapping[Dimension, int], changed: Mapping[Dimension, int]) -> dict[Dimension, int]:
    """Leaves out what came to nothing, as bookings do."""
    return {one: amount for one, amount in {**amounts, **changed}.items() if amount}
