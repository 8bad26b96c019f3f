"""Hears at once when the shim of an attempt ends, whoever started it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.sessions.processes import AttemptProcesses


class ShimWatch:
    """Listens to one shim's pidfd, in the running loop."""

    def __init__(self, ended: Callable[[], object]) -> None:
        """Listens to nothing yet.

        Args:
            ended: Called once when the shim has ended.
        """
        self._ended = ended
        self._watched_fd: int | None = None

    def begin(self, processes: AttemptProcesses) -> None:
        """Listens, unless it does already or there is no living shim (yet)."""
        shim = processes.shim_fd
        if self._watched_fd is None and shim is not None and processes.shim_alive():
            asyncio.get_running_loop().add_reader(shim, self._shim_ended)
            self._watched_fd = shim

    def end(self) -> None:
        """Listens no more; to be called before the pidfd is closed."""
        if self._watched_fd is not None:
            asyncio.get_running_loop().remove_reader(self._watched_fd)
            self._watched_fd = None

    def _shim_ended(self) -> None:
        self.end()
        self._ended()
