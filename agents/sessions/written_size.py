"""How many bytes an attempt has written to files so far: looked up now and then, because that costs a walk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agents.sessions.progress_file import bytes_on_disk

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gpu_balancer.runtime.clock import Clock

_EVERY_S = 5.0


class WrittenSize:
    """The size of one attempt's files."""

    def __init__(self, clock: Clock, artifacts: Path, parts: Sequence[str]) -> None:
        """Has not looked yet.

        Args:
            clock: For pauses.
            artifacts: Folder of its artifacts.
            parts: Absolute paths of its files elsewhere.
        """
        self._clock = clock
        self._artifacts = artifacts
        self._parts = tuple(parts)
        self._next_s = 0.0
        self.bytes = 0
        """As seen last."""

    async def look(self, *, at_once: bool = False) -> bool:
        """Looks, if it is time to or has to be now; tells whether it did.

        Raises:
            OSError: When the disk refuses.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._next_s and not at_once:
            return False
        self._next_s = now_s + _EVERY_S
        self.bytes = await asyncio.to_thread(bytes_on_disk, self._artifacts, self._parts)
        return True
