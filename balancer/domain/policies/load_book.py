"""The loads that a policy keeps by itself, in whole numbers: what a session added is what its end takes away."""

from __future__ import annotations

from collections.abc import Mapping

from balancer.domain.ids import DeviceId, SessionId


class LoadBook:
    """Loads of devices, as the sums of their sessions' loads."""

    def __init__(self) -> None:
        """Begins without sessions."""
        self._placed: dict[SessionId, tuple[DeviceId, int]] = {}
        self._loads: dict[DeviceId, int] = {}

    @property
    def loads(self) -> Mapping[DeviceId, int]:
        """The load of each device that has any."""
        return self._loads

    def __contains__(self, session_id: SessionId) -> bool:
        return session_id in self._placed

    def of(self, device_id: DeviceId) -> int:
        """Gives the load of a device, 0 for one without sessions."""
        return self._loads.get(device_id, 0)

    def add(self, session_id: SessionId, device_id: DeviceId, load: int) -> None:
        """Adds a session's load to a device, and takes away what the session had added before, wherever that was."""
        self.remove(session_id)
        if load:
            self._placed[session_id] = (device_id, load)
            self._loads[device_id] = self.of(device_id) + load

    def remove(self, session_id: SessionId) -> None:
        """Takes away what a session added. One that is not in the book changes nothing."""
        device_id, load = self._placed.pop(session_id, (None, 0))
        if device_id is not None:
            self._loads[device_id] -= load
            if not self._loads[device_id]:
                del self._loads[device_id]
