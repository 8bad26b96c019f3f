"""One take's ffmpeg, from its start to its exit status: looked after by turns, ended by one signal.

It shares its lock with the whole display, so its own end is told by its shim, not by the lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from agents.precedence import give_precedence
from agents.recordings.take_figures import TakeFigures
from agents.sessions.attempt_health import USUAL_BOUNDS, HealthBounds
from agents.sessions.bounded_files import bound_file
from agents.sessions.processes import AttemptProcesses
from agents.sessions.spawning import spawn_shim

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import timedelta
    from types import TracebackType

    from agents.pipelines.command import Command
    from agents.recordings.state import Take
    from agents.sessions.fence import FenceHold
    from agents.sessions.folder import AttemptFolder
    from gpu_balancer.runtime.clock import Clock

_SHIM_GRACE_S = 2.0
"""Seconds that a shim gets to write down that its program was killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBounds:
    """How a take is looked after."""

    stop_timeout: timedelta
    """How long ffmpeg may complete its outputs before it is killed."""
    log_limit_bytes: int
    first_picture_timeout: timedelta
    """How long the first picture may take."""
    health: HealthBounds = USUAL_BOUNDS
    """What is still taken for healthy."""


class TakeRun:
    """The processes of one take. A context manager: leaving it gives its handles back and ends no process."""

    def __init__(
        self, folder: AttemptFolder, take: Take, *, clock: Clock, bounds: TakeBounds, shim: int | None = None
    ) -> None:
        """Takes hold of a take that was started.

        Args:
            folder: The take's own folder.
            take: What is known of it.
            clock: Measures waits.
            bounds: How it is looked after.
            shim: Process id of its shim when it is the agent's own child. None: it is to be found.
        """
        self.figures = TakeFigures(folder, take)
        self._folder = folder
        self._clock = clock
        self._bounds = bounds
        self._processes = AttemptProcesses(folder, shim)
        self._signalled_s: float | None = None
        self._killed_s: float | None = None
        self._asked_s: float | None = None

    @classmethod
    def start(
        cls,
        folder: AttemptFolder,
        command: Command,
        take: Take,
        *,
        fence: FenceHold,
        clock: Clock,
        bounds: TakeBounds,
        inherited: tuple[int, ...] = (),
    ) -> Self:
        """Starts a take in its folder, behind the fence of its session.

        Args:
            folder: The take's own folder.
            command: What is started.
            take: What is known of it.
            fence: Of its session, held.
            clock: Measures waits.
            bounds: How it is looked after.
            inherited: Descriptors that its ffmpeg is to have.

        Raises:
            OSError: When the system cannot start a process.
        """
        shim = spawn_shim(
            folder, command.argv, command.env, fence=fence.descriptor, inherited=inherited, among_others=True
        )
        give_precedence(shim)
        return cls(folder, take, clock=clock, bounds=bounds, shim=shim)

    def __enter__(self) -> Self:
        self._processes.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._processes.__exit__(kind, error, traceback)

    @property
    def take(self) -> Take:
        """What is known of it."""
        return self.figures.take

    @property
    def begun(self) -> bool:
        """Whether its shim was started at all: a predecessor may have been killed just before."""
        return self._folder.shim_pid() is not None

    @property
    def program_pid(self) -> int | None:
        """Process id of its ffmpeg. None: it has none yet."""
        return self._folder.program_pid()

    @property
    def gone(self) -> bool:
        """Whether its ffmpeg has ended, or nobody is left who could tell how it does."""
        self._processes.any_alive()  # reaps the shim
        if self._folder.exit_code() is not None:
            return True
        alive = self._processes.shim_alive()
        # One that has written who it is, and is not there, was killed while nobody watched.
        return alive is False or (alive is None and self.begun)

    @property
    def told_to_end(self) -> bool:
        """Whether `end` was called."""
        return self._asked_s is not None

    @property
    def exit_code(self) -> int | None:
        """How ffmpeg ended, 128 + signal when a signal ended it. None: it has not, or that was not seen."""
        return self._folder.exit_code()

    async def reap(self) -> None:
        """Awaits that its shim has ended too, once its ffmpeg has, and takes its number back from the system."""
        if self._processes.shim_alive():
            ended = asyncio.Event()
            with self.waking(ended), contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), _SHIM_GRACE_S)
        self._processes.any_alive()  # reaps the shim

    @contextlib.contextmanager
    def waking(self, wake: asyncio.Event) -> Iterator[None]:
        """Has an event set as soon as the take's shim ends, while the block runs."""
        shim = self._processes.shim_fd
        if shim is None:
            yield
            return
        loop = asyncio.get_running_loop()
        loop.add_reader(shim, wake.set)
        try:
            yield
        finally:
            loop.remove_reader(shim)

    def look(self) -> bool:
        """Reads how far it is. Returns whether it has come further.

        Raises:
            OSError: When a file cannot be read.
        """
        further = self.figures.read(self._clock.monotonic_s())
        limit = self._bounds.log_limit_bytes
        bound_file(self._folder.log, limit_bytes=limit, keep_bytes=limit // 2)
        return further

    def kill(self) -> None:
        """Kills its ffmpeg, if it has begun, which has written nothing that is wanted."""
        self._processes.signal_program(signal.SIGKILL)

    def end(self) -> None:
        """Does what is due to end it: one signal, a bounded wait, death. Called again and again until it is gone."""
        now_s = self._clock.monotonic_s()
        if self._asked_s is None:
            self._asked_s = now_s
        if self._killed_s is not None:
            if now_s - self._killed_s > _SHIM_GRACE_S:
                # The shim hangs too. Nothing of this attempt is worth keeping alive.
                self._processes.kill_all()
            return
        # The program may not have begun yet: then it is tried again at the next turn.
        unheard = self._signalled_s is None and self._processes.continue_program()
        if unheard and self._processes.signal_program(signal.SIGTERM):
            self._signalled_s = now_s
        since_s = self._asked_s if self._signalled_s is None else self._signalled_s
        if now_s - since_s > self._bounds.stop_timeout.total_seconds():
            self._processes.signal_program(signal.SIGKILL)
            self._killed_s = now_s
