"""What the settings say of recordings that a request can be checked against, without asking an agent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from balancer.settings import BalancerSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordingRules:
    """Bounds of requests."""

    url_schemes: tuple[str, ...] = ("http", "https")
    """Of pages."""
    largest_width: int = 3840
    """Pixels of a display."""
    largest_height: int = 2160
    """Pixels of a display."""
    destinations: frozenset[str] = frozenset()
    """Names to which artifacts may be copied."""


def recording_rules(settings: BalancerSettings) -> RecordingRules:
    """Takes the rules out of the settings; they hold until a restart, as for agents."""
    return RecordingRules(
        url_schemes=settings.recordings.url_schemes,
        largest_width=settings.recordings.largest_width,
        largest_height=settings.recordings.largest_height,
        destinations=frozenset(destination.name for destination in settings.destinations),
    )
