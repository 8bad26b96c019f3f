"""Work that is called off as soon as something happens, and work beside other work."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

Result = TypeVar("Result")


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Does work to its end, unless an event comes first: then the work is cancelled, and that is awaited.

    Args:
        event: What calls it off.
        work: What to do.

    Returns:
        What the work gives. None: it was called off.

    Raises:
        BaseException: What the work raises.
    """
    loop = asyncio.get_running_loop()
    working, waiting = loop.create_task(work), loop.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait({working, waiting})
    return None if working.cancelled() else working.result()


@asynccontextmanager
async def beside_it(other: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Does something for as long as the block runs at most; then it is called off, and that is awaited.

    Args:
        other: What is done. It must not raise.
    """
    task = asyncio.get_running_loop().create_task(other)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def beside(other: Coroutine[Any, Any, None], work: Coroutine[Any, Any, Result]) -> Result:
    """Does two things at once, to the end of both; when the work fails, the other is called off.

    Args:
        other: What is done beside it. It must not raise.
        work: What matters.

    Returns:
        What the work gives.

    Raises:
        BaseException: What the work raises.
    """
    task = asyncio.get_running_loop().create_task(other)
    try:
        result = await work
    except BaseException:
        task.cancel()
        raise
    finally:
        await asyncio.wait({task})
    return result
