"""Tasks end with their owner, and their errors end the owner."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

import pytest

from gpu_balancer.runtime.task_guard import TaskFault, TaskGuard

if TYPE_CHECKING:
    from collections.abc import Callable


async def _forever() -> NoReturn:
    await asyncio.Event().wait()
    raise AssertionError("nobody sets the event")


async def _fail() -> NoReturn:
    raise ValueError("no such loop")


async def test_a_task_gives_its_result_to_whoever_awaits_it() -> None:
    async def answer() -> int:
        return 42

    async with TaskGuard("owner") as guard:
        assert await guard.spawn(answer(), name="answer") == 42


async def test_tasks_are_named_for_their_owner() -> None:
    async with TaskGuard("agent/sessions") as guard:
        assert guard.spawn(_forever(), name="watch").get_name() == "agent/sessions/watch"


async def test_leaving_the_block_cancels_and_awaits_every_task() -> None:
    cleaned: list[str] = []

    async def tidy(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    async with TaskGuard("owner") as guard:
        tasks = [guard.spawn_eternal(tidy("one"), name="one"), guard.spawn(tidy("two"), name="two")]
        await asyncio.sleep(0)
    assert sorted(cleaned) == ["one", "two"]
    assert all(task.cancelled() for task in tasks)


async def test_an_error_in_a_task_ends_its_owner_at_once_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def owner() -> None:
        async with TaskGuard("owner") as guard:
            guard.spawn(_fail(), name="loop")
            await _forever()

    with pytest.raises(TaskFault, match=r"owner/loop failed: ValueError: no such loop") as caught:
        await owner()
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.task_name == "owner/loop"
    assert [record.getMessage() for record in caplog.records] == ["Task owner/loop failed"]
    assert caplog.records[0].exc_info is not None


async def test_an_eternal_task_that_ends_is_a_fault() -> None:
    async def too_short() -> None:
        await asyncio.sleep(0)

    async def owner() -> None:
        async with TaskGuard("owner") as guard:
            guard.spawn_eternal(too_short(), name="loop")
            await _forever()

    with pytest.raises(TaskFault, match="was to run until its owner ends"):
        await owner()


async def test_a_task_cancelled_by_its_handle_ends_quietly() -> None:
    async with TaskGuard("owner") as guard:
        task = guard.spawn_eternal(_forever(), name="loop")
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
    assert task.cancelled()


async def test_a_fault_that_comes_while_the_block_is_leaving_is_not_lost() -> None:
    """The owner does not await between the fault and the end of the block; no cancellation may stay behind either."""

    async def owner() -> str:
        try:
            async with TaskGuard("owner") as guard:
                task = guard.spawn(_fail(), name="loop")
                done = asyncio.Event()
                task.add_done_callback(lambda _: done.set())
                await done.wait()
        except TaskFault:
            await asyncio.sleep(0)
            return "went on"
        return "lost"

    assert await asyncio.get_running_loop().create_task(owner()) == "went on"


async def test_an_error_in_a_tasks_clean_up_is_a_fault() -> None:
    async def unclean() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("disk full")

    async def owner() -> None:
        async with TaskGuard("owner") as guard:
            guard.spawn(unclean(), name="writer")
            await asyncio.sleep(0)

    with pytest.raises(TaskFault, match="disk full"):
        await owner()


async def test_the_owners_own_error_goes_before_a_fault() -> None:
    async def owner() -> None:
        async with TaskGuard("owner") as guard:
            guard.spawn(_forever(), name="loop")
            raise KeyError("mine")

    with pytest.raises(KeyError):
        await owner()


async def test_a_cancelled_owner_cancels_its_tasks_and_stays_cancelled() -> None:
    inside: list[asyncio.Task[NoReturn]] = []
    entered = asyncio.Event()

    async def owner() -> None:
        async with TaskGuard("owner") as guard:
            inside.append(guard.spawn(_forever(), name="loop"))
            entered.set()
            await _forever()

    task = asyncio.get_running_loop().create_task(owner())
    await entered.wait()
    task.cancel()

    async def owner() -> None:
        await task

    with pytest.raises(asyncio.CancelledError):
        await owner()
    assert inside[0].cancelled()


async def test_a_task_that_ignores_one_cancellation_gets_another_when_its_owner_does() -> None:
    stubborn = asyncio.Event()

    async def ignore_once() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stubborn.set()
            await asyncio.Event().wait()

    async def owner() -> None:
        async with TaskGuard("owner") as guard:
            guard.spawn(ignore_once(), name="stubborn")
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(owner())
    await stubborn.wait()
    task.cancel()

    async def owner() -> None:
        await task

    with pytest.raises(asyncio.CancelledError):
        await owner()


@pytest.mark.parametrize("closed", [True, False])
async def test_a_guard_that_is_not_open_takes_no_task(closed: bool) -> None:
    guard = TaskGuard("owner")
    if closed:
        async with guard:
            pass

    async def owner() -> None:
        guard.spawn(_forever(), name="late")

    with pytest.raises(RuntimeError, match="closing" if closed else "not entered"):
        await owner()


async def test_a_guard_is_entered_once() -> None:
    async with TaskGuard("owner") as guard:

        async def owner() -> None:
            await guard.__aenter__()

    with pytest.raises(RuntimeError, match="twice"):
        await owner()


async def test_only_the_first_of_several_errors_is_raised_and_each_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def failing(text: str) -> Callable[[], object]:
        async def fail() -> None:
            raise RuntimeError(text)

        return fail

    async def owner() -> None:
        async with TaskGuard("owner") as guard:
            for text in ("first", "second"):
                guard.spawn(failing(text)(), name=text)  # type: ignore[arg-type]
            await _forever()

    with caplog.at_level(logging.ERROR), pytest.raises(TaskFault, match="first"):
        await owner()
    assert len(caplog.records) == 2
