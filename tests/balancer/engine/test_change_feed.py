"""The change feed: slow watchers, resuming, and never missing the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from balancer.change_feed import (
    ChangeFeed,
    FeedItem,
    FeedReset,
    FeedSynced,
    SessionRemoved,
    SessionUpdated,
)
from balancer.domain.ids import SessionId
from balancer.domain.session import SessionRecord, SessionState
from fakes.session_records import session_record
from fakes.virtual_time import settle
from gpu_balancer.runtime.failures import Reason, RequestFailure


class Publisher:
    """Publishes as the engine does."""

    def __init__(self, **limits: int) -> None:
        self.records: dict[SessionId, SessionRecord] = {}
        self.feed = ChangeFeed(self.records, epoch="life1", **limits)

    def put(self, number: int, state: SessionState = SessionState.RUNNING) -> SessionRecord:
        session_id = SessionId(f"session-{number}")
        before = self.records.get(session_id)
        record = session_record(number, state=state, revision=before.revision + 1 if before else 1)
        self.records[session_id] = record
        self.feed.publish(session_id, record)
        return record

    def remove(self, number: int) -> None:
        session_id = SessionId(f"session-{number}")
        del self.records[session_id]
        self.feed.publish(session_id, None)


@pytest.fixture
def publisher() -> Publisher:
    return Publisher()


def told(item: FeedItem) -> str:
    """Says an item in short."""
    match item:
        case SessionUpdated():
            return f"{item.record.id} {item.record.state.value} {item.record.revision}"
        case SessionRemoved():
            return f"{item.session_id} removed"
        case FeedSynced():
            return "synced"
        case FeedReset():
            return "reset"


async def take(items: AsyncIterator[FeedItem], count: int) -> list[str]:
    return [told(await anext(items)) for _ in range(count)]


async def nothing_more(items: AsyncIterator[FeedItem] | AsyncIterator[SessionRecord]) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            await anext(items)


async def test_a_watch_begins_with_what_is_there_and_goes_on_with_changes(publisher: Publisher) -> None:
    publisher.put(1)
    items = publisher.feed.watch_sessions()
    assert await take(items, 2) == ["session-1 running 1", "synced"]
    publisher.put(2)
    publisher.put(1, SessionState.SUCCEEDED)
    publisher.remove(1)
    assert await take(items, 3) == ["session-2 running 1", "session-1 succeeded 2", "session-1 removed"]
    await nothing_more(items)


async def test_a_slow_watcher_gets_the_latest_state_of_each_session_once(publisher: Publisher) -> None:
    items = publisher.feed.watch_sessions()
    assert await take(items, 1) == ["synced"]
    for _ in range(1000):
        publisher.put(1)
        publisher.put(2)
    publisher.put(1, SessionState.FAILED)
    assert await take(items, 2) == ["session-2 running 1000", "session-1 failed 1001"]
    await nothing_more(items)


async def test_a_session_that_always_changes_does_not_hide_the_end_of_another(publisher: Publisher) -> None:
    items = publisher.feed.watch_sessions()
    await take(items, 1)
    for number in range(1, 6):
        publisher.put(number)
    publisher.put(3, SessionState.SUCCEEDED)
    seen = []
    for _ in range(6):
        seen += await take(items, 1)
        publisher.put(1)
        publisher.put(2)
    assert "session-3 succeeded 2" in seen


async def test_a_watcher_that_was_cut_goes_on_after_its_token(publisher: Publisher) -> None:
    publisher.put(1)
    publisher.put(2)
    items = publisher.feed.watch_sessions()
    await take(items, 3)
    publisher.put(3)
    last = await anext(items)
    assert isinstance(last, SessionUpdated)
    publisher.put(2)
    publisher.put(2)
    publisher.put(1, SessionState.SUCCEEDED)
    publisher.remove(3)
    again = publisher.feed.watch_sessions(resume_token=last.resume_token)
    assert await take(again, 4) == ["session-2 running 3", "session-1 succeeded 2", "session-3 removed", "synced"]
    publisher.put(4)
    assert await take(again, 1) == ["session-4 running 1"]


async def test_a_watcher_that_is_cut_between_an_end_and_its_deletion_hears_of_the_deletion(
    publisher: Publisher,
) -> None:
    items = publisher.feed.watch_sessions()
    await take(items, 1)
    publisher.put(1, SessionState.SUCCEEDED)
    publisher.remove(1)
    end = await anext(items)
    assert isinstance(end, SessionUpdated)
    again = publisher.feed.watch_sessions(resume_token=end.resume_token)
    assert await take(again, 2) == ["session-1 removed", "synced"]


async def test_every_token_resumes_without_a_gap(publisher: Publisher) -> None:
    """Whatever the last item a client got, resuming after it leads to the same knowledge."""
    items = publisher.feed.watch_sessions()
    known: dict[str, SessionRecord] = {}
    token = ""
    for step in range(60):
        for number in range(1 + step % 3):
            publisher.put((step * 7 + number) % 5)
        if step % 4 == 3:
            publisher.remove((step * 7) % 5)
        item = await anext(items)
        known, token = remember(known, item, token)
        if step % 5 == 4:
            items = publisher.feed.watch_sessions(resume_token=token)
            if not token:
                known = {}
    items = publisher.feed.watch_sessions(resume_token=token)
    if not token:
        known = {}
    while True:
        item = await anext(items)
        known, token = remember(known, item, token)
        if isinstance(item, FeedSynced):
            break
    assert known == publisher.records


def remember(known: dict[str, SessionRecord], item: FeedItem, token: str) -> tuple[dict[str, SessionRecord], str]:
    """Does what a client does with an item."""
    match item:
        case FeedReset():
            return {}, ""
        case FeedSynced():
            return known, item.resume_token
        case SessionUpdated():
            return {**known, item.record.id: item.record}, item.resume_token
        case SessionRemoved():
            return {key: value for key, value in known.items() if key != item.session_id}, item.resume_token


@pytest.mark.parametrize(
    "token", ["life0-1", "life1-999", "life1-0", "life1-x", "nonsense", "life1-²", "life1-" + "9" * 5000]
)
async def test_a_token_that_is_foreign_or_too_old_resets(token: str) -> None:
    publisher = Publisher(kept_changes=3)
    for number in range(5):
        publisher.put(number)
    items = publisher.feed.watch_sessions(resume_token=token)
    assert await take(items, 2) == ["reset", "session-0 running 1"]
    assert (await take(items, 5))[-1] == "synced"


async def test_the_oldest_token_that_is_kept_resumes() -> None:
    publisher = Publisher(kept_changes=3)
    for number in range(5):
        publisher.put(number)
    items = publisher.feed.watch_sessions(resume_token="life1-2")
    assert await take(items, 4) == ["session-2 running 1", "session-3 running 1", "session-4 running 1", "synced"]


async def test_a_token_of_now_resumes_with_nothing(publisher: Publisher) -> None:
    publisher.put(1)
    items = publisher.feed.watch_sessions(resume_token=publisher.feed.resume_token)
    assert await take(items, 1) == ["synced"]
    await nothing_more(items)


async def test_present_sessions_carry_no_token_because_a_cut_then_begins_again(publisher: Publisher) -> None:
    publisher.put(1)
    first = await anext(publisher.feed.watch_sessions())
    assert isinstance(first, SessionUpdated)
    assert first.resume_token == ""


async def test_a_watcher_that_falls_too_far_behind_begins_again() -> None:
    publisher = Publisher(max_pending=10)
    items = publisher.feed.watch_sessions()
    await take(items, 1)
    for number in range(11):
        publisher.put(number)
    assert (await take(items, 13))[::12] == ["reset", "synced"]
    publisher.put(3)
    assert await take(items, 1) == ["session-3 running 2"]


async def test_a_session_that_stops_matching_is_removed_once(publisher: Publisher) -> None:
    items = publisher.feed.watch_sessions(matches=lambda record: record.state is SessionState.RUNNING)
    await take(items, 1)
    publisher.put(1)
    assert await take(items, 1) == ["session-1 running 1"]
    publisher.put(1, SessionState.SUCCEEDED)
    assert await take(items, 1) == ["session-1 removed"]
    publisher.remove(1)
    await nothing_more(items)


async def test_a_session_that_never_matched_is_never_told_of(publisher: Publisher) -> None:
    publisher.put(1, SessionState.STARTING)
    items = publisher.feed.watch_sessions(matches=lambda record: record.state is SessionState.RUNNING)
    await take(items, 1)
    publisher.put(1, SessionState.STOPPING)
    publisher.put(2, SessionState.STARTING)
    publisher.remove(2)
    await nothing_more(items)


async def test_after_resuming_a_session_that_matched_before_is_removed(publisher: Publisher) -> None:
    publisher.put(1)
    publisher.put(2)
    token = publisher.feed.resume_token
    publisher.put(1, SessionState.SUCCEEDED)
    items = publisher.feed.watch_sessions(
        matches=lambda record: record.state is SessionState.RUNNING, resume_token=token
    )
    assert await take(items, 2) == ["session-1 removed", "synced"]
    publisher.put(2, SessionState.SUCCEEDED)
    assert await take(items, 1) == ["session-2 removed"]


async def test_one_session_is_watched_to_its_end(publisher: Publisher) -> None:
    publisher.put(1)
    records = publisher.feed.watch_session(SessionId("session-1"))
    assert (await anext(records)).revision == 1
    publisher.put(2)
    publisher.put(1)
    publisher.put(1)
    assert (await anext(records)).revision == 3
    publisher.put(1, SessionState.SUCCEEDED)
    assert (await anext(records)).state is SessionState.SUCCEEDED
    with pytest.raises(StopAsyncIteration):
        await anext(records)


async def test_a_revision_that_is_known_is_not_told_again(publisher: Publisher) -> None:
    known = publisher.put(1)
    records = publisher.feed.watch_session(SessionId("session-1"), after_revision=known.revision)
    await nothing_more(records)
    records = publisher.feed.watch_session(SessionId("session-1"), after_revision=known.revision - 1)
    assert (await anext(records)).revision == known.revision


async def test_a_final_state_is_told_even_when_its_revision_is_known(publisher: Publisher) -> None:
    final = publisher.put(1, SessionState.SUCCEEDED)
    records = publisher.feed.watch_session(SessionId("session-1"), after_revision=final.revision)
    assert [record async for record in records] == [final]


async def test_an_end_followed_by_a_deletion_is_not_missed(publisher: Publisher) -> None:
    publisher.put(1)
    records = publisher.feed.watch_session(SessionId("session-1"))
    await anext(records)
    publisher.put(1, SessionState.FAILED)
    publisher.remove(1)
    assert [record.state async for record in records] == [SessionState.FAILED]


async def test_a_session_that_does_not_exist_cannot_be_watched(publisher: Publisher) -> None:
    with pytest.raises(RequestFailure) as caught:
        await anext(publisher.feed.watch_session(SessionId("nobody")))
    assert caught.value.reason is Reason.SESSION_NOT_FOUND


async def test_closing_ends_every_watch(publisher: Publisher) -> None:
    publisher.put(1)
    one = publisher.feed.watch_session(SessionId("session-1"))
    every = publisher.feed.watch_sessions()
    await anext(one)
    await take(every, 2)
    waiting = asyncio.gather(anext(one), anext(every), return_exceptions=True)
    await settle()
    publisher.feed.close()
    for outcome in await waiting:
        assert isinstance(outcome, RequestFailure)
        assert outcome.reason is Reason.SHUTTING_DOWN


async def test_a_watch_that_was_busy_while_the_feed_closed_ends_too(publisher: Publisher) -> None:
    publisher.put(1)
    every = publisher.feed.watch_sessions()
    await take(every, 2)
    publisher.feed.close()
    with pytest.raises(RequestFailure, match="shutting down"):
        async with asyncio.timeout(5):
            await anext(every)


async def test_a_watcher_that_leaves_is_forgotten(publisher: Publisher) -> None:
    publisher.put(1)
    one = publisher.feed.watch_session(SessionId("session-1"))
    every = publisher.feed.watch_sessions()
    await anext(one)
    await anext(every)
    assert publisher.feed.watcher_count == 2
    await one.aclose()  # type: ignore[attr-defined]
    await every.aclose()  # type: ignore[attr-defined]
    assert publisher.feed.watcher_count == 0
