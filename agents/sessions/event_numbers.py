"""Numbers of events: they rise for as long as the state folder lives, whatever is deleted and whoever crashes.

Numbers are reserved on disk in blocks, so that an event costs no write of its own and a crash leaves a gap instead of a
repetition. A new state folder begins with the milliseconds of the wall clock, so that a balancer that remembers the
numbers of a lost folder takes the new ones for new.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gpu_balancer.runtime.durable_file import write_durably

if TYPE_CHECKING:
    from pathlib import Path

    from gpu_balancer.runtime.clock import Clock

_LOG = logging.getLogger(__name__)
_BLOCK = 1000
_MAX_DIGITS = 18
"""More do not fit into the 64 bits in which numbers travel."""


class EventNumbers:
    """The counter of one agent."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Reads where the counter stood.

        Args:
            path: Where the end of the reserved block is kept.
            clock: For a new state folder.
        """
        self._path = path
        kept = _read(path)
        self.last = int(clock.now().timestamp() * 1000) if kept is None else kept
        """Number given last."""
        self._reserved = self.last

    def at_least(self, number: int) -> None:
        """Makes sure that numbers in use are not given again."""
        self.last = max(self.last, number)

    def next(self) -> int:
        """Gives the next number. Blocks for the disk once in a thousand times."""
        self.last += 1
        if self.last > self._reserved:
            self._reserved = self.last + _BLOCK
            try:
                write_durably(self._path, b"%d\n" % self._reserved)
            except OSError as error:
                # An agent that cannot tell what happens would be worse than a number that a crash may repeat.
                _LOG.error("Cannot reserve event numbers in %s: %s", self._path, error.strerror)
                self._reserved = self.last
        return self.last


def _read(path: Path) -> int | None:
    try:
        kept = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        _LOG.error("Cannot read %s: %s. Event numbers begin with the time of day", path, error.strerror)
        return None
    if kept.isdecimal() and len(kept) <= _MAX_DIGITS:
        return int(kept)
    _LOG.error("Cannot read %s: it holds no number. Event numbers begin with the time of day", path)
    return None
