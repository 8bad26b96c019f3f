"""Has attempts watched to their ends, whatever goes wrong in the watching.

A runner that fails unforeseen must not take along the agent, and with it everything else that the agent looks after. As
the next agent would, another runner goes on from where the attempt's folder says that it stands. When that fails again
and again the attempt is ended, or it would never end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from agents.sessions.attempt import Phase
from agents.sessions.endings import conclude_unwatchable
from agents.sessions.processes import end_processes
from gpu_balancer.runtime.log import bind_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from contextlib import AbstractContextManager

    from agents.sessions.attempt import AttemptKey
    from agents.sessions.endings import Conclusion
    from agents.sessions.folder import AttemptFolder
    from agents.sessions.records import AnyRecord
    from agents.sessions.running import Runner, RunnerMaker
    from agents.sessions.session_trace import SessionTrace
    from agents.sessions.status_book import Attempt, StatusBook
    from gpu_balancer.runtime.clock import Clock
    from gpu_balancer.runtime.task_guard import TaskGuard

_LOG = logging.getLogger(__name__)
_AGAIN_AFTER_S = (0.5, 5.0, 30.0)
"""Pauses before another runner, one after the other."""
_WELL_AFTER_S = 300.0
"""A runner that worked for so long before it failed counts as the first."""
KILLED_WITHIN = timedelta(seconds=10)
"""How long a killed process may take to go before that is said, and tried again."""


class Watches:
    """The runners of an agent."""

    def __init__(
        self,
        make_runner: RunnerMaker,
        book: StatusBook,
        *,
        tasks: TaskGuard,
        clock: Clock,
        on_ended: Callable[[], None],
    ) -> None:
        """Watches over nothing yet.

        Args:
            make_runner: Makes who watches over one.
            book: Where ends are told that no runner could.
            tasks: Owns what goes on in the background.
            clock: For times.
            on_ended: Called when a watched attempt has ended.
        """
        self._make_runner = make_runner
        self._book = book
        self._tasks = tasks
        self._clock = clock
        self._on_ended = on_ended
        self._runners: dict[AttemptKey, Runner] = {}
        self._watches: dict[AttemptKey, asyncio.Task[None]] = {}
        self._speed_limits: dict[AttemptKey, float | None] = {}

    def begin(self, attempt: Attempt, record: AnyRecord, trace: SessionTrace, shim: int | None) -> Runner:
        """Has an attempt watched from now on.

        Args:
            attempt: Which.
            record: How it was launched.
            trace: The session's spans.
            shim: Process id of its shim when that is the agent's own child. None: it is to be found.
        """

        def make() -> Runner:
            runner = self._runners[attempt.key] = self._make_runner(attempt, record, trace)
            if attempt.key in self._speed_limits:
                runner.pace(self._speed_limits[attempt.key])
            return runner

        first = make()
        watching = self._watched_through(attempt, first, shim, another=make)
        self._watches[attempt.key] = self._tasks.spawn(watching, name=f"watch {attempt.key}")
        return first

    def runner(self, key: AttemptKey) -> Runner | None:
        """Gives who watches over an attempt. None: nobody does, or not any more."""
        return self._runners.get(key)

    def pace(self, key: AttemptKey, speed_limit: float | None) -> None:
        """Holds an attempt at a speed, in times real time, whoever watches over it. None: lets it go."""
        if (runner := self._runners.get(key)) is not None:
            self._speed_limits[key] = speed_limit
            runner.pace(speed_limit)

    def runners(self) -> Iterator[tuple[AttemptKey, Runner]]:
        """Lists the attempts that are watched, and who watches over each."""
        yield from self._runners.items()

    async def put_away(self, key: AttemptKey) -> None:
        """Returns when nobody watches over an attempt that has told its end."""
        if (watch := self._watches.get(key)) is not None:
            await asyncio.wait([watch])

    async def _watched_through(
        self, attempt: Attempt, runner: Runner, shim: int | None, *, another: Callable[[], Runner]
    ) -> None:
        with logging_of(attempt.key), _kept_child(shim) as is_still_child:
            failures, runners = 0, [runner]
            while True:
                began_s = self._clock.monotonic_s()
                try:
                    if attempt.status.live:
                        await runners[-1].watch(shim)
                    else:  # It has ended, and that could not be told.
                        await self._book.publish(attempt)
                    break
                except Exception as error:  # noqa: BLE001 - one attempt's trouble must not be every attempt's
                    _LOG.exception("Cannot watch over it")
                    fault = error
                told = self._book.statuses.get(attempt.key)
                if not attempt.status.live and told is not None and not told.live:
                    break
                failures = 1 if self._clock.monotonic_s() - began_s >= _WELL_AFTER_S else failures + 1
                if failures > len(_AGAIN_AFTER_S):
                    await self._give_up(attempt, runners, fault)
                    break
                # At once, for whoever asks something of it meanwhile.
                runners.append(another())
                await asyncio.sleep(_AGAIN_AFTER_S[failures - 1])
                shim = shim if is_still_child() else None
            del self._runners[attempt.key], self._watches[attempt.key]
            self._speed_limits.pop(attempt.key, None)
            status = attempt.status
            reason = "" if status.failure is None else f": {status.failure.reason}: {status.failure.message}"
            _LOG.info("Ended %s%s", status.ending, reason)
            self._on_ended()

    async def _give_up(self, attempt: Attempt, runners: Iterable[Runner], fault: Exception) -> None:
        for runner in runners:
            try:
                await runner.give_up()
            except Exception:  # noqa: BLE001 - what it held is lost to the agent, and its processes are ended below
                _LOG.exception("Cannot give back what it held")
        await end_unwatched(
            attempt, lambda folder: conclude_unwatchable(folder, fault), book=self._book, clock=self._clock
        )


async def end_unwatched(
    attempt: Attempt, conclude: Callable[[AttemptFolder], Conclusion], *, book: StatusBook, clock: Clock
) -> None:
    """Ends what runs of an attempt that cannot be watched, however long that takes, and tells how it ended.

    Args:
        attempt: Which.
        conclude: Tells how, once nothing of it runs. Blocks.
        book: Where that is told.
        clock: For times.
    """
    while not await end_processes(attempt.folder, within=KILLED_WITHIN, clock=clock):
        _LOG.error("Cannot end what runs of %s; trying again", attempt.key)
    conclusion = await asyncio.to_thread(conclude, attempt.folder)
    attempt.status = replace(
        attempt.status,
        phase=Phase.ENDED,
        ending=conclusion.ending,
        failure=conclusion.failure,
        conditions=(),
        end_time=clock.now(),
    )
    await book.publish(attempt)


@contextlib.contextmanager
def _kept_child(pid: int | None) -> Iterator[Callable[[], bool]]:
    """Keeps hold of a child, which leaves no zombie in the end. None: there is none.

    Yields:
        What tells whether it has not been reaped yet, so that its process id is still its own.
    """
    descriptor = None
    with contextlib.suppress(OSError):
        descriptor = None if pid is None else os.pidfd_open(pid)

    def is_child(options: int = os.WNOWAIT) -> bool:
        if descriptor is None:
            return False
        try:
            os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG | options)
        except ChildProcessError:
            return False
        return True

    try:
        yield is_child
    finally:
        if descriptor is not None:
            is_child(0)
            os.close(descriptor)


def logging_of(key: AttemptKey) -> AbstractContextManager[None]:
    """Has what is logged meanwhile name an attempt."""
    return bind_session(f"sessions/{key.session}", key.attempt)
