"""The port of what makes X servers: one in memory here, one on a GPU of its own, one whose programs render on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from pathlib import Path

    from agents.displays.spawning import DisplayProcesses


class DisplayBackend(Protocol):
    """Makes X servers.

    A server MUST let nobody in without the cookie, MUST NOT listen on the network, and MUST be able to give its screen
    any size up to the one with which it was started (RandR). It MUST be started as `spawning.X_SERVER` by the display's
    processes, so that it outlives the agent and is ended with the display.
    """

    @property
    def name(self) -> str:
        """Written into records: "xvfb"."""
        ...

    @property
    def display_limit(self) -> int | None:
        """Displays that can exist at once: 1 for an X server that has a GPU for itself. None: any number."""
        ...

    def find_fault(self) -> str | None:
        """Tells why it makes no X server, and what to try, as far as that shows without trying. None: it does."""
        ...

    def environment(self) -> Mapping[str, str]:
        """Gives what programs on its displays need besides the usual: which library renders, on which GPU."""
        ...

    async def start(
        self, processes: DisplayProcesses, authority: Path, *, width: int, height: int, within: timedelta
    ) -> str:
        """Starts an X server and awaits that a client of the agent's gets an answer.

        Args:
            processes: Of its display.
            authority: File with the cookie that it demands, which the display's user can read.
            width: Pixels of its screen, and the most it can have later.
            height: Likewise.
            within: For everything.

        Returns:
            Name of the display as X clients know it, ":1007".

        Raises:
            DisplayUnavailable: DISPLAY_FAILED. The caller ends what was started.
        """
        ...
