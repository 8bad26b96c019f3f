"""The ledger: what is booked, by whom, where.

It is the sum of reservations by session and never a counter that somebody must remember to lower: booking and
releasing move the sums by exactly what the session's own reservation says, so that nothing can remain of sessions that
have ended. Sums are kept as they change; asking costs the same with one session as with ten thousand.

What others than this balancer take of a device is booked too, as measured, beside the sessions. And some of what
sessions have booked gives way when work in real time needs the room: `used` counts it, `yielding` says how much it is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TypeVar

from balancer.domain.decision import Reservation
from balancer.domain.device import Dimension
from balancer.domain.ids import DeviceId, SessionId

_Key = TypeVar("_Key")
_NOTHING: Mapping[Dimension, int] = MappingProxyType({})
_NOBODY: Collection[SessionId] = ()


class Ledger:
    """Keeps reservations and their sums per device and for the host."""

    def __init__(self) -> None:
        """Begins with nothing booked."""
        self._reservations: dict[SessionId, Reservation] = {}
        self._sessions: dict[DeviceId, dict[SessionId, None]] = {}
        self._device_sums: dict[DeviceId, dict[Dimension, int]] = {}
        self._host_sums: dict[Dimension, int] = {}
        self._device_yielding: dict[DeviceId, dict[Dimension, int]] = {}
        self._host_yielding: dict[Dimension, int] = {}
        self._costs: dict[DeviceId, int] = {}
        self._foreign: dict[DeviceId, tuple[Mapping[Dimension, int], Mapping[Dimension, int]]] = {}
        self._listeners: list[Callable[[DeviceId], None]] = []

    def listen(self, listener: Callable[[DeviceId], None]) -> None:
        """Has somebody called with a device whenever what is booked on it has changed. It must not wait or raise."""
        self._listeners.append(listener)

    def book(self, session_id: SessionId, reservation: Reservation) -> None:
        """Books a session. What it had booked before, if anything, is released: a session is in one place."""
        self.release(session_id)
        self._reservations[session_id] = reservation
        self._sessions.setdefault(reservation.device_id, {})[session_id] = None
        self._move(reservation, 1)

    def release(self, session_id: SessionId) -> Reservation | None:
        """Gives back what a session has booked.

        Returns:
            What that was. None: nothing.
        """
        reservation = self._reservations.pop(session_id, None)
        if reservation is not None:
            sessions = self._sessions[reservation.device_id]
            del sessions[session_id]
            if not sessions:
                del self._sessions[reservation.device_id]
            self._move(reservation, -1)
        return reservation

    def set_foreign(
        self,
        device_id: DeviceId,
        amounts: Mapping[Dimension, int],
        host_amounts: Mapping[Dimension, int] = _NOTHING,
    ) -> None:
        """Books what others than this balancer take of a device, in place of what was booked for them before.

        Args:
            device_id: Which device.
            amounts: In the dimensions' units, none negative. Empty: nothing is known of others.
            host_amounts: What that takes of the host.
        """
        self._move_foreign(device_id, -1)
        if amounts or host_amounts:
            self._foreign[device_id] = (dict(amounts), dict(host_amounts))
            self._move_foreign(device_id, 1)
        self._tell(device_id)

    def reservation(self, session_id: SessionId) -> Reservation | None:
        """Gives what a session has booked. None: nothing."""
        return self._reservations.get(session_id)

    def used(self, device_id: DeviceId) -> Mapping[Dimension, int]:
        """Gives what is taken of a device, by sessions and by others, in the dimensions' units. Absent: nothing."""
        return self._device_sums.get(device_id, _NOTHING)

    def host_used(self) -> Mapping[Dimension, int]:
        """Gives what is booked on the host, in the dimensions' units. A dimension that is absent is unused."""
        return self._host_sums

    def yielding(self, device_id: DeviceId) -> Mapping[Dimension, int]:
        """Gives how much of what is used on a device gives way to work in real time."""
        return self._device_yielding.get(device_id, _NOTHING)

    def host_yielding(self) -> Mapping[Dimension, int]:
        """Gives how much of what is used on the host gives way to work in real time."""
        return self._host_yielding

    def foreign(self, device_id: DeviceId) -> Mapping[Dimension, int]:
        """Gives what others than this balancer take of a device. Empty: nothing, or it is not known."""
        return self._foreign[device_id][0] if device_id in self._foreign else _NOTHING

    def cost(self, device_id: DeviceId) -> int:
        """Gives the cost of a device's sessions in pixels per second, before any weight."""
        return self._costs.get(device_id, 0)

    def sessions(self, device_id: DeviceId) -> Collection[SessionId]:
        """Gives the sessions booked on a device, in the order in which they came. For reading, at once."""
        return self._sessions.get(device_id, _NOBODY)

    def session_count(self, device_id: DeviceId) -> int:
        """Counts the sessions booked on a device."""
        return len(self._sessions.get(device_id, _NOBODY))

    def _move(self, reservation: Reservation, sign: int) -> None:
        device_id = reservation.device_id
        _add(self._costs, device_id, sign * reservation.cost_pixels_per_second)
        self._add_to_device(device_id, reservation.device_amounts, sign)
        for dimension, amount in reservation.host_amounts.items():
            _add(self._host_sums, dimension, sign * amount)
        if reservation.firm_device_amounts is not None or reservation.firm_host_amounts is not None:
            self._move_yielding(reservation, sign)
        self._tell(device_id)

    def _move_foreign(self, device_id: DeviceId, sign: int) -> None:
        amounts, host_amounts = self._foreign.get(device_id, (_NOTHING, _NOTHING))
        self._add_to_device(device_id, amounts, sign)
        for dimension, amount in host_amounts.items():
            _add(self._host_sums, dimension, sign * amount)
        if sign < 0:
            self._foreign.pop(device_id, None)

    def _move_yielding(self, reservation: Reservation, sign: int) -> None:
        sums = self._device_yielding.setdefault(reservation.device_id, {})
        for dimension, amount in _differences(reservation.device_amounts, reservation.firm_device_amounts):
            _add(sums, dimension, sign * amount)
        if not sums:
            del self._device_yielding[reservation.device_id]
        for dimension, amount in _differences(reservation.host_amounts, reservation.firm_host_amounts):
            _add(self._host_yielding, dimension, sign * amount)

    def _add_to_device(self, device_id: DeviceId, amounts: Mapping[Dimension, int], sign: int) -> None:
        sums = self._device_sums.setdefault(device_id, {})
        for dimension, amount in amounts.items():
            _add(sums, dimension, sign * amount)
        if not sums:
            del self._device_sums[device_id]

    def _tell(self, device_id: DeviceId) -> None:
        for listener in self._listeners:
            listener(device_id)


def _differences(booked: Mapping[Dimension, int], firm: Mapping[Dimension, int] | None) -> list[tuple[Dimension, int]]:
    if firm is None:
        return []
    return [(dimension, amount - firm.get(dimension, 0)) for dimension, amount in booked.items()]


def _add(sums: dict[_Key, int], key: _Key, amount: int) -> None:
    """Adds to a sum and forgets it at 0, so that an emptied ledger equals a new one."""
    total = sums.get(key, 0) + amount
    if total:
        sums[key] = total
    else:
        sums.pop(key, None)
