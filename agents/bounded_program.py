"""Runs a program that must end soon: ffmpeg that tries something or looks at an input, never a session.

A driver can hang, an input can drip, a server can stall: so each run is bounded in time and in what is kept of its
output, and its whole process group is killed at the bound. The bound holds when the agent itself is killed meanwhile,
because `timeout` of coreutils stands between them where there is one.

Not through asyncio's subprocesses: being called off while one of those starts kills the program but not its children.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

_OUTLIVING_GRACE = timedelta(seconds=2)
_DEATH_GRACE = timedelta(seconds=2)  # a process inside a hung driver does not die even of SIGKILL: then go on without
_CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramRun:
    """How a bounded run ended."""

    exit_code: int | None
    """Negative: the signal that ended it. None: it was killed at its deadline."""
    output: str
    """Standard output and error together, in the order written; the end of it when it was more than the bound."""
    processor_time: timedelta | None = None
    """What it and the children that it waited for took of the cores. None: it was killed at its deadline."""

    @property
    def timed_out(self) -> bool:
        """Whether it was killed at its deadline."""
        return self.exit_code is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How a program shows that it goes on, for one whose work has no bound that is both short and long enough."""

    shown: Callable[[], object]
    """Gives something else whenever it went on. May block for the disk."""
    within: timedelta
    """How long it may stay the same."""


async def run_bounded(
    argv: Sequence[str],
    *,
    timeout: timedelta,
    env: Mapping[str, str] | None = None,
    output_limit_bytes: int = 64 * 1024,
    dies_with_us: bool = False,
    inherited: tuple[int, ...] = (),
    progress: Progress | None = None,
) -> ProgramRun:
    """Runs a program to its end, or to its deadline.

    Args:
        argv: Program and arguments.
        timeout: After this the process group is killed.
        env: Variables to set on top of the agent's own.
        output_limit_bytes: How much of the end of its output is kept; the rest is read and dropped.
        dies_with_us: Has the kernel kill it at once, not only at its deadline, when this process is killed. Must be
            called in the main thread then: the kernel means the thread that started it. The program must be one
            process.
        inherited: Descriptors that it inherits, of locks that hold for as long as it runs.
        progress: Has it killed before its deadline, when it stands still.

    Returns:
        How it ended. When this task is cancelled, the process group is killed first.

    Raises:
        OSError: When the program cannot be started: missing, not executable, not for this machine.
    """
    _require_executable(argv[0])
    bounded = _dying_with_us(argv, timeout) if dies_with_us else _outliving(argv, timeout)
    async with _Running(bounded, env or {}, output_limit_bytes, inherited) as running:
        ended = await (running.ended_within(timeout) if progress is None else _ended(running, timeout, progress))
        if ended:
            await running.output_ended()
            exit_code = running.exit_code()
        else:
            exit_code = None
    return ProgramRun(exit_code=exit_code, output=running.output(), processor_time=running.processor_time)


class _Running:
    """A process group with one pipe for its output. Leaving it kills what is left of the group."""

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], output_limit_bytes: int, inherited: tuple[int, ...]
    ) -> None:
        self.processor_time: timedelta | None = None
        self._limit = output_limit_bytes
        self._tail = bytearray()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._silent = asyncio.Event()
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **env},
            pass_fds=inherited,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)
        self._pidfd = os.pidfd_open(self._process.pid)

    async def __aenter__(self) -> Self:
        self._loop.add_reader(self._pipe, self._read)
        self._loop.add_reader(self._pidfd, self._end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if self._process.returncode is None:
                self._kill_group()
                await self.ended_within(_DEATH_GRACE)
        finally:
            self._loop.remove_reader(self._pipe)
            self._loop.remove_reader(self._pidfd)
            self._process.poll()
            self._pipe.close()
            os.close(self._pidfd)

    async def ended_within(self, timeout: timedelta) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout.total_seconds()):
                await self._ended.wait()
        return self._ended.is_set()

    async def output_ended(self) -> None:
        """Awaits the end of the output. Something that outlived the program and keeps it open is killed."""
        try:
            async with asyncio.timeout(_DEATH_GRACE.total_seconds()):
                await self._silent.wait()
        except TimeoutError:
            self._kill_group()

    def exit_code(self) -> int:
        if self._process.returncode is None:
            _, status, usage = os.wait4(self._process.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            self.processor_time = timedelta(seconds=usage.ru_utime + usage.ru_stime)
        return self._process.returncode

    def output(self) -> str:
        return bytes(self._tail).decode(errors="replace")

    def _kill_group(self) -> None:
        # Its number is not given to another while a member lives, or its leader is not reaped.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._ended.set()

    def _read(self) -> None:
        try:
            chunk = os.read(self._pipe.fileno(), _CHUNK_BYTES)
        except BlockingIOError:
            return
        self._tail += chunk
        del self._tail[: -self._limit]
        if not chunk:
            self._loop.remove_reader(self._pipe)
            self._silent.set()


async def _ended(running: _Running, timeout: timedelta, progress: Progress) -> bool:
    """Waits for the end, the deadline, or until a program stood still for too long. Looking at it may hang, too."""
    deadline = asyncio.get_running_loop().time() + timeout.total_seconds()
    before: object = None
    while (left_s := deadline - asyncio.get_running_loop().time()) > 0:
        if await running.ended_within(min(progress.within, timedelta(seconds=left_s))):
            return True
        try:
            async with asyncio.timeout(progress.within.total_seconds()):
                shown = await asyncio.to_thread(progress.shown)
        except TimeoutError:
            return False
        if shown == before:
            return False
        before = shown
    return False


def _outliving(argv: Sequence[str], timeout: timedelta) -> list[str]:
    timeout_program = shutil.which("timeout")
    if timeout_program is None:
        return list(argv)
    seconds = (timeout + _OUTLIVING_GRACE).total_seconds()
    return [timeout_program, "-s", "KILL", f"{seconds:.3f}", *argv]


def _dying_with_us(argv: Sequence[str], timeout: timedelta) -> list[str]:
    """Has the kernel kill `timeout` when we are gone, and the program when `timeout` is gone."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return _outliving(argv, timeout)
    dying = [setpriv, "--pdeathsig", "KILL"]
    return [*dying, *_outliving([*dying, *argv], timeout)]


def _require_executable(program: str) -> None:
    # `timeout` in between would turn these into exit codes that programs use themselves.
    if shutil.which(program) is None:
        if Path(program).is_file():
            raise PermissionError(f"{program} is not executable")
        raise FileNotFoundError(f"{program} does not exist")
