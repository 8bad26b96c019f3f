"""Calls of a driver that may never return, without holding up anything but who waits for them.

`asyncio.to_thread` would do until the first card that hangs: its threads are waited for when the process ends, which it
then never does. These are daemons.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

T = TypeVar("T")


def driver_call_within(call: Callable[[], T], timeout: timedelta) -> T:
    """Runs a call in a daemon thread and waits for it, but not for ever. Blocks.

    Raises:
        TimeoutError: It has not returned in time, and is left to itself.
    """
    answers: queue.SimpleQueue[tuple[T | None, Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:  # noqa: BLE001 - handed on to who waits
            answers.put((None, error))

    threading.Thread(target=run, name="driver call", daemon=True).start()
    try:
        result, problem = answers.get(timeout=timeout.total_seconds())
    except queue.Empty:
        raise TimeoutError from None
    if problem is not None:
        raise problem
    return result  # type: ignore[return-value]


async def driver_call(call: Callable[[], T]) -> T:
    """Runs a blocking call in a daemon thread of its own and gives what it returns, or raises what it raises.

    A caller that is cancelled leaves the thread to itself.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: Exception | None) -> None:
        if answer.done():
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result: T | None = None
        problem: Exception | None = None
        try:
            result = call()
        except Exception as error:  # noqa: BLE001 - handed on to who waits
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            return  # the loop has ended meanwhile, and nobody waits

    threading.Thread(target=run, name="driver call", daemon=True).start()
    return await answer
