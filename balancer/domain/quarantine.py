"""Keeps sessions from a device that fails: two failures put it aside, and only a golden probe brings it back.

A device that fails at once looks idle, and by any rule of load it would attract everything. So it is put aside after a
few failures in a row that were its own, and tried again by a probe, at first at once, then after pauses that double. A
device that passed is on trial: its next failure puts it aside again with the next pause; a success clears its record.

Times are seconds of a clock that never jumps; the breaker itself knows no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

from balancer.domain.ids import DeviceId


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineSettings:
    """What the operator tuned."""

    failures: int = 2
    """In a row, after which a device is put aside."""
    within: timedelta = timedelta(hours=1)
    """Failures that are further apart do not count together. A slow device among fast ones seldom gets a session."""
    first_pause: timedelta = timedelta(seconds=30)
    """Before the probe when a device fails again after it passed one; doubled at each further time."""
    longest_pause: timedelta = timedelta(hours=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """A device that is put aside."""

    failure_count: int
    """Failures of the device since it last worked."""
    probe_s: float
    """When it is to be probed."""
    message: str
    """The last failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    """What a device has against it."""

    failures_s: tuple[float, ...] = ()
    failure_count: int = 0
    quarantine: Quarantine | None = None
    pauses: int = 0
    """How often it was put aside since it last worked."""


class Breaker:
    """Remembers failures of devices."""

    def __init__(self, settings: QuarantineSettings) -> None:
        """Begins without anything against any device."""
        self.settings = settings
        """Replaced when the operator tunes them."""
        self._records: dict[DeviceId, _Record] = {}

    def failed(self, device_id: DeviceId, now_s: float, message: str) -> Quarantine | None:
        """Notes that a device failed at a session that it should have begun.

        Args:
            device_id: Which device.
            now_s: When.
            message: How, as a sentence.

        Returns:
            The quarantine that it begins. None: it goes on, or is put aside already.
        """
        record = self._records.get(device_id, _Record())
        if record.quarantine is not None:
            return None
        since_s = now_s - self.settings.within.total_seconds()
        failures_s = (*(one for one in record.failures_s if one > since_s), now_s)
        record = replace(record, failures_s=failures_s, failure_count=record.failure_count + 1)
        if not record.pauses and len(failures_s) < self.settings.failures:
            self._records[device_id] = record
            return None
        quarantine = Quarantine(
            failure_count=record.failure_count, probe_s=now_s + self._pause_s(record.pauses), message=message
        )
        self._records[device_id] = replace(record, quarantine=quarantine, failures_s=(), pauses=record.pauses + 1)
        return quarantine

    def succeeded(self, device_id: DeviceId) -> None:
        """Notes that a device began a session as it should."""
        record = self._records.get(device_id)
        if record is not None and record.quarantine is None:
            del self._records[device_id]

    def probe_passed(self, device_id: DeviceId) -> None:
        """Lets a device back, on trial."""
        record = self._records.get(device_id)
        if record is not None:
            self._records[device_id] = replace(record, quarantine=None)

    def probe_failed(self, device_id: DeviceId, now_s: float, message: str) -> Quarantine | None:
        """Keeps a device aside for the next pause.

        Returns:
            Its quarantine. None: it is not put aside.
        """
        record = self._records.get(device_id)
        if record is None or record.quarantine is None:
            return None
        probe_s = now_s + self._pause_s(record.pauses)
        quarantine = replace(record.quarantine, probe_s=probe_s, message=message)
        self._records[device_id] = replace(record, quarantine=quarantine, pauses=record.pauses + 1)
        return quarantine

    def quarantine(self, device_id: DeviceId) -> Quarantine | None:
        """Gives a device's quarantine. None: it is not put aside."""
        record = self._records.get(device_id)
        return record.quarantine if record is not None else None

    def _pause_s(self, pauses: int) -> float:
        """Gives the pause before the next probe: none the first time, since most failures are over at once."""
        if not pauses:
            return 0.0
        first_s, longest_s = self.settings.first_pause.total_seconds(), self.settings.longest_pause.total_seconds()
        # Bounded before it is computed: a device may fail for weeks.
        return min(longest_s, first_s * 2.0 ** min(pauses - 1, 40))
