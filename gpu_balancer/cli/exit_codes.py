"""What the command's exit code says. They are documented in `gpu-balancer --help` and docs/cli.md."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from gpu_balancer.runtime.failures import Reason, StatusCode

if TYPE_CHECKING:
    from gpu_balancer.runtime.failures import RequestFailure


class ExitCode(IntEnum):
    """Exit codes, with what they mean."""

    OK = 0
    SESSION_FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    NO_ROOM = 5
    LOCAL_FILES = 6
    INTERNAL = 70
    INTERRUPTED = 130
    PIPE_CLOSED = 141


MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.SESSION_FAILED: "the session failed or was cancelled",
    ExitCode.USAGE: "wrong usage",
    ExitCode.REFUSED: "refused by the daemon",
    ExitCode.UNREACHABLE: "the daemon or a part of it cannot be reached",
    ExitCode.NO_ROOM: "no room on any device now",
    ExitCode.LOCAL_FILES: "a local file cannot be read or written",
    ExitCode.INTERNAL: "a fault inside the daemon or this command",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.PIPE_CLOSED: "the reader of the output went away",
}
"""In few words, for the help."""

_NO_ROOM = frozenset(
    {
        *(Reason.NO_CAPACITY, Reason.NO_DEVICE_READY, Reason.QUEUE_FULL, Reason.QUEUE_TIMEOUT),
        *(Reason.DISK_FULL, Reason.DISK_LOW),
    }
)


def exit_code_of(failure: RequestFailure) -> ExitCode:
    """Tells the exit code for a failed request."""
    if failure.reason in _NO_ROOM:
        return ExitCode.NO_ROOM
    if failure.reason.code is StatusCode.UNAVAILABLE:
        return ExitCode.UNREACHABLE
    return ExitCode.INTERNAL if failure.reason is Reason.INTERNAL else ExitCode.REFUSED
