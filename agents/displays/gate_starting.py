"""Starts the gate of a display; see `capture_gate`."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING

from agents.displays.display import DisplayUnavailable
from agents.displays.spawning import CAPTURE_GATE
from agents.displays.x_client import listener_of
from agents.displays.x_sockets import gate_of, socket_of

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from agents.displays.spawning import DisplayProcesses

GATE_MODULE = "agents.displays.capture_gate"
_ASK_AGAIN_S = 0.01


async def start_capture_gate(processes: DisplayProcesses, name: str, authority: Path, *, within: timedelta) -> str:
    """Starts the gate and awaits that clients can connect.

    Args:
        processes: Of the display, whose X server runs.
        name: The display, ":1007".
        authority: Its authority file, the agent's own.
        within: For everything.

    Returns:
        The name by which the display is recorded.

    Raises:
        DisplayUnavailable: DISPLAY_FAILED, for instance because the X server does not tell what is drawn.
    """
    # Never with what lies in the current folder.
    program = [sys.executable, "-P", "-m", GATE_MODULE]
    argv = [*program, name, str(authority), str(processes.user_id or "")]
    gate = await processes.spawn(argv, name=CAPTURE_GATE, as_agent=True)
    try:
        async with asyncio.timeout(within.total_seconds()):
            while processes.is_alive(CAPTURE_GATE):
                if _listens(gate_of(name), gate):
                    return gate_of(name)
                await asyncio.sleep(_ASK_AGAIN_S)
    except TimeoutError:
        pass
    raise DisplayUnavailable(
        "DISPLAY_FAILED",
        f"Cannot start the capture gate: {processes.folder.log_tail() or 'it does not listen'}. "
        "Try an X server with the DAMAGE extension.",
    )


def _listens(name: str, gate: int) -> bool:
    """Tells whether clients can connect, to the gate and to nobody who took its place."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        try:
            client.connect(str(socket_of(name)))
        except OSError:
            return False
        return listener_of(client) == gate
