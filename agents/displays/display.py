"""A display as values: all that is needed to use it, to find it again after a restart, and to say why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class BrowserEndpoint:
    """A browser that runs on a display."""

    url: str
    """Where it is driven by the DevTools protocol, "http://127.0.0.1:40123"."""
    name: str
    """Name and version, "Chromium 156.0.8078.108"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Display:
    """A display of the pool, with everything that was started for it. It can be written down and read again."""

    id: str
    """Name of its folder; unique on the agent, never used twice."""
    name: str
    """As X clients know it, ":7"."""
    capture_name: str | None = None
    """As who records it knows it: the name of its gate. None: it has none, and is recorded by its own name."""
    authority: str
    """Absolute path of the file with its cookie."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""
    lock: str
    """Absolute path of the lock file that each of its processes has open."""
    work: str
    """Absolute path of its folder for sockets, profile and logs, which its own user owns."""
    user_id: int | None
    """User of its processes. None: the agent's own."""
    sound_server: str | None
    """PulseAudio address, "unix:/run/…/sound". None: it has no sound."""
    sound_source: str = "output.monitor"
    """What is recorded of the sound server."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Whole environment for programs that are to run on it."""
    browser: BrowserEndpoint | None = None
    """None: it was made for an application."""


class DisplayUnavailable(Exception):
    """No display can be had. The message says why and what to try."""

    def __init__(self, reason: str, message: str) -> None:
        """Makes the exception.

        Args:
            reason: Stable name: "DISPLAY_TIMEOUT", "DISPLAY_FAILED", "BROWSER_FAILED", "BROWSER_MISSING" or
                "RECORDING_UNAVAILABLE".
            message: "Cannot X: Y. Try Z."
        """
        super().__init__(message)
        self.reason = reason
