"""From lengths of time as typed to the contract's. Every mistake names its option."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from gpu_balancer.cli.invocation import spelled
from gpu_balancer.client.recording_spelling import parse_bounded_time
from gpu_balancer.client.specs import to_duration
from gpu_balancer.client.spelling import parse_time

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration


def typed_duration(option: str, text: str | None, *, from_zero: bool = False) -> Duration | None:
    """Reads a length of time of an option; None stays unset.

    Args:
        option: How the option is called.
        text: What was typed. None: nothing.
        from_zero: Whether no time at all may be meant.

    Raises:
        Misuse: When it is no time.
    """
    if text is None:
        return None
    with spelled(option):
        length = parse_time(text)
        if length <= timedelta(0) and not from_zero:
            raise ValueError(f"{text!r} is no time at all. Try more than 0")
    return to_duration(length)


def bounded_duration(option: str, text: str | None, bounds: tuple[timedelta, timedelta]) -> Duration | None:
    """Reads a length of time of an option within bounds; None stays unset.

    Raises:
        Misuse: When it is no time, or outside.
    """
    if text is None:
        return None
    with spelled(option):
        return to_duration(parse_bounded_time(text, bounds))
