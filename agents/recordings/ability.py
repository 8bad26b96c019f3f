"""What an agent records, and on how many displays: what it tells the balancer, and refuses by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.pipelines.recording_report import SoundTiming


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingAbility:
    """What can be recorded now."""

    fault_message: str = ""
    """Why nothing can, and what to try. Empty: something can."""
    display_count: int = 0
    """Displays that may be in use at once."""
    ready_display_count: int = 0
    browser: str = ""
    """Name and version. Empty: there is none, so no page can be recorded."""
    applications: tuple[str, ...] = ()
    largest_width: int = 0
    """Pixels of a display."""
    largest_height: int = 0
    """Pixels of a display."""
    sound_timing: SoundTiming | None = None
    """Of recordings that begin now. None: they have no sound."""

    @property
    def available(self) -> bool:
        """Whether anything can be recorded."""
        return not self.fault_message
