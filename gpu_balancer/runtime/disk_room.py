"""How much room a disk has, and from when on that is little: bounds that fit large disks and small ones alike."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_LOW_SHARE, _LEAST_SHARE = 20, 50
"""Of a small disk a twentieth and a fiftieth at most: else one that is smaller than the bounds could never be used."""


class RoomLevel(IntEnum):
    """How much room is left."""

    LEAST = 0
    """So little that something must be done."""
    LOW = 1
    """So little that nothing new should come."""
    PLENTY = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskRoom:
    """A disk at a moment."""

    free_bytes: int
    """What this user may still write."""
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomBounds:
    """From when on there is little room."""

    low_bytes: int
    least_bytes: int
    """At most `low_bytes`."""

    def of(self, room: DiskRoom) -> RoomBounds:
        """Gives the bounds that hold for a disk, which may be too small for these."""
        return RoomBounds(
            low_bytes=min(self.low_bytes, room.size_bytes // _LOW_SHARE),
            least_bytes=min(self.least_bytes, room.size_bytes // _LEAST_SHARE),
        )

    def level(self, room: DiskRoom) -> RoomLevel:
        """Tells how much room is left."""
        bounds = self.of(room)
        if room.free_bytes < bounds.least_bytes:
            return RoomLevel.LEAST
        return RoomLevel.LOW if room.free_bytes < bounds.low_bytes else RoomLevel.PLENTY


def measure_room(place: Path) -> DiskRoom:
    """Measures the disk of a folder. Blocks for the disk.

    Raises:
        OSError: When it cannot be looked at.
    """
    told = os.statvfs(place)
    return DiskRoom(free_bytes=told.f_bavail * told.f_frsize, size_bytes=told.f_blocks * told.f_frsize)
