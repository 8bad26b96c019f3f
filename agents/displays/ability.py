"""What a pool of displays can do now, as whoever places recordings is told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolAbility:
    """Figures of a pool."""

    available: bool
    """Whether displays can be had at all."""
    fault_message: str
    """Why not, or why the last one could not be made, and what to try. Empty: all is well."""
    display_count: int
    """Displays that may be in use at once."""
    used_display_count: int
    """Displays in use."""
    ready_display_count: int
    """Displays that stand ready, unused."""
    largest_width: int
    """Pixels."""
    largest_height: int
    """Pixels."""
    sound: bool
    """Whether displays have sound."""
    sound_fault_message: str
    """Why not, and what to try. Empty: they have."""
