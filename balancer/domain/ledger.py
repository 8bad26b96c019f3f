"""The ledger: what is booked, by whom, where.

It is the sum of reservations by session and never a counter that somebody must remember to lower: booking and
releasing move the sums by exactly what the session's own reservation says, so that nothing can remain of sessions that
have ended. Sums are kept as they change; asking costs the same with one session as with ten thousand.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from balancer.domain.decision import Reservation
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId

_Key = TypeVar("_Key")
_NOTHING: Mapping[Dimension, int] = MappingProxyType({})


class Ledger:
    """Keeps reservations and their sums per device and for the host."""

    def __init__(self) -> None:
        """Begins with nothing booked."""
        self._reservations: dict[SessionId, Reservation] = {}
        self._device_sums: dict[DeviceId, dict[Dimension, int]] = {}
        self._host_sums: dict[Dimension, int] = {}
        self._costs: dict[DeviceId, int] = {}
        self._session_counts: dict[DeviceId, int] = {}

    def book(self, session_id: SessionId, reservation: Reservation) -> None:
        """Books a session. What it had booked before, if anything, is released: a session is in one place."""
        self.release(session_id)
        self._reservations[session_id] = reservation
        self._move(reservation, 1)

    def release(self, session_id: SessionId) -> Reservation | None:
        """Gives back what a session has booked.

        Returns:
            What that was. None: nothing.
        """
        reservation = self._reservations.pop(session_id, None)
        if reservation is not None:
            self._move(reservation, -1)
        return reservation

    def reservation(self, session_id: SessionId) -> Reservation | None:
        """Gives what a session has booked. None: nothing."""
        return self._reservations.get(session_id)

    def used(self, device_id: DeviceId) -> Mapping[Dimension, int]:
        """Gives what is booked on a device, in the dimensions' units. A dimension that is absent is unused."""
        return self._device_sums.get(device_id, _NOTHING)

    def host_used(self) -> Mapping[Dimension, int]:
        """Gives what is booked on the host, in the dimensions' units. A dimension that is absent is unused."""
        return self._host_sums

    def cost(self, device_id: DeviceId) -> int:
        """Gives the cost of a device's sessions in pixels per second, before any weight."""
        return self._costs.get(device_id, 0)

    def session_count(self, device_id: DeviceId) -> int:
        """Counts the sessions booked on a device."""
        return self._session_counts.get(device_id, 0)

    def _move(self, reservation: Reservation, sign: int) -> None:
        device_id = reservation.device_id
        _add(self._session_counts, device_id, sign)
        _add(self._costs, device_id, sign * reservation.cost_pixels_per_second)
        sums = self._device_sums.setdefault(device_id, {})
        for dimension, amount in reservation.device_amounts.items():
            _add(sums, dimension, sign * amount)
        if not sums:
            del self._device_sums[device_id]
        for dimension, amount in reservation.host_amounts.items():
            _add(self._host_sums, dimension, sign * amount)


def _add(sums: dict[_Key, int], key: _Key, amount: int) -> None:
    """Adds to a sum and forgets it at 0, so that an emptied ledger equals a new one."""
    total = sums.get(key, 0) + amount
    if total:
        sums[key] = total
    else:
        sums.pop(key, None)
