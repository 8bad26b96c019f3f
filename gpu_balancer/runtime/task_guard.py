"""Owners of asyncio tasks: no task without an owner, a name and somebody who hears of its error at once.

`asyncio.create_task` alone lets an error wait until the task is collected, and `asyncio.TaskGroup` waits for its tasks
at the end, which is wrong for the loops of a daemon. A guard cancels them instead. An error in any task is logged the
moment it happens and ends the owner, because a daemon that has lost one of its loops only looks alive.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

_LOG = logging.getLogger(__name__)
_Result = TypeVar("_Result")


class TaskFault(Exception):
    """A guarded task failed, or an eternal one ended. The error of the task is the cause."""

    def __init__(self, message: str, *, task_name: str) -> None:
        super().__init__(message)
        self.task_name = task_name


class TaskGuard:
    """Owns tasks while its `async with` block runs; cancels and awaits all of them when it ends.

    When a task fails, the block is cancelled and `TaskFault` leaves it. A task that is cancelled through its own handle
    ends quietly. Must be entered and left by the same task.
    """

    def __init__(self, owner: str) -> None:
        """Makes a guard that is not entered yet.

        Args:
            owner: Whose tasks they are; leads their names in logs: "agent/sessions".
        """
        self._owner = owner
        self._owner_task: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._eternal: set[asyncio.Task[Any]] = set()
        self._fault: TaskFault | None = None
        self._closing = False
        self._cancelled_owner = False

    async def __aenter__(self) -> Self:
        if self._owner_task is not None:
            raise RuntimeError(f"Cannot enter the task guard of {self._owner} twice. Try a new one.")
        self._owner_task = asyncio.current_task()
        return self

    def spawn(self, coroutine: Coroutine[Any, Any, _Result], *, name: str) -> asyncio.Task[_Result]:
        """Starts a task that may end whenever its work is done.

        Args:
            coroutine: What to run.
            name: What it does, for logs; need not be unique.

        Returns:
            The task: may be awaited, or cancelled, by anybody.

        Raises:
            RuntimeError: When the guard is not entered, or is closing; the coroutine is closed unstarted.
        """
        if self._owner_task is None or self._closing:
            coroutine.close()
            state = "closing" if self._closing else "not entered"
            raise RuntimeError(f"Cannot start the task {name!r} of {self._owner}: its guard is {state}.")
        task = asyncio.get_running_loop().create_task(coroutine, name=f"{self._owner}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def spawn_eternal(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Starts a task that must run until the guard closes: returning is a fault.

        Args:
            coroutine: What to run.
            name: What it does, for logs.

        Returns:
            The task.

        Raises:
            RuntimeError: As for `spawn`.
        """
        task = self.spawn(coroutine, name=name)
        self._eternal.add(task)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        eternal = task in self._eternal
        self._eternal.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        name = task.get_name()
        if error is not None:
            _LOG.error("Task %s failed", name, exc_info=error)
            self._fail(f"Task {name} failed: {type(error).__name__}: {error}", task_name=name, cause=error)
        elif eternal and not self._closing:
            _LOG.error("Task %s ended, but was to run until its owner ends", name)
            self._fail(f"Task {name} ended, but was to run until its owner ends", task_name=name, cause=None)

    def _fail(self, message: str, *, task_name: str, cause: BaseException | None) -> None:
        if self._fault is not None:
            return
        self._fault = TaskFault(message, task_name=task_name)
        self._fault.__cause__ = cause
        if not self._closing and self._owner_task is not None and not self._owner_task.done():
            self._cancelled_owner = True
            self._owner_task.cancel()

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._closing = True
        cancelled = error if isinstance(error, asyncio.CancelledError) else None
        if self._cancelled_owner and cancelled is None:
            # Our cancellation has not reached the owner yet: take it here, or it strikes the owner's next await.
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError as late:
                cancelled = late
        cancelled = await self._cancel_all() or cancelled
        asked_from_outside = cancelled is not None
        if self._cancelled_owner and self._owner_task is not None:
            asked_from_outside = self._owner_task.uncancel() > 0
        if asked_from_outside:
            if error is not cancelled and cancelled is not None:
                raise cancelled
            return
        if self._fault is not None and (error is None or isinstance(error, asyncio.CancelledError)):
            raise self._fault

    async def _cancel_all(self) -> asyncio.CancelledError | None:
        """Cancels and awaits every task; a cancellation of the owner meanwhile cancels them again, for the stubborn."""
        cancelled = None
        for task in tuple(self._tasks):
            task.cancel()
        while self._tasks:
            try:
                await asyncio.wait(tuple(self._tasks))
            except asyncio.CancelledError as late:
                cancelled = late
                for task in tuple(self._tasks):
                    task.cancel()
            else:
                # Done callbacks, which take tasks off the set, run in the loop's next turn.
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError as late:
                    cancelled = late
        return cancelled
