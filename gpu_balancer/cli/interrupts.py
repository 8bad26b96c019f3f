"""What Ctrl-C means while a session is waited for: the command ends easily, the session only when somebody says so."""

from __future__ import annotations

import sys
from enum import Enum, auto
from typing import TYPE_CHECKING

from gpu_balancer.client.names import short_name

if TYPE_CHECKING:
    from gpu_balancer.cli.screen import Screen


class Wish(Enum):
    """What somebody who pressed Ctrl-C wants."""

    STOP = auto()
    """The session shall complete its outputs and end."""
    GO_ON = auto()
    """It was a mistake."""
    LEAVE = auto()
    """The session shall run on without anybody watching."""


def ask_for_wish(screen: Screen, session_name: str) -> Wish:
    """Asks, when there is somebody to ask. Ctrl-C again, the end of the input or nobody to ask: leave it running."""
    if not (sys.stdin.isatty() and screen.lively):
        return Wish.LEAVE
    name = short_name(session_name)
    try:
        while True:
            print(
                f"\nStop the session {name}? y: stop it, n: go on, Ctrl-C: leave it running [y/n] ",
                end="",
                file=sys.stderr,
            )
            sys.stderr.flush()
            answer = sys.stdin.readline()
            if not answer:
                return Wish.LEAVE
            if answer.strip().lower() in ("y", "yes"):
                return Wish.STOP
            if answer.strip().lower() in ("n", "no"):
                return Wish.GO_ON
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return Wish.LEAVE


def tell_how_to_go_on(screen: Screen, session_name: str, *, waiting: bool) -> None:
    """Tells what can be done with a session that was left running, or waiting for a device."""
    name = short_name(session_name)
    screen.note(f"The session {name} {'waits on for a device' if waiting else 'runs on'}.")
    screen.note(f"  See it:      gpu-balancer watch {name}")
    screen.note(f"  Stop it:     gpu-balancer stop {name}")
    screen.note(f"  Its results: gpu-balancer artifacts {name} --download DIR")
