"""A take whose ffmpeg was started ahead of its time, and waits: so the first picture need not wait for its start."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from agents.pipelines.held_command import held_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from agents.pipelines.command import Command
    from agents.recordings.take_run import TakeRun


class HeldTake:
    """An ffmpeg that waits to be let go. One whose agent dies, or lets go of it unsaid, ends by itself.

    It has opened no output, and what holds a recording's display ends it too: nothing has to be known of it later.
    """

    def __init__(self, run: TakeRun, graph: bytes, gate: int) -> None:
        """Takes hold of one that was started.

        Args:
            run: Its processes.
            graph: What lets it go.
            gate: Descriptor of the pipe to which that is written; taken over.
        """
        self._run = run
        self._graph = graph
        self._gate: int | None = gate

    @classmethod
    def start(cls, command: Command, start: Callable[[Command, tuple[int, ...]], TakeRun]) -> Self:
        """Starts it.

        Args:
            command: One that may be held.
            start: Starts a take from a command, with descriptors that its ffmpeg is to have.

        Raises:
            OSError: When the system cannot start a process.
        """
        read, gate = os.pipe()
        try:
            held = held_command(command, read)
            run = start(replace(command, argv=held.argv), (read,))
        except BaseException:
            os.close(gate)
            raise
        finally:
            os.close(read)
        return cls(run, held.graph, gate)

    async def let_go(self) -> TakeRun | None:
        """Has it begin. May be called once.

        Returns:
            The take, which records from now on. None: its ffmpeg has ended meanwhile, and nothing of it is left.
        """
        assert self._gate is not None
        if self._run.gone:
            await self.give_up()
            return None
        with contextlib.suppress(BrokenPipeError):  # It ends just now, and is seen to.
            os.write(self._gate, self._graph)
        self._close_gate()
        return self._run

    async def give_up(self) -> None:
        """Has it end, and awaits that, unless it was let go."""
        if self._gate is not None:
            # Before it finds that there is no graph: it would say so in a log that people read.
            self._run.kill()
            self._close_gate()
            with self._run:
                await self._run.reap()

    def _close_gate(self) -> None:
        assert self._gate is not None
        os.close(self._gate)
        self._gate = None
