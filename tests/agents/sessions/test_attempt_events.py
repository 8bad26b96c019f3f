"""Events: their numbers only rise, and no watcher loses what still holds, however slow it is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.devices.measurements import Measurements
from agents.pipelines.job import IngestProtocol
from agents.pipelines.progress import Progress
from agents.sessions.attempt import AttemptKey, AttemptStatus, Condition, Ending, Failure, Phase, StopCause
from agents.sessions.event_feed import AgentChanged, CaughtUp, Event, MeasurementsTold, StatusTold, Watcher
from agents.sessions.event_numbers import EventNumbers
from agents.sessions.folder import AttemptFolder, SessionFolders
from agents.sessions.ingest import open_point
from agents.sessions.records import RecordUnreadableError, dump_status, load_launch, load_status
from agents.sessions.status_book import Attempt, StatusBook
from gpu_balancer.runtime.failures import Reason, RequestFailure

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


class FixedClock:
    def __init__(self, now: datetime = NOW) -> None:
        self._now = now

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return 0.0


def folder_of(root: Path, session: str) -> AttemptFolder:
    folder = SessionFolders(root=root / "sessions").of(AttemptKey(session=session, attempt=1))
    if not folder.path.exists():
        folder.create({})
    return folder


def attempt_of(root: Path, session: str) -> Attempt:
    folder = folder_of(root, session)
    return Attempt(folder, AttemptStatus(key=folder.key, launch_time=NOW))


@pytest.fixture
def book(tmp_path: Path) -> StatusBook:
    return StatusBook(EventNumbers(tmp_path / "event-number", FixedClock()))


async def take(events: AsyncIterator[Event], count: int) -> list[Event]:
    async with asyncio.timeout(5):
        return [await anext(events) for _ in range(count)]


def told(events: list[Event]) -> list[tuple[str, int]]:
    return [(event.status.key.session, event.number) for event in events if isinstance(event, StatusTold)]


# Numbers


def test_numbers_rise_over_restarts_even_when_the_clock_goes_back(tmp_path: Path) -> None:
    path = tmp_path / "event-number"
    given = [EventNumbers(path, FixedClock()).next()]
    for now in (NOW, NOW - timedelta(days=1000), NOW):
        numbers = EventNumbers(path, FixedClock(now))
        given += [numbers.next() for _ in range(1500)]
    assert given == sorted(set(given))


def test_a_new_state_folder_begins_beyond_the_numbers_of_a_lost_one(tmp_path: Path) -> None:
    lost = EventNumbers(tmp_path / "lost", FixedClock())
    last = [lost.next() for _ in range(5000)][-1]
    assert EventNumbers(tmp_path / "new", FixedClock(NOW + timedelta(minutes=1))).next() > last


def test_numbers_go_on_when_they_cannot_be_written(tmp_path: Path) -> None:
    numbers = EventNumbers(tmp_path / "missing" / "event-number", FixedClock())
    assert numbers.next() < numbers.next()


# Feed


async def test_a_watcher_hears_kept_events_in_order_then_that_it_has_caught_up(
    tmp_path: Path, book: StatusBook
) -> None:
    attempts = [attempt_of(tmp_path, name) for name in "abc"]
    for attempt in (*attempts, attempts[0]):
        await book.publish(attempt)
    attempts[1].status = replace(attempts[1].status, phase=Phase.ENDED, ending=Ending.COMPLETED)
    await book.publish(attempts[1])
    with book.feed.watch(0, book.last_number) as watcher:
        events = await take(watcher.events(), 4)
    numbers = [number for _, number in told(events)]
    assert [session for session, _ in told(events)] == ["c", "a", "b"]
    assert numbers == sorted(numbers)
    assert numbers[-1] == book.last_number
    assert events[-1] == CaughtUp(live_attempts=(attempts[0].key, attempts[2].key))


async def test_a_watcher_is_told_what_the_agent_is_once_it_has_caught_up(tmp_path: Path, book: StatusBook) -> None:
    """It asked before it began to listen, and what changed in between was told to nobody."""
    attempt = attempt_of(tmp_path, "a")
    await book.publish(attempt)
    book.feed.agent_changed()
    with book.feed.watch(book.last_number, book.last_number) as watcher:
        assert await take(watcher.events(), 2) == [CaughtUp(live_attempts=(attempt.key,)), AgentChanged()]


async def test_a_cursor_spares_what_was_stored_and_one_from_another_life_spares_nothing(
    tmp_path: Path, book: StatusBook
) -> None:
    first, second = attempt_of(tmp_path, "a"), attempt_of(tmp_path, "b")
    await book.publish(first)
    await book.publish(second)
    for after, expected in (
        (first.status.event_number, ["b"]),
        (second.status.event_number, []),
        (second.status.event_number + 1000, ["a", "b"]),
    ):
        with book.feed.watch(after, book.last_number) as watcher:
            events = await take(watcher.events(), len(expected) + 1)
            assert [session for session, _ in told(events)] == expected
            assert isinstance(events[-1], CaughtUp)


async def test_a_watcher_that_does_not_listen_holds_nothing_up_and_hears_the_latest_truth(
    tmp_path: Path, book: StatusBook
) -> None:
    attempt = attempt_of(tmp_path, "a")
    with book.feed.watch(0, 0) as watcher:
        events = watcher.events()
        await take(events, 1)
        for frames in range(1, 200):
            attempt.status = replace(attempt.status, progress=Progress(frames=frames))
            await book.publish(attempt)
            book.progressed(attempt)
        heard = await take(events, 1)
        assert told(heard) == [("a", book.last_number)]
        assert isinstance(heard[0], StatusTold)
        assert heard[0].status.progress == Progress(frames=199)


async def test_progress_measurements_and_the_agent_are_told_without_a_number(tmp_path: Path, book: StatusBook) -> None:
    attempt = attempt_of(tmp_path, "a")
    await book.publish(attempt)
    with book.feed.watch(book.last_number, book.last_number) as watcher:
        events = watcher.events()
        await take(events, 2)
        attempt.status = replace(attempt.status, progress=Progress(frames=7))
        book.progressed(attempt)
        book.feed.measured(Measurements(measure_time=NOW))
        book.feed.measured(Measurements(measure_time=NOW, compute_utilization_percent=3))
        book.feed.agent_changed()
        heard = await take(events, 3)
    assert heard[0] == AgentChanged()
    assert isinstance(heard[1], StatusTold)
    assert (heard[1].number, heard[1].status.progress) == (0, Progress(frames=7))
    assert heard[2] == MeasurementsTold(measurements=Measurements(measure_time=NOW, compute_utilization_percent=3))


async def test_concurrent_events_are_told_in_the_order_of_their_numbers_and_none_is_lost(
    tmp_path: Path, book: StatusBook
) -> None:
    attempts = [attempt_of(tmp_path, f"s{number}") for number in range(30)]
    with book.feed.watch(0, 0) as watcher:
        listening = asyncio.gather(_until_all_told(watcher, {attempt.key.session for attempt in attempts}))
        await asyncio.gather(*(book.publish(attempt) for attempt in attempts))
        [numbers] = await asyncio.wait_for(listening, 10)
    assert numbers == sorted(numbers)
    assert len(numbers) == 30


async def _until_all_told(watcher: Watcher, wanted: set[str]) -> list[int]:
    numbers = []
    async for event in watcher.events():
        if isinstance(event, StatusTold):
            numbers.append(event.number)
            wanted.discard(event.status.key.session)
        if not wanted:
            break
    return numbers


async def test_a_status_is_on_the_disk_before_it_is_told(tmp_path: Path, book: StatusBook) -> None:
    attempt = attempt_of(tmp_path, "a")
    with book.feed.watch(0, 0) as watcher:
        events = watcher.events()
        await take(events, 1)
        await book.publish(attempt)
        [heard] = await take(events, 1)
    assert isinstance(heard, StatusTold)
    assert load_status(attempt.folder.status.read_bytes()) == heard.status


async def test_a_status_that_cannot_be_written_is_told_all_the_same(tmp_path: Path, book: StatusBook) -> None:
    attempt = attempt_of(tmp_path, "a")
    attempt.folder.path.rename(tmp_path / "elsewhere")
    await book.publish(attempt)
    assert book.statuses[attempt.key].event_number == book.last_number


@pytest.mark.parametrize("content", [b"", b"many", b"\xff\xfe", b"9" * 19, b"9" * 10_000], ids=range(5))
def test_a_counter_that_cannot_be_read_begins_with_the_time_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    (tmp_path / "event-number").write_bytes(content)
    assert EventNumbers(tmp_path / "event-number", FixedClock()).last == NOW.timestamp() * 1000
    assert "it holds no number" in caplog.text


@pytest.mark.parametrize("content", [b"", b"x", b"\xff\xfe", b"9" * 10, b"9" * 10_000], ids=range(5))
def test_a_process_id_that_cannot_be_read_is_none(tmp_path: Path, content: bytes) -> None:
    folder = AttemptFolder(path=tmp_path, key=AttemptKey(session="s1", attempt=1))
    for name in ("shim.pid", "program.pid", "exit"):
        (tmp_path / name).write_bytes(content)
    assert (folder.shim_pid(), folder.program_pid(), folder.exit_code()) == (None, None, None)


# Records


def test_a_status_survives_its_record() -> None:
    status = AttemptStatus(
        key=AttemptKey(session="s1", attempt=3),
        event_number=17,
        phase=Phase.ENDED,
        ending=Ending.FAILED,
        failure=Failure(reason="KILLED", message="Cannot.", exit_code=137, log_tail=("a", "ü")),
        progress=Progress(frames=5, out_time=timedelta(seconds=1.5)),
        conditions=(Condition(type="STALLED", message="m", since_time=NOW),),
        ingest_url="rtmp://127.0.0.1:1/live/k",
        launch_time=NOW,
        running_time=NOW,
        end_time=NOW,
        stop_cause=StopCause.ASKED,
        signal_time=NOW,
    )
    assert load_status(dump_status(status)) == status


@pytest.mark.parametrize("content", [b"", b"{", b"{}", b'{"version": 2, "status": {}}'])
def test_a_record_of_another_version_is_refused(content: bytes) -> None:
    with pytest.raises(RecordUnreadableError):
        load_status(content)
    with pytest.raises(RecordUnreadableError):
        load_launch(content)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"launch_time": NOW.replace(tzinfo=None)}, "a time lacks its zone"),
        ({"event_number": 10**18 + 1}, "out of range"),
        ({"event_number": -1}, "out of range"),
    ],
)
def test_a_status_with_values_that_nobody_can_use_is_refused(changes: dict[str, Any], problem: str) -> None:
    status = AttemptStatus(key=AttemptKey(session="s1", attempt=3), launch_time=NOW, event_number=10**18)
    assert load_status(dump_status(status)) == status
    with pytest.raises(RecordUnreadableError, match=problem):
        load_status(dump_status(replace(status, **changes)))


# Ingest


@pytest.mark.parametrize("protocol", list(IngestProtocol))
def test_a_port_that_somebody_has_is_not_given(protocol: IngestProtocol) -> None:
    kind = socket.SOCK_STREAM if protocol is IngestProtocol.RTMP else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(RequestFailure) as caught:
            open_point(protocol, "127.0.0.1", range(port, port + 1), ())
    assert caught.value.reason is Reason.NO_CAPACITY
    assert open_point(protocol, "127.0.0.1", range(port, port + 1), ()).port == port
    with pytest.raises(RequestFailure):
        open_point(protocol, "127.0.0.1", range(port, port + 1), {port})


def test_stream_keys_are_long_and_differ() -> None:
    ports = range(20_000, 21_000)
    keys = {open_point(IngestProtocol.RTMP, "127.0.0.1", ports, ()).url.rpartition("/")[2] for _ in range(20)}
    assert len(keys) == 20
    assert min(len(key) for key in keys) >= 26


def test_an_srt_publisher_is_given_caller_mode_and_a_passphrase() -> None:
    url = open_point(IngestProtocol.SRT, "127.0.0.1", range(20_000, 21_000), ()).url
    assert url.startswith("srt://127.0.0.1:20")
    assert "?mode=caller&passphrase=" in url
