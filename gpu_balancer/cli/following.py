"""Following a session to its end on the screen, and what Ctrl-C does meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_balancer.cli.interrupts import Wish
from gpu_balancer.cli.session_progress import SessionProgress
from gpu_balancer.cli.words import device_word
from gpu_balancer.client.names import short_name
from gpu_balancer.client.session_requests import has_ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.client import Client
    from gpu_balancer.v1.session_pb2 import Session


def follow(
    screen: Screen, client: Client, session: Session, *, on_interrupt: Callable[[Screen, str], Wish]
) -> tuple[Session, bool]:
    """Shows a session until it has ended or is left running.

    Args:
        screen: Where to.
        client: Watches it, and stops it.
        session: The session as created.
        on_interrupt: Is asked at the first Ctrl-C, with the session's name, what is wanted. A further one, once it is
            being stopped, leaves it to that.

    Returns:
        The session as last seen, and whether Ctrl-C stopped it.
    """
    latest, stopping = session, False
    place = f"on {device_word(session.device)}" if session.device else "waits for a device"
    screen.note(f"Session {short_name(session.name)} {place}")
    while True:
        try:
            with SessionProgress(screen) as progress:
                progress.show(latest)
                for latest in client.watch_session(session.name):
                    progress.show(latest)
            return latest, stopping
        except KeyboardInterrupt:
            wish = Wish.LEAVE if stopping else on_interrupt(screen, session.name)
        if wish is Wish.LEAVE:
            return latest, stopping
        if wish is Wish.STOP:
            latest, stopping = client.stop_session(session.name), True
            if not has_ended(latest):
                screen.note("It completes its outputs and ends; Ctrl-C leaves it to that.")
