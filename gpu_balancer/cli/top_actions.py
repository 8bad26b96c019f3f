"""What `top` does: devices and live sessions on one screen, asked for again and again.

It asks for lists instead of following streams, as top(1) does: a picture is always whole, and after a cut the next one
simply comes later.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gpu_balancer.cli import device_views, session_views
from gpu_balancer.cli.screen import make_table, to_json
from gpu_balancer.client.session_requests import ENDED_STATES, session_filter
from gpu_balancer.runtime.failures import RequestFailure, StatusCode
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from rich.console import Group

    from gpu_balancer.cli.invocation import Invocation
    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.device_pb2 import Device
    from gpu_balancer.v1.session_pb2 import Session

LIVE_STATES = [
    number
    for number in session_pb2.SessionState.values()
    if number not in ENDED_STATES and number != session_pb2.SESSION_STATE_UNSPECIFIED
]


def top(invocation: Invocation, *, once: bool, interval_s: float) -> None:
    """Shows the live screen on a terminal, else one picture."""
    screen = invocation.screen()
    with invocation.client() as client:
        if screen.terminal and not once:
            _show_live(screen, client, interval_s)
            return
        devices, sessions = _ask(client)
    if invocation.json:
        screen.document({"devices": [to_json(one) for one in devices], "sessions": [to_json(one) for one in sessions]})
        return
    screen.table(device_views.COLUMNS, [device_views.device_row(one) for one in devices], none="There are no devices.")
    if sessions:
        screen.line()
    screen.table(session_views.COLUMNS, [session_views.session_row(one) for one in sessions], none="No live sessions.")


def _ask(client: Client) -> tuple[list[Device], list[Session]]:
    return list(client.list_devices()), list(client.list_sessions(session_filter(LIVE_STATES), page_size=1000))


def _show_live(screen: Screen, client: Client, interval_s: float) -> None:
    from rich.live import Live

    devices, sessions = _ask(client)
    console, trouble = screen.console, ""
    try:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(picture(devices, sessions, trouble, console.width, console.height), refresh=True)
                time.sleep(interval_s)
                try:
                    devices, sessions = _ask(client)
                    trouble = ""
                except RequestFailure as failure:
                    if failure.reason.code is not StatusCode.UNAVAILABLE:
                        raise
                    trouble = failure.message
    except KeyboardInterrupt:
        # Ctrl-C is how one leaves; nothing was interrupted.
        return


def picture(devices: list[Device], sessions: list[Session], trouble: str, width: int, height: int) -> Group:
    """Draws the screen.

    Args:
        devices: All devices.
        sessions: Live sessions.
        trouble: Why this is an old picture. Empty: it is not.
        width: Columns of the terminal.
        height: Lines of the terminal.
    """
    from rich.console import Group
    from rich.text import Text

    waiting = sum(one.state == session_pb2.SESSION_STATE_QUEUED for one in sessions)
    told = f", {waiting} of them waiting for a device" if waiting else ""
    head = Text(f"{len(devices)} devices, {len(sessions)} live sessions{told}", style="bold")
    if trouble:
        head.append(f"   {trouble}", style="red")
    head.no_wrap, head.overflow = True, "ellipsis"
    parts: list[object] = [head, Text()]
    device_rows = [device_views.device_row(one) for one in devices][: max(1, height - 6)]
    if device_rows:
        parts.append(make_table(device_views.COLUMNS, device_rows, width=width))
    room = height - len(device_rows) - 6
    session_rows = [session_views.session_row(one) for one in sessions]
    if session_rows and room > 0:
        parts += [Text(), make_table(session_views.COLUMNS, session_rows[:room], width=width)]
    if len(session_rows) > max(room, 0):
        parts.append(Text(f"… and {len(session_rows) - max(room, 0)} more", style="dim"))
    return Group(*parts)  # type: ignore[arg-type]  # every part can be drawn
