"""What Ctrl-C means while a session is waited for.

The command ends easily; a transcode only when somebody says so, a recording at once, because that is how it is ended.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from contextlib import contextmanager
from enum import Enum, auto
from typing import TYPE_CHECKING

from gpu_balancer.client.names import short_name
from gpu_balancer.v1 import session_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gpu_balancer.cli.screen import Screen
    from gpu_balancer.v1.session_pb2 import Session


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
            with _woken_by_signals() as woken:
                select.select([sys.stdin, woken], [], [])
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


@contextmanager
def _woken_by_signals() -> Iterator[int]:
    """Gives a descriptor that can be read once a signal has come.

    Python notes a signal and raises between two of its steps: one that comes right before a read is waited for in vain.
    """
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    former = signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
    try:
        yield woken
    finally:
        signal.set_wakeup_fd(former)
        os.close(wakes)
        os.close(woken)


def stop_at_once(screen: Screen, session_name: str) -> Wish:  # noqa: ARG001 - nobody is asked
    """Wants the session to complete its outputs and end, without asking: Ctrl-C is how a recording is ended."""
    return Wish.STOP


def tell_how_to_go_on(screen: Screen, session: Session) -> None:
    """Tells what can be done with a session that was left running, ending, or waiting for a device."""
    name = short_name(session.name)
    stopping = session.state == session_pb2.SESSION_STATE_STOPPING
    waiting = session.state == session_pb2.SESSION_STATE_QUEUED
    does = "completes its outputs and ends" if stopping else "waits on for a device" if waiting else "runs on"
    screen.note(f"The session {name} {does}.")
    screen.note(f"  See it:      gpu-balancer watch {name}")
    if not stopping:
        screen.note(f"  Stop it:     gpu-balancer stop {name}")
    screen.note(f"  Its results: gpu-balancer artifacts {name} --download DIR")
