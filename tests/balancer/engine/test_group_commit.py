"""Changes of many sessions share a commit, and nobody waits longer for company than it is worth."""

from __future__ import annotations

import asyncio

from balancer.group_commit import GroupCommit, Write
from balancer.ports.session_store import PutSession
from fakes.session_records import session_record
from fakes.session_store import FakeSessionStore
from gpu_balancer.runtime.task_guard import TaskGuard


def write(number: int) -> Write:
    return Write((PutSession(record=session_record(number)),), lambda: None, lambda _: None, True)


async def batch_sizes(*, arriving: int, turns_between: int) -> list[int]:
    """Gives how many changes each commit carried: two to begin with, then some more, one after the other."""
    store = FakeSessionStore()
    await store.load()
    commits = GroupCommit(store)
    async with TaskGuard("test") as tasks:
        tasks.spawn_eternal(commits.run(), name="group commit")
        for number in range(2):
            commits.submit(write(number))
        await commits.flush()
        for number in range(2, arriving + 2):
            commits.submit(write(number))
            for _ in range(turns_between):
                await asyncio.sleep(0)
        await commits.flush()
    return [len(batch) for batch in store.batches]


async def test_what_comes_one_by_one_within_a_few_turns_shares_a_commit() -> None:
    assert await batch_sizes(arriving=20, turns_between=10) == [2, 20]


async def test_what_comes_later_does_not_keep_the_earlier_waiting() -> None:
    assert await batch_sizes(arriving=3, turns_between=60) == [2, 1, 1, 1]


async def test_a_commit_waits_for_no_more_than_share_its_cost() -> None:
    first, second, *further = await batch_sizes(arriving=130, turns_between=10)
    assert first == 2
    assert second == 64
    assert sum(further) == 66
