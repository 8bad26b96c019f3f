"""Runs a program that must end soon: ffmpeg that tries something or looks at an input, never a session.

A driver can hang, an input can drip, a server can stall: so each run is bounded in time and in what is kept of its
output, and its whole process group is killed at the bound. The bound holds when the agent itself is killed meanwhile,
because `timeout` of coreutils stands between them where there is one.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from gpu_balancer.runtime.task_guard import TaskGuard

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OUTLIVING_GRACE = timedelta(seconds=2)
_DEATH_GRACE = timedelta(seconds=2)  # a process inside a hung driver does not die even of SIGKILL: then go on without
_CHUNK_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """How a bounded run ended."""

    exit_code: int | None
    """Negative: the signal that ended it. None: it was killed at its deadline."""
    output: str
    """Standard output and error together, in the order written; the end of it when it was more than the bound."""

    @property
    def timed_out(self) -> bool:
        """Whether it was killed at its deadline."""
        return self.exit_code is None


async def run_bounded(
    argv: Sequence[str],
    *,
    timeout: timedelta,
    env: Mapping[str, str] | None = None,
    output_limit_bytes: int = 64 * 1024,
) -> ProgramRun:
    """Runs a program to its end, or to its deadline.

    Args:
        argv: Program and arguments.
        timeout: After this the process group is killed.
        env: Variables to set on top of the agent's own.
        output_limit_bytes: How much of the end of its output is kept; the rest is read and dropped.

    Returns:
        How it ended. When this task is cancelled, the process group is killed first.

    Raises:
        OSError: When the program cannot be started: missing, not executable, not for this machine.
    """
    _require_executable(argv[0])
    process = await asyncio.create_subprocess_exec(
        *_outliving(argv, timeout),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, **(env or {})},
        start_new_session=True,
    )
    tail = bytearray()
    async with TaskGuard("bounded-program") as guard:
        reading = guard.spawn(_drain(process, tail, output_limit_bytes), name="output")
        try:
            timed_out = not await _ended_within(process, timeout)
            if not timed_out:
                await _finish(reading, process.pid)
        finally:
            if process.returncode is None:
                _kill_group(process.pid)
                await _ended_within(process, _DEATH_GRACE)
    exit_code = None if timed_out else process.returncode
    return ProgramRun(exit_code=exit_code, output=bytes(tail).decode(errors="replace"))


async def _ended_within(process: asyncio.subprocess.Process, timeout: timedelta) -> bool:
    try:
        async with asyncio.timeout(timeout.total_seconds()):
            await process.wait()
    except TimeoutError:
        return False
    return True


async def _finish(reading: asyncio.Task[None], group: int) -> None:
    """Awaits the end of the output. Something that outlived the program and keeps it open is killed."""
    done, _ = await asyncio.wait([reading], timeout=_DEATH_GRACE.total_seconds())
    if not done:
        _kill_group(group)  # its number is still this group's, because a member lives
        await reading


def _outliving(argv: Sequence[str], timeout: timedelta) -> list[str]:
    timeout_program = shutil.which("timeout")
    if timeout_program is None:
        return list(argv)
    seconds = (timeout + _OUTLIVING_GRACE).total_seconds()
    return [timeout_program, "-s", "KILL", f"{seconds:.3f}", *argv]


def _require_executable(program: str) -> None:
    # `timeout` in between would turn these into exit codes that programs use themselves.
    if shutil.which(program) is None:
        if os.path.isfile(program):  # noqa: PTH113 - a string from the settings, looked at once
            raise PermissionError(f"{program} is not executable")
        raise FileNotFoundError(f"{program} does not exist")


async def _drain(process: asyncio.subprocess.Process, tail: bytearray, limit_bytes: int) -> None:
    assert process.stdout is not None
    while chunk := await process.stdout.read(_CHUNK_BYTES):
        tail += chunk
        del tail[:-limit_bytes]


def _kill_group(group: int) -> None:
    # Only called while a member lives or is not reaped: until then its number is not given to another.
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
